package conv

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

const headerLen = 5

// MaxText bounds a query or Parse that is held back to be looked at, in bytes; what
// a longer one does is not known. It is the most that the driver has to hold.
const MaxText = 1 << 20

// The longest messages that PostgreSQL takes, in bytes behind the type.
const (
	longest = 1<<30 - 2
	short   = 10000
)

// about is what is known of a query.
type about = classify.Statement

// from says what PostgreSQL takes of a client: the entry that a message leaves, and
// how long it may be. A type that is not here ends the connection.
var from = func() (t [256]struct {
	kind kind
	most int
}) {
	for typ, k := range map[byte]kind{'Q': query, 'P': parse, 'B': bind, 'F': call, 'd': copyData} {
		t[typ].kind, t[typ].most = k, longest
	}
	for typ, k := range map[byte]kind{'D': describe, 'E': execute, 'C': closing, 'S': syncing, 'H': none, 'X': none, 'c': copyEnd, 'f': copyEnd} {
		t[typ].kind, t[typ].most = k, short
	}
	t['f'].most = longest
	return t
}()

// fromClient takes the client's messages, as long as it does not have to wait.
func (c *Conv) fromClient(b []byte, fx *Effects) int {
	r := run{fx: fx, to: Main, b: b}
	c.walk(&r)
	r.flush()
	if r.n < len(b) && !c.over && !c.stopped && c.blocked() {
		c.stopped = true
		fx.add(Effect{Kind: Stop, Side: Client})
	}
	return r.n
}

// walk takes the messages of r that are there.
func (c *Conv) walk(r *run) {
	for r.n < len(r.b) && !c.over {
		rest := r.rest()
		if c.skip > 0 {
			k := min(c.skip, len(rest))
			c.skip -= k
			r.n += k
			continue
		}
		if c.lapses > 0 {
			k := min(c.lapses, len(rest))
			c.lapses -= k
			r.drop(k)
			continue
		}
		if c.blocked() || len(rest) < headerLen {
			return
		}
		typ, total := rest[0], 1+int(binary.BigEndian.Uint32(rest[1:]))
		if c.bad = illegal(typ, total); c.bad != nil {
			return
		}
		if !c.message(r, typ, total, rest) {
			return
		}
	}
}

// illegal refuses what PostgreSQL would end the connection for.
func illegal(typ byte, total int) *wire.Error {
	t := from[typ]
	switch {
	case t.most == 0:
		return wire.Fatal("08P01", fmt.Sprintf("invalid frontend message type %d", typ), "")
	case total < headerLen || total-1 > t.most:
		return wire.Fatal("08P01", "invalid message length", "")
	case typ == 'H' && total != headerLen:
		return wire.Fatal("08P01", "invalid message format", "")
	}
	return nil
}

// message takes the one at the front of r. It returns false when it cannot yet.
func (c *Conv) message(r *run, typ byte, total int, rest []byte) bool {
	if typ == wire.TypeTerminate {
		c.leave(r, min(total, len(rest)), total)
		return false
	}
	if c.cfg.Walsender && typ == wire.TypeQuery && !c.mayAsk(r) {
		return false
	}
	if c.haunted(typ) {
		return c.meets(r, typ, total, rest)
	}
	if !c.open {
		switch c.look(r, typ, rest) {
		case lookMore:
			return false
		case lookTaken:
			return true
		}
	}
	if c.mayBeBare(typ, rest) {
		c.wait = forBind
		return false
	}
	if c.unsure && !c.open && c.doubts(typ, rest) {
		c.wait = forReset
		return false
	}
	if need := c.wants(typ, total); len(rest) < need || !c.ready(r.fx) {
		return false
	}
	c.toMain(r, typ, total, rest)
	return true
}

// wants is how much of a message has to be there to be passed on.
func (c *Conv) wants(typ byte, total int) int {
	switch from[typ].kind {
	case query, parse:
		if total <= MaxText {
			return total
		}
		return headerLen + maxName + 1
	case bind:
		return min(total, headerLen+2*(maxName+1)) // two names
	case describe, closing, execute, syncing:
		return total
	}
	return headerLen
}

// maxName is how long a name may be for us, in bytes. PostgreSQL cuts none of
// statements and portals.
const maxName = 4096

// toMain gives the message at the front of r to Main.
func (c *Conv) toMain(r *run, typ byte, total int, rest []byte) {
	main := c.links[Main]
	if main.free() && !c.open {
		c.begin(r.fx)
	}
	have := min(total, len(rest))
	msg := rest[:have]
	c.used = true
	c.skip = total - have
	e, head, instead, local := c.means(r, typ, msg, total)
	c.keep(msg, total, e.kind, r.fx)
	main.sent(e)
	c.rebound = c.rebound && e.kind != syncing && e.kind != query
	c.open = opens[e.kind] || c.open && (typ == 'H') || main.failing || main.tail // behind a Sync that COPY has eaten
	c.unsure = c.unsure || e.note != nil && e.note.made+e.note.closed != ""
	if c.barrier && !c.open && !main.free() {
		c.barrier, c.wait = false, forReset
	}
	switch e.kind {
	case parse:
		if r.fx.Marks.ClientParses++; !local {
			r.fx.Marks.ServerParses++
		}
	case bind:
		r.fx.Marks.Binds++
	}
	switch {
	case local:
		r.drop(have)
		c.locals(r, main)
	case instead != nil:
		r.replace(head, instead)
		r.n += have - head
	default:
		r.n += have
	}
	if e.kind == execute && e.note != nil {
		for _, sql := range e.note.again {
			c.inject(r, main, sql, nil)
		}
	}
}

