package conv

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"manada/internal/proxy/classify"
)

// note is what the answer to a message means to the conversation.
type note struct {
	about about  // it changes something in the session once it has succeeded
	sql   string // of a setting
	made  string // a statement of the client's is made: forgotten when that fails
	body  string // a statement of ours is made on the link
}

// set follows the settings of a client through its transactions.
type set struct {
	vars vars     // of the session, but for the transaction under way
	ops  []change // of that transaction, in order

	// The server always sends warnings, because one of them says that a commit was
	// not replicated. A client that has set client_min_messages above warning does
	// not get the others.
	hides   bool // now
	session bool // outside of the transaction
	first   bool // at log-in
	watched bool // it may be otherwise than at log-in

	rolledBack bool // since the last ReadyForQuery
}

// change is what a statement did to the settings.
type change struct {
	all       bool // RESET ALL
	name, sql string
	level     classify.Level
	local     bool // for the transaction only
}

// query notes what a simple query means, and rewrites it where it hides warnings.
func (c *Conv) query(msg []byte) (*note, []byte) {
	c.plain = nil // as PostgreSQL forgets it
	c.read.wrote = true
	o := &c.owed
	var is about
	switch {
	case o.peeked:
		is = o.query
	case !c.eager() && !c.set.watched && !mentions(msg):
		return nil, nil
	default:
		is = classified(msg)
	}
	o.peeked = false
	return c.effect(is, settingSQL(textOf(msg), is)), unmute(msg, headerLen, is.Mute)
}

// classified is what is known of a whole Query.
func classified(msg []byte) about {
	if sql := textOf(msg); len(sql)+1 == len(msg)-headerLen {
		return classify.Text(sql)
	}
	return about{Kind: classify.Pin}
}

// textOf is the text of a Query.
func textOf(msg []byte) []byte {
	text, _, _ := bytes.Cut(msg[headerLen:], zero)
	return text
}

var zero = []byte{0}

// effect notes what a statement that is going to be executed may leave behind.
func (c *Conv) effect(is about, sql string) *note {
	c.owed.wrote = c.owed.wrote || is.Kind != classify.Read
	switch is.Kind {
	case classify.Forget:
		c.stmts, c.kept = nil, 0
	case classify.Pin:
		c.pinned("a statement that may leave something behind")
	}
	if is.Level != classify.LevelKept {
		c.set.watched = true
	}
	if is.Kind == classify.Settings || is.Kind == classify.Discard || is.Level != classify.LevelKept {
		return &note{about: is, sql: sql}
	}
	return nil
}

// settingSQL is the text of a SET as it is said to a server.
func settingSQL(sql []byte, is about) string {
	if is.Kind != classify.Settings {
		return ""
	}
	return string(unmuteText(sql, is.Mute))
}

// done applies what a statement meant that has succeeded.
func (c *Conv) done(n *note) {
	if n == nil {
		return
	}
	switch is := n.about; is.Kind {
	case classify.Discard:
		c.pin, c.stmts, c.kept, c.plain = "", nil, 0, nil
		c.set.ops = append(c.set.ops, change{all: true, level: is.Level})
	case classify.Settings:
		c.set.ops = append(c.set.ops, change{all: is.Setting == "", name: is.Setting, sql: n.sql, level: is.Level})
	default:
		if is.Level != classify.LevelKept {
			c.set.ops = append(c.set.ops, change{level: is.Level, local: is.Local})
		}
	}
	if len(c.set.ops) > maxChanges {
		c.pinned("too many settings in one transaction")
		c.set.ops = c.set.ops[:0]
	}
	c.set.now()
}

// maxChanges bounds what is remembered of one transaction.
const maxChanges = 1000

// completed notes the tag of a command: it may end a transaction, or a part of it.
func (s *set) completed(tag []byte) {
	switch {
	case bytes.HasPrefix(tag, tagRollback):
		s.rolledBack = true
	case bytes.HasPrefix(tag, tagCommit), bytes.HasPrefix(tag, tagPrepare):
		s.commit()
	}
}

