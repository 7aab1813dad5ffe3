package conv

import (
	"bytes"

	"manada/internal/proxy/classify"
)

// note is what the answer to a message means to the conversation.
type note struct {
	about   about    // it changes something in the session once it has succeeded
	sql     string   // of a setting
	several []string // of those of a text of several statements
	deeds   []deed   // what it does to prepared statements then

	made    string // a statement of the client's is made: forgotten when that fails
	is      *stmt
	body    string    // a statement of ours is made on the link, by its key
	forgets forgotten // all statements are gone then, up to these
	closed  string    // a statement of the client's is closed: not so when that is skipped
	was     *stmt
	at      int              // the last serial before it was closed
	all     map[string]*stmt // all of the client's are closed

	again []string   // what gives back the client's own values of settings, behind it
	text  *rewritten // it was sent otherwise
	sent  []byte     // than the client's text

	before, had *stmt // the unnamed statements that a Query has forgotten: it has not when it is skipped

	quiet   bool   // its error is for nobody
	numbers uint64 // the last values of sequences are gone, of as many calls of nextval

	aliases []alias // what an error may name
}

// query notes what a simple query means, and rewrites it where it hides warnings.
func (c *Conv) query(r *run, msg []byte) (n *note, instead []byte) {
	if was, had := c.forgetPlain(); was != nil {
		defer func() {
			if n == nil {
				n = &note{}
			}
			n.before, n.had = was, had
		}()
	}
	c.read.wrote = true
	o := &c.owed
	var is about
	switch {
	case o.peeked:
		is = o.query
	case !c.eager() && !c.set.watched && !mentionsWord(msg, minMessages) && !(c.pooled() && quick(msg[headerLen:])) && !c.mayReset(msg[headerLen:]):
		return nil, nil
	default:
		is = c.classifiedQuery(msg)
	}
	o.peeked = false
	n = c.effect(r, is, settingSQL(textOf(msg), is), false)
	if n != nil && is.Several != nil && is.Kind != classify.Pin {
		n.several = severalSQL(textOf(msg), is)
	}
	w := c.rewrite(r, is)
	if w == nil {
		c.stamp(n)
		return n, nil
	}
	if n == nil {
		n = &note{}
	}
	n.aliases = w.aliases
	n.text, n.sent = w, append([]byte(nil), textOf(msg)...)
	c.stamp(n)
	if len(w.edits) == 0 {
		return n, nil
	}
	return n, w.message(msg, headerLen)
}

// forgetPlain forgets the unnamed statement, as PostgreSQL does when a Query comes.
func (c *Conv) forgetPlain() (was, had *stmt) {
	l := c.links[Main]
	was, had = c.plain, l.plain
	c.plain, l.plain = nil, nil
	return was, had
}

// classifiedQuery is what is known of a whole Query.
func (c *Conv) classifiedQuery(msg []byte) about {
	if sql := textOf(msg); len(sql)+1 == len(msg)-headerLen {
		return c.classified(sql)
	}
	return about{Kind: classify.Pin, Why: "a text that is not understood"}
}

func (c *Conv) classified(sql []byte) about { return classify.Known(sql, c.cfg.Dangerous) }

// textOf is the text of a Query.
func textOf(msg []byte) []byte {
	text, _, _ := bytes.Cut(msg[headerLen:], zero)
	return text
}

var zero = []byte{0}

// effect notes what a statement that is going to be executed may leave behind.
func (c *Conv) effect(r *run, is about, sql string, inBatch bool) (n *note) {
	c.owed.wrote = c.owed.wrote || writes(is)
	if is.Numbers || is.Inserts {
		c.sequences(r, is, inBatch)
	}
	c.set.local = c.set.local || is.Sets
	c.defines(is)
	if is.Kind == classify.Pin {
		n = &note{}
		if !is.Transactional { // else its success does
			c.guessed(is.Why, n)
		}
		if l := c.links[Main]; l != nil {
			l.loaded = l.loaded || is.Loads
		}
	}
	if is.Level != classify.LevelKept {
		c.set.watched = true
	}
	if c.pooled() && (is.Kind == classify.Discard || len(is.Prepared) > 0) {
		c.barrier = true
	}
	switch {
	case is.Kind == classify.Settings, is.Kind == classify.Discard, is.Several != nil,
		is.Level != classify.LevelKept, is.Inserts && is.Queries > 0 && c.cfg.Mode == Auto, is.Mark != classify.MarkNone,
		is.Transactional, is.Commits && inBatch:
		if n == nil {
			n = &note{}
		}
		n.about, n.sql = is, sql
		if is.Kind == classify.Discard {
			n.numbers = c.links[Main].numbers
		}
	}
	return n
}

