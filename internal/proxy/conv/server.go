package conv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// act is what becomes of a server's message.
type act uint8

const (
	pass  act = iota // the client gets it
	strip            // nobody does
	over             // nothing is passed on any more from here
)

// maxLooked bounds the errors, notices and reports that are looked into, in bytes;
// longer ones pass unseen. PostgreSQL's warning about an unreplicated commit is a
// few hundred bytes.
const maxLooked = 8192

// fromServer takes a server's messages.
func (c *Conv) fromServer(side Side, b []byte, fx *Effects) int {
	l := c.links[side]
	if l == nil {
		return len(b) // of a link that was given back
	}
	r := run{fx: fx, to: Client, b: b}
	for r.n < len(b) && c.links[side] == l && !(c.over || c.killed != nil && c.mid == Client) {
		if l.skip > 0 {
			c.flow(&r, side, l, min(l.skip, len(r.rest())))
			continue
		}
		if side == Main && c.mid == Client {
			r.n += l.rows(r.rest())
		}
		if !c.one(&r, side, l) {
			break
		}
	}
	if c.links[side] != l {
		r.flush()
		return len(b)
	}
	c.locals(&r, l)
	r.flush()
	if side == Main {
		c.unread = r.n < len(b)
	}
	return r.n
}

// rows is the length of the whole rows at the front of b behind an answer's first
// message: nobody looks at them.
func (l *Link) rows(b []byte) (n int) {
	if l.q.n == 0 {
		return 0
	}
	e := l.q.at(0)
	if !e.mid || e.ours || e.maybe || e.kind != query && e.kind != execute || e.note != nil && e.note.text != nil {
		return 0
	}
	for len(b)-n > headerLen && (b[n] == wire.TypeDataRow || b[n] == 'd') {
		total := messageLen(b[n:])
		if total < headerLen || total > len(b)-n {
			break
		}
		n += total
	}
	return n
}

// one takes the message at the front of r. It returns false when it cannot yet.
func (c *Conv) one(r *run, side Side, l *Link) bool {
	rest := r.rest()
	if c.locals(r, l); len(rest) < headerLen {
		return false
	}
	typ, total := rest[0], 1+int(binary.BigEndian.Uint32(rest[1:]))
	if total < headerLen || total-1 > longest {
		c.desync(r, side, fmt.Sprintf("message %q with length %d", typ, total-1))
		return false
	}
	if head[typ] && side == Main {
		if more, gone := c.heads(l, rest); gone > 0 {
			r.drop(gone)
			return true
		} else if more {
			return false
		}
	}
	have := min(total, len(rest))
	if have < wanted(typ, total) || side == Reader && have < c.read.wanted(total) {
		return false
	}
	if c.mid != Client && c.mid != side { // until the other side's message is complete
		if c.paused == Client {
			c.paused = side
			r.fx.add(Effect{Kind: Stop, Side: side})
		}
		return false
	}
	if side == Main && typ == wire.TypeReady && c.learns(r, l, rest[headerLen]) {
		return false
	}
	switch c.hear(r, side, l, typ, rest[:have], total) {
	case pass:
		r.n += have
		if l.skip = total - have; l.skip > 0 {
			l.drops, c.mid = false, side
		}
	case strip:
		r.drop(have)
		l.skip, l.drops = total-have, true
	}
	if typ == wire.TypeReady && !c.over {
		c.readyFrom(r, side, l)
	}
	return true
}

// locals gives the answers that the proxy gives itself and whose turn it is.
func (c *Conv) locals(r *run, l *Link) {
	for c.mid == Client && l.q.n > 0 && l.q.at(0).local != 0 {
		r.flush()
		r.fx.say(Client, l.q.pop().local, nil)
		c.owed.given++
	}
}

// flow passes on, or drops, k bytes of a message under way.
func (c *Conv) flow(r *run, side Side, l *Link, k int) {
	l.skip -= k
	if l.drops {
		r.drop(k)
		return
	}
	r.n += k
	if l.skip == 0 {
		c.mid = Client
	}
}

// wanted is how much of a message has to be there to be looked at.
func wanted(typ byte, total int) int {
	switch typ {
	case wire.TypeError, wire.TypeNotice, wire.TypeParameterStatus, wire.TypeComplete, 'A':
		if total <= maxLooked {
			return total
		}
		return headerLen + 64
	case wire.TypeReady:
		return headerLen + 1
	}
	return headerLen
}