var tagRollback, tagCommit, tagPrepare = []byte("ROLLBACK\x00"), []byte("COMMIT\x00"), []byte("PREPARE TRANSACTION\x00")

// ready notes the end of a unit. It says whether something is in doubt: nobody
// knows what a rollback to a savepoint has taken back.
func (s *set) ready(status byte, failed bool) (doubt bool) {
	switch {
	case len(s.ops) == 0:
	case s.rolledBack:
		for _, op := range s.ops {
			doubt = doubt || status != 'I' && (op.all || op.name != "")
		}
		s.ops = s.ops[:0]
		s.now()
	case status != 'I':
	case failed:
		s.ops = s.ops[:0]
		s.now()
	default:
		s.commit()
	}
	s.rolledBack = false
	return doubt
}

// commit makes what the transaction has changed the session's.
func (s *set) commit() {
	for _, op := range s.ops {
		switch {
		case op.local:
			continue
		case op.all:
			s.vars = nil
		case op.name != "":
			s.vars = s.vars.with(op.name, op.sql)
		}
		s.session = op.hides(s.session, s.first)
	}
	s.ops = s.ops[:0]
	s.now()
}

// now finds whether the client gets warnings.
func (s *set) now() {
	s.hides = s.session
	for _, op := range s.ops {
		s.hides = op.hides(s.hides, s.first)
	}
}

// carried are the settings that PostgreSQL reports and that a client may have set
// in ways that no text shows.
var carried = []string{"application_name", "client_encoding", "datestyle", "intervalstyle", "search_path", "timezone"}

// news notes what the server has reported in a transaction, once it has ended.
func (c *Conv) news(l *Link) {
	for _, name := range l.news {
		if key := strings.ToLower(name); c.eager() && slices.Contains(carried, key) {
			c.set.vars = c.set.vars.with(key, giving(key, l.reported[name]))
		}
	}
	l.news = l.news[:0]
}

// hides is whether warnings are hidden behind the change.
func (op change) hides(before, first bool) bool {
	switch op.level {
	case classify.LevelHides:
		return true
	case classify.LevelShows:
		return false
	case classify.LevelReset:
		return first
	}
	return before
}

// parse notes a prepared statement, and rewrites it where it hides warnings.
func (c *Conv) parse(msg []byte) (*note, []byte) {
	name, rest, ok := bytes.Cut(msg[headerLen:], zero)
	sql, types, good := bytes.Cut(rest, zero)
	s := &stmt{about: about{Kind: classify.Pin}}
	if ok && good && len(types) >= 2 {
		s.about = classify.Text(sql)
		s.sql = settingSQL(sql, s.about)
		if c.cfg.Split && s.about.Kind == classify.Read && c.kept+len(rest) <= maxKept {
			s.body = string(rest)
		}
	}
	instead := unmute(msg, headerLen+len(name)+1, s.about.Mute)
	if len(name) == 0 {
		c.plain = s
		return nil, instead
	}
	c.remember(string(name), s)
	return &note{made: string(name)}, instead
}

func (c *Conv) remember(name string, s *stmt) {
	c.forget(name)
	if len(c.stmts) >= maxStatements {
		return
	}
	if c.stmts == nil {
		c.stmts = map[string]*stmt{}
	}
	c.kept += len(s.body)
	c.stmts[name] = s
}

func (c *Conv) forget(name string) {
	if name == "" {
		c.plain = nil
	} else if s := c.stmts[name]; s != nil {
		c.kept -= len(s.body)
		delete(c.stmts, name)
	}
}

// statement is the client's of that name, or nil.
func (c *Conv) statement(name []byte) *stmt {
	if len(name) == 0 {
		return c.plain
	}
	return c.stmts[string(name)]
}