// means notes what a message means that Main is given. Instead of its first head
// bytes something else may have to be sent, or, when it is local, nothing at all.
func (c *Conv) means(r *run, typ byte, msg []byte, total int) (e entry, head int, instead []byte, local bool) {
	e.kind, head = from[typ].kind, len(msg)
	if c.links[Main].failing && e.kind != syncing {
		return e, head, nil, false // it is skipped
	}
	switch e.kind {
	case query, parse:
		if e.kind == query {
			e.fills, e.bare, c.bare = true, c.bare, true
		}
		if len(msg) < total {
			c.tooLong(typ, msg)
		} else if e.kind == query {
			e.note, instead = c.query(r, msg)
		} else {
			e, instead, local = c.parse(r, msg)
		}
	case bind:
		if e.fills = unnamed(msg); e.fills {
			e.bare, c.bare, c.rebound = c.bare, false, true
		}
		var n int
		if e.note, e.uses, n, instead = c.bind(r, msg); instead != nil {
			head = n
		}
	case describe:
		if total > headerLen && msg[headerLen] != 'S' {
			e.kind = portal
		}
		e.note, e.uses, instead = c.describe(r, msg)
	case closing:
		if e, local = c.closed(msg); local && !c.links[Main].q.batch() { // it may break a COPY
			e.local, local = 0, false
			instead = r.fx.statement('C', noOne)
		}
	case execute:
		c.read.wrote = true
		e.note, instead = c.executes(r, msg)
	case call:
		c.unknown("a FunctionCall")
	}
	return e, head, instead, local
}

// tooLong deals with a text that nobody looks at.
func (c *Conv) tooLong(typ byte, msg []byte) {
	c.unknown("a text that is too long to be looked at")
	name := ""
	if typ == 'P' {
		n, _, _ := bytes.Cut(msg[headerLen:], zero)
		if name = string(n); name != "" && c.renames() {
			c.tied("a prepared statement that cannot be carried")
		}
	}
	c.forget(name)
	c.links[Main].plain = nil
}

// opens are the messages that begin a batch, or go on with it.
var opens = [...]bool{parse: true, bind: true, describe: true, portal: true, execute: true, closing: true, copyEnd: false}

// leave is a good-bye. In the middle of something PostgreSQL ends that.
func (c *Conv) leave(r *run, have, total int) {
	c.leaves = true
	if l := c.links[Main]; l == nil || l.free() || c.answering() {
		r.drop(have)
		return
	}
	r.n += have
	c.skip = total - have
}

// doubts says whether a message names a statement of which nobody knows yet whether
// the unit under way makes it.
func (c *Conv) doubts(typ byte, rest []byte) bool {
	if !c.renames() || !names[from[typ].kind] || typ == 'P' && len(rest) > headerLen && rest[headerLen] == 0 {
		return false
	}
	l := c.links[Main]
	return l != nil && !l.free() && !l.failing
}

// names are the messages that name a statement.
var names = [...]bool{parse: true, bind: true, describe: true, closing: true, copyEnd: false}

// begin is called before something is given to Main while nothing is owed.
func (c *Conv) begin(fx *Effects) {
	o := &c.owed
	o.unit, o.whole, o.wrote, o.lazy, o.relayed, o.completed, o.given = fx.buffer(o.unit), true, false, false, false, false, 0
	if fx.Marks.Began = BeganUnit; c.links[Main].status == 'I' {
		fx.Marks.Began = BeganTransaction
	}
}

// keepMost bounds what is kept of a unit under way, in bytes.
const keepMost = 8 << 10

// keep keeps a message while it is under way, to know what it was and to repeat it.
func (c *Conv) keep(msg []byte, total int, k kind, fx *Effects) {
	o := &c.owed
	switch {
	case k == copyEnd || msg[0] == 'd': // data of what is kept
	case !o.whole:
		if k == query && !c.eager() {
			c.judge(msg, total)
		}
	case len(msg) < total || len(o.unit)+total > keepMost:
		c.onlyReads() // looks at what was not looked at
		o.whole, o.lazy = false, false
		if k == query && !c.eager() {
			c.judge(msg, total)
		}
		fx.recycle(o.unit)
		o.unit = nil
	default:
		o.unit = append(o.unit, msg...)
		o.lazy = o.lazy || k == query && !c.eager()
	}
}

// writes says whether a statement may change more than its session.
func writes(is about) bool {
	return is.Kind != classify.Read && is.Kind != classify.Settings && !is.Begins
}

// judge looks at a query that is not kept.
func (c *Conv) judge(msg []byte, total int) {
	if !c.owed.wrote && (len(msg) < total || writes(c.classifiedQuery(msg))) {
		c.owed.wrote = true
	}
}

// onlyReads says whether what is owed by Main only reads, as far as its texts say.
func (c *Conv) onlyReads() bool {
	o := &c.owed
	if o.lazy {
		o.lazy = false
		for b := o.unit; len(b) >= headerLen; {
			total := messageLen(b)
			if b[0] == wire.TypeQuery {
				c.judge(b[:total], total)
			}
			b = b[total:]
		}
	}
	return !o.wrote
}

// buffer takes a buffer from those that conversations have given back.
func (fx *Effects) buffer(old []byte) []byte {
	if old != nil {
		return old[:0]
	}
	if n := len(fx.spare); n > 0 {
		b := fx.spare[n-1]
		fx.spare = fx.spare[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 512)
}

// recycle gives a buffer back.
func (fx *Effects) recycle(b []byte) {
	if b != nil && cap(b) <= 64<<10 {
		fx.used = append(fx.used, b)
	}
}