// hear deals with one message, as much of it as is there.
func (c *Conv) hear(r *run, side Side, l *Link, typ byte, msg []byte, total int) act {
	body := msg[headerLen:]
	switch typ {
	case wire.TypeNotice:
		return c.notice(r, side, body, total)
	case wire.TypeParameterStatus:
		return c.reported(side, l, body)
	case 'A':
		return c.notification(r, side, l, msg, total)
	case wire.TypeError:
		return c.failed(r, side, l, msg, total)
	}
	who, last, ok := l.answer(typ)
	if !ok || typ == wire.TypeReady && (total != headerLen+1 || !statuses[body[0]]) {
		c.desync(r, side, fmt.Sprintf("message %q that nothing asked for", typ))
		return over
	}
	c.owed.relayed = c.owed.relayed || side == Main && !who.ours
	if typ == wire.TypeReady {
		return c.unitEnds(r, side, l, who, msg)
	}
	switch {
	case side == Reader:
		return c.fromReader(r, who, last, typ, msg, total)
	case who.ours:
		if who.note != nil && bytes.HasPrefix(body, tagDiscard) && typ == wire.TypeComplete {
			l.numbers -= who.note.numbers
		}
		return strip
	case who.kind == query && who.note != nil && who.note.text != nil && c.toRewritten(who.note, l, typ):
		return strip
	case who.kind == parse && who.plain != nil:
		who.plain.before, who.plain.had = nil, nil
	case who.kind == closing:
		c.isClosed(who.note)
	case typ == 'G':
		c.reopened(l)
	case typ == wire.TypeComplete:
		c.commandEnds(r.fx, l, who, body)
	case typ == 's' && (c.eager() || c.set.watched || c.pooled()): // some of its rows are to come
		c.done(who.note, l)
	}
	return pass
}

// toRewritten takes an answer to a text that was rewritten. It says whether that is
// for nobody.
func (c *Conv) toRewritten(n *note, l *Link, typ byte) (added bool) {
	added, deeds := n.text.answered(typ)
	for _, a := range deeds {
		c.acted(a, n, l)
	}
	return added
}

var statuses = [256]bool{'I': true, 'T': true, 'E': true}

// reopened: COPY has eaten the Sync that ended a batch, so it goes on, and is not
// answered before the client has sent the data and another Sync.
func (c *Conv) reopened(l *Link) {
	if !l.tail {
		return
	}
	c.open = true
	if c.wait == forReset {
		c.wait, c.barrier = nothing, true
	}
}

// commandEnds notes the tag of a command on Main.
func (c *Conv) commandEnds(fx *Effects, l *Link, who entry, tag []byte) {
	c.owed.completed = true
	follows := c.eager() || c.set.watched || c.pooled()
	if bytes.HasPrefix(tag, tagSelect) { // no other tag is looked for
		fx.Count.Queries++
	} else {
		if c.cfg.Mode == Auto && !c.inserted {
			c.inserted = inserts(tag)
		}
		c.plans.altered(tag)
		if follows {
			c.set.completed(tag, who.kind == execute && (who.note == nil || who.note.about.Mark == classify.MarkNone), l)
		}
	}
	c.once = c.once || c.inserted
	if follows {
		if who.kind == execute {
			c.done(who.note, l)
		}
		c.lasts()
	}
}

var tagDiscard = []byte("DISCARD SEQUENCES")

var tagSelect = []byte("SELECT ")

// unitEnds notes a ReadyForQuery, before the client has it.
func (c *Conv) unitEnds(r *run, side Side, l *Link, who entry, msg []byte) act {
	status := msg[headerLen]
	failed := l.ready(status)
	if side == Reader {
		c.read.refused = failed
		if who.ours || c.read.no {
			return strip
		}
		c.commitAnswer(r)
		return pass
	}
	if who.ours {
		return strip
	}
	if !failed && who.kind == query {
		c.done(who.note, l)
		if c.clears(&who) {
			r.flush()
			c.show(c.begun, r.fx)
		}
	}
	if c.set.ready(status, failed, l) {
		c.pinned("a rollback to a savepoint, behind a setting")
	}
	c.lasts()
	if c.cfg.Mode == Statement && status != 'I' {
		r.flush()
		c.give(Main, Close, r.fx)
		c.end(wire.Fatal("08P01", "transaction blocks not allowed in statement pooling mode", ""), r.fx)
		return over
	}
	r.fx.Marks.Answered++
	if status == 'I' {
		r.fx.Marks.Ended++
		c.news(l)
	}
	return pass
}

// readyFrom goes on behind a ReadyForQuery.
func (c *Conv) readyFrom(r *run, side Side, l *Link) {
	r.flush()
	switch {
	case side == Reader && c.wait == forSettings:
		c.taken(c.read.refused, r.fx)
	case side == Reader && c.wait == forAnswer:
		c.answered(r.fx)
	case side == Main && c.wait == forTuning && l.free():
		if why := c.refused; why != nil {
			c.untuned(why)
		} else {
			c.tuned(r.fx)
		}
	case side == Main && l.free():
		r.fx.recycle(c.owed.unit)
		c.owed, c.unsure, c.guess = owed{}, false, nil
		if l.status == 'I' {
			c.portals = nil
		}
		if c.wait == forWalsender || c.wait == forReset {
			c.wait = nothing
		}
	}
}