// bind notes what is about to be executed.
func (c *Conv) bind(r *run, msg []byte) {
	c.read.wrote = true
	portal, rest, _ := bytes.Cut(msg[headerLen:], zero)
	name, _, ok := bytes.Cut(rest, zero)
	s := c.statement(name)
	if !ok || s == nil {
		c.unknown("a prepared statement that was not seen")
		return
	}
	c.inject(r, name, s)
	n := c.effect(s.about, s.sql)
	switch {
	case n != nil && (len(portal) > 0 || c.bound != nil):
		c.pinned("a portal of a statement that changes settings")
	case len(portal) == 0:
		c.bound = n
	}
}

// executes is what the next Execute means.
func (c *Conv) executes() (n *note) {
	n, c.bound = c.bound, nil
	return n
}

// closed forgets a statement that the client closes.
func (c *Conv) closed(msg []byte) {
	if name, ok := named(msg); ok {
		c.forget(string(name))
	}
}

// named is the statement that a Describe or Close is about.
func named(msg []byte) (name []byte, ok bool) {
	if len(msg) <= headerLen+1 || msg[headerLen] != 'S' {
		return nil, false
	}
	name, _, ok = bytes.Cut(msg[headerLen+1:], zero)
	return name, ok
}

// described gives Main what a Describe needs.
func (c *Conv) described(r *run, msg []byte) {
	if name, ok := named(msg); ok {
		if s := c.statement(name); s != nil {
			c.inject(r, name, s)
		}
	}
}

// inject gives Main the unnamed statement that only a standby has.
func (c *Conv) inject(r *run, name []byte, s *stmt) {
	if !s.away {
		return
	}
	s.away = false
	r.flush()
	c.links[Main].sent(entry{kind: parse, ours: true})
	r.fx.say(Main, 'P', append([]byte{0}, s.body...))
}

// unknown notes that something was done of which nobody knows what it leaves.
func (c *Conv) unknown(what string) {
	c.owed.wrote, c.read.wrote = true, true
	c.pinned(what)
}

// lost notes that a message was skipped, or has failed.
func (c *Conv) lost(l *Link, e entry) {
	switch {
	case e.note != nil && e.note.body != "":
		l.stmts.lost(e.note.body)
	case e.kind == parse && e.ours:
		if c.plain != nil && l == c.links[Main] {
			c.plain.away = true
		}
	case e.kind == parse && e.note == nil:
		c.plain = nil
	case e.note != nil && e.note.made != "":
		c.forget(e.note.made)
	}
}

// words that make a text one to look at.
var (
	minMessages = []byte("client_min_messages")
	poolNodes   = []byte("pool_nodes")
)

// mentions is quick and errs on the safe side.
func mentions(msg []byte) bool { return mentionsWord(msg, minMessages) }

// mentionsWord finds a word with an underscore behind its first part, in any case.
func mentionsWord(b, word []byte) bool {
	lead := bytes.IndexByte(word, '_')
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '_')
		if i < 0 {
			return false
		}
		at += i
		if from := at - lead; from >= 0 && from+len(word) <= len(b) && bytes.EqualFold(b[from:from+len(word)], word) {
			return true
		}
		at++
	}
}

// unmute writes a message anew with warnings no longer hidden: the one that a
// commit was not replicated has to reach the proxy. at is where the text begins;
// nil: there is nothing to change.
func unmute(msg []byte, at int, spans []classify.Span) []byte {
	if len(spans) == 0 {
		return nil
	}
	sql, rest, _ := bytes.Cut(msg[at:], zero)
	out := append([]byte(nil), msg[:at]...)
	out = append(append(append(out, unmuteText(sql, spans)...), 0), rest...)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}

func unmuteText(sql []byte, spans []classify.Span) []byte {
	if len(spans) == 0 {
		return sql
	}
	var out []byte
	last := 0
	for _, s := range spans {
		out = append(append(out, sql[last:s.From]...), "'warning'"...)
		last = s.To
	}
	return append(out, sql[last:]...)
}
