package conv

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"manada/internal/cluster"
	"manada/internal/proxy/wire"
)

// reading is what a client's reads of a standby need. A standby answers only when
// it has replayed all that the client can have seen or written on Main. So it reads
// what it has written, and never sees less than it has seen before.
type reading struct {
	need  cluster.LSN
	wrote bool // Main was given something since need was learnt
	seen  bool // it may have shown more than need

	unit    unit
	bytes   []byte // as the client sent it: Main can still be asked
	hold    []byte // the beginning of the answer, which nobody has seen yet
	passed  bool   // the client has a part of the answer
	left    int    // Executes that have not begun to answer
	refused bool   // it has failed
	pending bool   // Main is to be given it
	no      bool   // the standby's answer is not wanted: Main is asked at its end
	asked   int    // questions for positions that are not answered
}

// offer begins to let a standby answer the unit at the front of r.
func (c *Conv) offer(r *run, u unit) {
	rd := &c.read
	rd.bytes = append(r.fx.buffer(rd.bytes), r.rest()[:u.n]...)
	rd.unit = u
	for b := rd.bytes; len(b) >= headerLen; b = b[1+int(binary.BigEndian.Uint32(b[1:])):] {
		if b[0] == 'P' {
			r.fx.Marks.ClientParses++
		}
	}
	r.drop(u.n)
	if c.links[Reader] == nil {
		c.wait = forReader
		r.fx.add(Effect{Kind: Want, Side: Reader})
		return
	}
	c.connected(r.fx)
}

// connected asks where Main is, once there is a standby. Connected first and asked
// second: a standby that crashes may come back with less, and takes the connection
// with it.
func (c *Conv) connected(fx *Effects) {
	if !c.read.wrote && !c.read.seen {
		c.fresh(fx)
		return
	}
	if c.wait = forWritten; c.mayQuestion(fx) {
		fx.add(Effect{Kind: AskWritten, Side: Main})
	}
}

// mayQuestion says whether a position may be asked for. While an answer is on its way
// for which nobody waits any more it could be taken for that of the next question: Main
// answers instead.
func (c *Conv) mayQuestion(fx *Effects) bool {
	if c.read.asked > 0 {
		c.decline(fx)
		return false
	}
	c.read.asked++
	return true
}

// written is where Main is. 0: nobody knows.
func (c *Conv) written(flushed, insert cluster.LSN, fx *Effects) {
	c.read.asked = 0
	if c.wait != forWritten {
		return
	}
	if flushed == 0 || c.links[Reader] == nil {
		c.decline(fx)
		return
	}
	rd := &c.read
	rd.need = max(rd.need, flushed)
	if rd.wrote { // perhaps with synchronous_commit = off
		rd.need = max(rd.need, insert)
	}
	rd.wrote, rd.seen = false, false
	c.fresh(fx)
}

// fresh asks what the standby has replayed, unless that is known to be enough.
func (c *Conv) fresh(fx *Effects) {
	if c.links[Reader].has < c.read.need {
		if c.wait = forReplayed; c.mayQuestion(fx) {
			fx.add(Effect{Kind: AskReplayed, Side: Reader, At: c.read.need})
		}
		return
	}
	c.tell(fx)
}

func (c *Conv) replayed(lsn cluster.LSN, fx *Effects) {
	l := c.links[Reader]
	c.read.asked = 0
	if c.wait != forReplayed {
		return
	}
	if l == nil || lsn < c.read.need {
		c.decline(fx)
		return
	}
	l.has = lsn
	c.tell(fx)
}

// tell says to the standby what the client has set, and waits for it: a read under
// other settings is another read.
func (c *Conv) tell(fx *Effects) {
	l := c.links[Reader]
	sql := l.vars.become(c.set.vars)
	if sql == "" {
		c.ask(fx)
		return
	}
	c.wait = forSettings
	l.sent(entry{kind: query, ours: true})
	fx.say(Reader, wire.TypeQuery, append([]byte(sql), 0))
}

// taken: the standby has the settings, or has refused them.
func (c *Conv) taken(failed bool, fx *Effects) {
	if failed {
		c.give(Reader, Discard, fx)
		c.pinned("a setting that a standby refuses")
		fx.add(Effect{Kind: Warn, Text: "a setting could not be repeated on a standby"})
		c.decline(fx)
		return
	}
	c.links[Reader].vars = c.set.vars
	if c.called {
		c.callOff(fx)
		return
	}
	c.ask(fx)
}

// ask gives the unit to the standby, with the statements that it lacks.
func (c *Conv) ask(fx *Effects) {
	rd, l := &c.read, c.links[Reader]
	c.wait, rd.passed, rd.no, rd.left = forAnswer, false, false, rd.unit.executes
	rd.hold = fx.buffer(rd.hold)
	fx.Marks.Began = BeganTransaction
	r := run{fx: fx, to: Reader, b: rd.bytes}
	if rd.unit.own != nil {
		l.plain = rd.unit.own
	}
	for len(r.rest()) >= headerLen {
		b := r.rest()
		total := messageLen(b)
		c.toReader(&r, l, b[:total])
	}
	r.flush()
}