// reported is a setting of the server's. The client knows Main's.
func (c *Conv) reported(side Side, l *Link, body []byte) act {
	name, value, ok := wire.ParseParameterStatus(body)
	if side == Reader {
		return strip
	}
	if ok && l.reported.values[name] != value {
		l.reported = l.reported.with(name, value)
	}
	e := l.q.front()
	if e != nil && c.clears(e) {
		return strip
	}
	if ok && (c.pooled() || c.eager()) && !slices.Contains(l.news, name) {
		l.news = append(l.news, name)
	}
	if e != nil && e.ours {
		return strip
	}
	c.shown = l.reported
	return pass
}

// failed is an ErrorResponse.
func (c *Conv) failed(r *run, side Side, l *Link, msg []byte, total int) act {
	body := msg[headerLen:]
	if severityIs(body, "FATAL") || severityIs(body, "PANIC") {
		l.fatal = true
		if side == Reader {
			r.flush()
			c.give(Reader, Close, r.fx)
			c.readerLost(l.Node, r.fx)
			return over
		}
		return c.dies(r, l, body, len(msg) == total)
	}
	c.plans.failed(body)
	if e := l.q.front(); e != nil && e.note != nil {
		c.barred(e.note, body)
		if e.kind == execute {
			c.fails(e.note)
		}
	}
	var first entry
	who, ok := l.error(func(e entry) {
		if c.lost(l, e); e.fills {
			first = e
		}
	})
	c.unfilled(l, first)
	if l.failing && c.wait == forReset { // nothing is answered before the client sends Sync
		c.wait, c.barrier = nothing, true
	}
	switch {
	case !ok:
		c.desync(r, side, "an error that nothing asked for")
		return over
	case side == Main:
		return c.failedMain(r, who, body, len(msg) == total)
	case c.wait == forSettings, c.read.no:
		return strip
	case c.read.passed:
		return pass
	}
	if len(msg) == total && repeatable(wire.ParseError(body)) {
		c.read.no = true
		return strip
	}
	c.read.left = 1
	return c.fromReader(r, entry{kind: who.kind}, true, wire.TypeError, msg, total)
}

// failedMain is an error of Main's. The names of its statements are not the client's.
func (c *Conv) failedMain(r *run, who entry, body []byte, whole bool) act {
	var names []byte
	switch n := who.note; {
	case who.ours && who.kind == query:
		c.refused = wire.ParseError(body) // see tune
		c.strange = c.strange || n != nil && n.numbers > 0
		return strip
	case who.ours && n != nil && n.quiet:
		return strip
	case !whole:
		return pass
	case n != nil && n.aliases != nil:
		names = n.clients(body)
	case who.uses != nil:
		names = who.uses.clients(body)
	}
	if who.kind == query && !who.mid && unparsed(body) {
		c.undid(who.note)
	}
	if c.lacks(body) {
		names = withHint(body, "A value that the client has had in another transaction is not known on this connection. Ask in the same transaction, or use RETURNING; from its next INSERT on it keeps its connection.")
	}
	if n := who.note; n != nil && n.text != nil {
		if names == nil {
			names = body
		}
		if placed := n.text.place(names, n.sent); placed != nil {
			names = placed
		}
	}
	if names == nil {
		return pass
	}
	r.flush()
	r.fx.say(Client, wire.TypeError, names)
	return strip
}

// unparsed says whether the error is that of PostgreSQL's parser for the client's own
// text, before anything in it is done. One for a text within has a context, or that text.
func unparsed(body []byte) bool {
	return bytes.Contains(body, syntaxRoutine) && !bytes.Contains(body, zeroWhere) && !bytes.Contains(body, zeroInner)
}

var syntaxRoutine, zeroWhere, zeroInner = []byte("\x00Rscanner_yyerror\x00"), []byte("\x00W"), []byte("\x00q")

// dies deals with Main's last words. Where it goes down, its clients need not.
func (c *Conv) dies(r *run, l *Link, body []byte, whole bool) act {
	if !whole {
		return pass
	}
	switch code := wire.ParseError(body).Code; code {
	case "57P01", "57P02", "57P03":
		f := c.fate(l)
		if f == leaves && code == "57P01" && c.survives() && l.q.ends() == 1 && c.undone() {
			f = broken
		}
		switch {
		case f != leaves:
			r.flush()
			c.give(Main, Close, r.fx)
			c.suffer(f, l, r.fx)
			return over
		case c.holds(l) && l.free() && !c.leaves && c.killed == nil:
			r.flush()
			c.end(c.doubted(c.handedOver(), r.fx), r.fx)
			return over
		}
	}
	return pass
}

// desync ends the conversation: what the server says fits to nothing that it was
// asked, and nobody may have it.
func (c *Conv) desync(r *run, side Side, what string) {
	r.flush()
	l := c.links[side]
	r.fx.add(Effect{Kind: Warn, Text: fmt.Sprintf("%s does not speak the protocol: %s", l.Node, what)})
	e := c.doubted(wire.Fatal("08P01", fmt.Sprintf("PostgreSQL on %s sent %s", l.Node, what), "This is an error of the proxy, or of what is between it and PostgreSQL."), r.fx)
	for s := Main; s < sides; s++ {
		if c.links[s] != nil {
			c.give(s, Close, r.fx)
		}
	}
	c.end(e, r.fx)
}