// settingSQL is the text of a SET as it is said to a server.
func settingSQL(sql []byte, is about) string {
	if is.Kind != classify.Settings {
		return ""
	}
	return string(unmuteText(sql, is.Mute))
}

// severalSQL are the statements of a text that set something.
func severalSQL(sql []byte, is about) (out []string) {
	for _, s := range is.Several {
		var hides []classify.Span
		for _, m := range is.Mute {
			if m.From >= s.From && m.To <= s.To {
				hides = append(hides, classify.Span{From: m.From - s.From, To: m.To - s.From})
			}
		}
		out = append(out, string(unmuteText(sql[s.From:s.To], hides)))
	}
	return out
}

// done applies what a statement meant that has succeeded.
func (c *Conv) done(n *note, l *Link) {
	if n == nil {
		return
	}
	for _, a := range n.deeds {
		c.acted(a, n, l)
	}
	switch is := n.about; {
	case is.Kind == classify.Discard:
		c.forgetAll(n.forgets, l)
		l.numbers, c.strange = l.numbers-n.numbers, false
		if !l.loaded {
			c.pin, c.tie, c.guess = "", "", nil
		}
		c.set.discarded(n, l)
		return
	}
	if n.about.Inserts {
		c.inserted, c.once = true, true
	}
	if c.set.note(n) {
		c.pinned("too many settings in one transaction")
		c.set.undo()
	}
	if n.about.Commits {
		c.set.commit(l)
	}
	c.lasts()
}

// fails notes that the execution of what n is about has failed: it was begun.
func (c *Conv) fails(n *note) {
	if n == c.guess {
		c.guess = nil
	}
	if n.about.Commits && len(c.set.ops) > 0 {
		c.pinned("what its batch may have committed")
	}
}

// lasts pins the client by what a transaction has left behind that was committed.
func (c *Conv) lasts() {
	if why := c.set.pin; why != "" {
		c.set.pin = ""
		c.pinned(why)
	}
}

// unknown notes that something was done of which nobody knows what it leaves.
func (c *Conv) unknown(what string) {
	c.owed.wrote, c.read.wrote = true, true
	c.pinned(what)
	if l := c.links[Main]; l != nil {
		l.numbers++
	}
}

// words that make a text one to look at.
var (
	minMessages = []byte("client_min_messages")
	poolNodes   = []byte("pool_nodes")
)

// mentionsWord finds a word with an underscore behind its first part, in any case.
func mentionsWord(b, word []byte) bool {
	lead := bytes.IndexByte(word, '_')
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '_')
		if i < 0 {
			return false
		}
		at += i + 1
		if from := at - 1 - lead; from >= 0 && from+len(word) <= len(b) && b[at]|0x20 == word[lead+1] && bytes.EqualFold(b[from:from+len(word)], word) {
			return true
		}
	}
}

// shownLevel takes the place of a level that hides warnings: the one that a commit
// was not replicated has to reach the proxy.
const shownLevel = "'warning'"

// unmuteText writes a text anew with warnings no longer hidden.
func unmuteText(sql []byte, spans []classify.Span) []byte {
	if len(spans) == 0 {
		return sql
	}
	return muted(spans).text(sql)
}

func muted(spans []classify.Span) *rewritten {
	w := &rewritten{}
	for _, m := range spans {
		w.edits = append(w.edits, edit{m, shownLevel})
	}
	return w
}
