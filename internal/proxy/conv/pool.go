package conv

import (
	"bytes"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// pooled says whether others have the client's Main server before and after it.
func (c *Conv) pooled() bool { return c.cfg.Shared || c.renames() }

// renames says whether Main is the client's for a transaction only: its statements are
// there under names of the link.
func (c *Conv) renames() bool { return c.cfg.Mode != Session }

// stays says whether the client keeps Main until it leaves, and why.
func (c *Conv) stays() (why string, yes bool) {
	switch c.cfg.Mode {
	case Session:
		return "its pool's mode is session", true
	case Auto:
		return c.pin, c.pin != ""
	}
	return c.tie, c.tie != ""
}

// ready says whether Main may be given the client's next message. If not, it is
// wanted, or is being made ready.
func (c *Conv) ready(fx *Effects) bool {
	l := c.links[Main]
	if c.holds(l) && (l == nil || l.idle() && !c.open) {
		c.wait = forHold
		return false
	}
	if l == nil {
		if l = c.take(fx); l == nil {
			c.wait = forMain
			fx.add(Effect{Kind: Want, Side: Main})
			return false
		}
	}
	if c.pooled() && !c.open && l.free() {
		c.tune(fx)
	}
	return c.wait == nothing
}

// take takes the server that is at hand; nil: there is none, or it is held.
func (c *Conv) take(fx *Effects) *Link {
	l := c.offered
	if l == nil || c.holds(l) {
		return nil
	}
	c.offered = nil
	c.gets(l)
	fx.add(Effect{Kind: Take, Side: Main})
	return l
}

// gets begins with a server as Main.
func (c *Conv) gets(l *Link) {
	c.links[Main] = l
	c.used, c.inserted, c.promoted, c.strange = false, false, false, l.numbers > 0
}

// tune gives Main the client's settings, where it has others.
func (c *Conv) tune(fx *Effects) {
	l := c.links[Main]
	sql, numbers := "", uint64(0)
	if l.status == 'I' && !same(l.vars, c.set.vars) {
		sql = l.vars.become(c.set.vars)
	}
	if c.numbers && c.strange && l.status == 'I' {
		sql += "DISCARD SEQUENCES\n;"
		numbers, c.strange = l.numbers, false
	}
	if sql == "" {
		c.tuned(fx)
		return
	}
	c.wait, c.refused = forTuning, nil
	l.sent(entry{kind: query, ours: true, note: &note{numbers: numbers}})
	l.plain = nil
	fx.say(Main, wire.TypeQuery, append([]byte(sql), 0))
}

// tuned: Main has the client's settings.
func (c *Conv) tuned(fx *Effects) {
	l := c.links[Main]
	c.wait = nothing
	if l.status == 'I' {
		l.vars = c.set.vars
		c.news(l)
	}
	c.show(l.reported, fx)
	if c.enters {
		c.begun = l.reported
		c.enters = false
		fx.add(Effect{Kind: Send, Side: Client, B: c.cfg.Welcome(l)})
	}
	if c.cfg.Mode == Auto {
		c.pinnedAnyway(l)
	}
	switch {
	case c.called:
		c.callOff(fx)
	case c.read.pending:
		c.read.pending = false
		c.repeat(fx)
	}
}

// pinnedAnyway pins a client for what its settings do to whatever it says.
func (c *Conv) pinnedAnyway(l *Link) {
	if odd := l.reported.odd; odd != "" {
		c.pinned(odd)
	}
	if s := c.cfg.Startup; s != nil && s.pin != "" {
		c.pinned(s.pin)
	}
	if c.cfg.Temporary {
		c.pinned(temporaryObjects)
	}
}

// untuned: Main has refused them. What PostgreSQL would have said at log-in is said
// now.
func (c *Conv) untuned(why *wire.Error) {
	c.wait = nothing
	c.killed = wire.Fatal(why.Code, why.Message, why.Hint)
	c.killed.Detail = why.Detail
}

// granted takes over a server.
func (c *Conv) granted(side Side, l *Link, fx *Effects) {
	switch {
	case side == Reader:
		c.links[Reader] = l
		c.connected(fx)
	case c.wait != forMain: // it is a client's from its log-in on
		c.links[Main] = l
	default:
		c.wait = nothing
		if c.gets(l); c.holds(l) { // it was on its way
			c.wait = forHold
			c.give(Main, Clean, fx)
			return
		}
		c.tune(fx)
	}
}

// denied: there is no server.
func (c *Conv) denied(side Side, why *wire.Error, fx *Effects) {
	if side == Reader {
		c.decline(fx)
		return
	}
	switch {
	case why == nil && c.wait == forMain:
		c.wait = nothing
		c.ready(fx)
	case c.killed == nil:
		c.killed = why
	}
}

// release gives Main back when the rules allow it: nothing is owed, nothing stands
// open, nothing that only this client may have is left in it, no request to cancel
// is under way, and nothing came from it that was not looked at.
func (c *Conv) release(fx *Effects) {
	l := c.links[Main]
	if l == nil || !c.used || c.unread || !l.idle() || l.cancels > 0 || !c.free() || c.plain.stays() {
		return
	}
	if _, stays := c.stays(); !stays {
		c.give(Main, l.asItIs(), fx)
	}
}

// stays says whether an unnamed statement is only on the server where it was prepared,
// because its text was not kept, and is about to be bound.
func (s *stmt) stays() bool {
	return s != nil && s.body == "" && s.origin == "" && !s.bound && s.about.Kind != classify.PoolNodes
}

// back is how a side is given back at the end.
func (c *Conv) back(side Side, l *Link) How {
	_, stays := c.stays()
	switch {
	case side == Main && (c.skip > 0 || c.unread || l.loaded || c.cfg.Walsender), !l.idle(), l.cancels > 0, l.haunted:
		return Close // it has half a message, something stands open, or nobody else can use it
	case side == Main && stays, side == Reader && !c.pooled():
		return Discard
	}
	return Clean
}

// sequences deals with a statement that may give a sequence a last value for the
// client, or asks for one, which must not be another client's. Those that others have
// left are discarded before either, but not before what inserts and ends its
// transaction: nobody can ask for anything behind that. From when it asks the client
// keeps the server in which it inserts.
func (c *Conv) sequences(r *run, is about, inBatch bool) {
	l := c.links[Main]
	if c.cfg.Mode != Auto {
		return
	}
	if c.strange && (is.Numbers || c.pin != "" || l.status == 'T' || inBatch && !closes(r.rest())) {
		c.discardSequences(r, l, inBatch)
	}
	c.numbers = c.numbers || is.Numbers
	if is.Inserts {
		l.numbers++
		if c.numbers {
			c.pinned("the last value of a sequence")
		}
	}
}

// closes says whether a batch ends behind the one statement that is bound at its front.
func closes(b []byte) bool {
	for n := 0; len(b) >= headerLen && len(b) >= messageLen(b); b = b[messageLen(b):] {
		switch b[0] {
		case 'B', 'E':
			if n++; n > 2 {
				return false
			}
		case 'S':
			return true
		}
	}
	return false
}

// lacks says whether an error tells that there is no last value of a sequence where
// the client had one in another transaction.
func (c *Conv) lacks(body []byte) bool {
	return c.cfg.Mode == Auto && c.once && !c.inserted && bytes.Contains(body, []byte("\x00C55000\x00")) &&
		(bytes.Contains(body, []byte("\x00Rlastval\x00")) || bytes.Contains(body, []byte("\x00Rcurrval_oid\x00")))
}

// withHint is an error with a hint at its end.
func withHint(body []byte, hint string) []byte {
	out := append([]byte(nil), body[:len(body)-1]...)
	return append(append(append(out, 'H'), hint...), 0, 0)
}

// inserts says whether a command has inserted, by its tag.
func inserts(tag []byte) bool {
	for _, t := range [][]byte{tagInsert, tagCopy, tagMerge, tagUpdate, tagDelete} {
		if bytes.HasPrefix(tag, t) {
			return true
		}
	}
	return false
}

var tagInsert, tagCopy, tagMerge, tagUpdate, tagDelete = []byte("INSERT "), []byte("COPY "), []byte("MERGE "), []byte("UPDATE "), []byte("DELETE ")

func (c *Conv) discardSequences(r *run, l *Link, inBatch bool) {
	const sql = "DISCARD SEQUENCES"
	n := &note{numbers: l.numbers}
	if c.strange = false; inBatch {
		c.inject(r, l, sql, n)
		return
	}
	r.flush()
	l.sent(entry{kind: query, ours: true, note: n})
	r.fx.say(Main, wire.TypeQuery, []byte(sql+"\x00"))
}

// mayReset says whether a text that nobody looks at otherwise may set something back to
// what the client has begun with, and its server has not: RESET, SET TO DEFAULT, SET
// TIME ZONE LOCAL.
func (c *Conv) mayReset(text []byte) bool {
	if len(c.set.first) == 0 || !mentionsSet(text) {
		return false
	}
	ends := func(at int, word string) bool {
		return at >= len(word) && bytes.EqualFold(text[at-len(word):at], []byte(word))
	}
	for i, b := range text {
		switch b | 0x20 {
		case 't':
			if ends(i+1, "reset") || ends(i+1, "default") {
				return true
			}
		case 'l':
			if ends(i+1, "local") {
				return true
			}
		}
	}
	return false
}

// mentionsSet says whether SET or RESET may be in a text. Where it is not, it looks at
// every third byte.
func mentionsSet(text []byte) bool {
	for i := 2; i < len(text); i += int(leaps[text[i]]) {
		if text[i]|0x20 == 't' && text[i-1]|0x20 == 'e' && text[i-2]|0x20 == 's' {
			return true
		}
	}
	return false
}

// leaps is how much further the end of "set" may be, at least, when a byte is not it.
var leaps = func() (t [256]uint8) {
	for i := range t {
		t[i] = 3
	}
	t['s'], t['S'], t['e'], t['E'] = 2, 2, 1, 1
	return t
}()

// quick says whether a text is to be looked at though the mode does not ask for it:
// it may name or drop prepared statements, or reset settings.
func quick(text []byte) bool {
	for len(text) > 3 && blank[text[0]] {
		text = text[1:]
	}
	if len(text) <= 3 {
		return false
	}
	switch [3]byte{text[0] | 0x20, text[1] | 0x20, text[2] | 0x20} { // in lower case, if they are letters
	case [3]byte{'d', 'i', 's'}, [3]byte{'d', 'e', 'a'}, [3]byte{'r', 'e', 's'}, [3]byte{'p', 'r', 'e'}, [3]byte{'e', 'x', 'e'}:
		return true
	}
	return false
}

var blank = answers(" \t\r\n")