// toReader gives one message of a unit to the standby.
func (c *Conv) toReader(r *run, l *Link, msg []byte) {
	e := entry{kind: from[msg[0]].kind}
	switch e.kind {
	case query:
		l.plain = nil
	case parse:
		e.plain = c.read.unit.own
		r.fx.Marks.ServerParses++
	case bind:
		r.fx.Marks.Binds++
		portal, rest, _ := bytes.Cut(msg[headerLen:], zero)
		name, _, _ := bytes.Cut(rest, zero)
		own, renamed := c.usedThere(r, l, name)
		if renamed {
			at := len(r.fx.own)
			r.fx.own = appendBind(r.fx.own, msg, portal, name, own)
			r.replace(headerLen+len(portal)+1+len(name)+1, r.fx.own[at:])
			msg = msg[headerLen+len(portal)+1+len(name)+1:]
		}
	case describe:
		name, ok := named(msg)
		if !ok {
			e.kind = portal
			break
		}
		if own, renamed := c.usedThere(r, l, name); renamed {
			r.replace(len(msg), r.fx.statement('D', own))
			msg = nil
		}
	}
	l.sent(e)
	r.n += len(msg)
}

// usedThere gives the standby a statement, unless the unit makes it.
func (c *Conv) usedThere(r *run, l *Link, name []byte) (own string, renamed bool) {
	if len(name) == 0 && c.read.unit.own != nil {
		return "", false
	}
	return c.given(r, l, name, c.statement(name))
}

func appendParse(b []byte, name, body string) []byte {
	b = append(b, 'P')
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(name)+1+len(body)))
	return append(append(append(b, name...), 0), body...)
}

// decline gives the unit to Main.
func (c *Conv) decline(fx *Effects) {
	rd := &c.read
	if c.wait < forReader || c.wait > forAnswer {
		return
	}
	if c.called {
		c.callOff(fx)
		return
	}
	c.wait = nothing
	if rd.pending = !c.ready(fx); !rd.pending {
		c.repeat(fx)
	}
	c.releaseReader(fx)
}

// repeat gives Main what was kept of a unit.
func (c *Conv) repeat(fx *Effects) {
	rd := &c.read
	wrote, parses := rd.wrote, fx.Marks.ClientParses
	r := run{fx: fx, to: Main, b: rd.bytes}
	for len(r.rest()) >= headerLen {
		b := r.rest()
		c.toMain(&r, b[0], 1+int(binary.BigEndian.Uint32(b[1:])), b)
	}
	r.flush()
	fx.Marks.ClientParses = parses  // they were counted before
	rd.wrote, rd.seen = wrote, true // it only read
	c.forgetUnit(fx)
}

// forgetUnit lets go of what was kept to ask Main.
func (c *Conv) forgetUnit(fx *Effects) {
	rd := &c.read
	fx.recycle(rd.bytes)
	fx.recycle(rd.hold)
	rd.bytes, rd.hold, rd.unit = nil, nil, unit{}
}

// fromReader deals with an answer of the standby. Until the first row of the last
// Execute nothing is passed on, so that Main can still be asked instead: when the
// standby goes away, and when it cannot do what Main can. A statement that only
// seemed to read is refused there (25006).
func (c *Conv) fromReader(r *run, who entry, last bool, typ byte, msg []byte, total int) act {
	rd := &c.read
	switch {
	case who.ours, rd.no:
		return strip
	case rd.passed:
		return pass
	case typ == 'D' && rd.left <= 1, len(msg) < total, len(rd.hold)+total > MaxBatch:
		c.commitAnswer(r)
		return pass
	}
	if last && who.kind == execute {
		rd.left--
	}
	rd.hold = append(rd.hold, msg...)
	return strip
}

// wanted is how much of a message has to be there: the whole one, to be held back,
// or for there to be something to say behind it when the standby is lost. One that
// is too large for that passes as it comes.
func (rd *reading) wanted(total int) int {
	if total > MaxBatch {
		return headerLen
	}
	return total
}

// commitAnswer passes on what was held back.
func (c *Conv) commitAnswer(r *run) {
	rd := &c.read
	rd.passed = true
	if len(rd.hold) > 0 {
		r.flush()
		r.fx.add(Effect{Kind: Send, Side: Client, B: rd.hold})
		rd.hold = rd.hold[:0]
	}
}

// answered: the standby has come to the end of a unit.
func (c *Conv) answered(fx *Effects) {
	rd, l := &c.read, c.links[Reader]
	c.wait = nothing
	if rd.no {
		fx.Count.Repeated++
		c.wait = forAnswer
		c.decline(fx)
		return
	}
	switch {
	case rd.unit.own != nil:
		c.plain = rd.unit.own
	case rd.unit.simple:
		c.plain = nil
	}
	fx.Count.Reads += rd.unit.executes
	fx.Marks.Answered++
	fx.Marks.Ended++
	c.forgetUnit(fx)
	switch {
	case l.status != 'I':
		c.give(Reader, Close, fx)
	default:
		c.releaseReader(fx)
	}
}

// repeatable says whether Main may answer where a standby fails: because it may
// write, has no conflicts with replay, or knows of what was not replayed.
func repeatable(e *wire.Error) bool {
	switch e.Class() {
	case "08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX":
		return e.Code != "57014" // cancelled, or out of time
	}
	return false
}

// readerLost deals with a standby that went away before its answer was complete.
func (c *Conv) readerLost(node string, fx *Effects) {
	rd := &c.read
	switch {
	case c.wait == forAnswer && rd.passed:
		c.wait = nothing
		c.forgetUnit(fx)
		e := &wire.Error{Severity: "ERROR", Code: "40001", Message: fmt.Sprintf("standby %s was lost while it answered", node),
			Detail: "The statement only read, and part of its rows was already sent.", Hint: "Repeat the statement."}
		at := len(fx.own)
		fx.own = wire.AppendMessage(e.Append(fx.own), wire.TypeReady, []byte{'I'})
		fx.add(Effect{Kind: Send, Side: Client, B: fx.own[at:]})
	case c.wait == forAnswer:
		fx.Count.Repeated++
		c.decline(fx)
	case c.wait != nothing && c.wait <= forAnswer:
		c.decline(fx)
	}
}
