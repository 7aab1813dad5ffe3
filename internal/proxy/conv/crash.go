package conv

import (
	"bytes"
	"fmt"

	"manada/internal/proxy/wire"
)

// fate is what becomes of a client whose Main is lost.
type fate uint8

const (
	leaves  fate = iota // it is told, and its connection ends
	goes                // nothing was owed: it notices nothing
	again               // what was begun is done on another server
	rolled              // it had a transaction open, and hears of that at its next statement
	aborted             // the statement under way has failed, and the transaction with it
	broken              // a part of an answer is with it: the statement has failed, and can be repeated
)

// fate decides. A client that may have another server lives on, unless nobody
// knows what became of what it has sent. owed is what l has to answer yet.
func (c *Conv) fate(l *Link) fate {
	ends := l.q.ends()
	switch {
	case !c.pooled() || c.cfg.Mode == Auto && c.pin != "" || c.leaves || c.killed != nil || c.mid != Client:
		return leaves
	case c.wait == forTuning:
		return again
	case l.free() && l.status == 'I':
		return goes
	case l.free():
		return rolled
	case c.skip > 0 || ends > 1:
		return leaves
	case l.status != 'I' && !c.mayCommit():
		return aborted
	case l.status != 'I' || !c.onlyReads():
		return leaves
	case c.owed.whole && !c.owed.relayed:
		return again
	case ends == 1:
		return broken
	}
	return leaves
}

// suffer does it. The link is not the client's any more.
func (c *Conv) suffer(f fate, l *Link, fx *Effects) {
	ends, tuning := l.q.ends(), c.wait == forTuning
	if tuning || c.wait == forReset {
		c.wait = nothing
	}
	l.abandon(func(e entry) { c.lost(l, e) })
	c.set.undo()
	c.set.local, c.set.rolledBack, c.barrier, c.unsure = false, false, false, false
	switch f {
	case again:
		if !tuning {
			c.read.bytes, c.owed.unit = c.owed.unit, c.read.bytes
			c.read.pending = len(c.read.bytes) > 0
			fx.Count.Repeated++
			c.open = false
		}
		c.ready(fx)
	case rolled:
		c.haunt(l.status)
	case aborted:
		c.haunt('E')
		c.tellLost(ends == 1, 'E', l, fx)
	case broken:
		c.tellLost(true, 'I', l, fx)
	}
	if f != again {
		fx.recycle(c.owed.unit)
		c.owed = owed{}
	}
}

// tellLost says that the statement under way has failed.
func (c *Conv) tellLost(whole bool, status byte, l *Link, fx *Effects) {
	e := serialization(fmt.Sprintf("the connection to PostgreSQL on %s was lost while it answered", l.Node))
	at := len(fx.own)
	fx.own = e.Append(fx.own)
	if whole {
		fx.own = wire.AppendMessage(fx.own, wire.TypeReady, []byte{status})
		c.open = false
	} else {
		c.ghost.skips = true
	}
	fx.add(Effect{Kind: Send, Side: Client, B: fx.own[at:]})
}

// serialization is an error after which applications repeat their transaction.
func serialization(text string) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "40001", Message: text, Hint: "The transaction was rolled back. Repeat it."}
}

// ends counts the ReadyForQuery that are owed.
func (q *queue) ends() (n int) {
	for i := range q.n {
		switch q.at(i).kind {
		case query, call, syncing:
			n++
		}
	}
	return n
}

// mayCommit says whether what is owed may end the transaction with success.
func (c *Conv) mayCommit() bool {
	o := &c.owed
	if !o.whole {
		return true
	}
	for b := o.unit; len(b) >= headerLen; {
		total := 1 + int(uint32At(b[1:]))
		msg := b[:total]
		b = b[total:]
		switch msg[0] {
		case 'Q':
			if commits(textOf(msg)) {
				return true
			}
		case 'B':
			_, rest, _ := bytes.Cut(msg[headerLen:], zero)
			name, _, _ := bytes.Cut(rest, zero)
			if s := c.statement(name); s == nil || s.body == "" || commits(s.text()) {
				return true
			}
		case 'E':
			if len(msg) > headerLen && msg[headerLen] != 0 { // bound before, perhaps
				return true
			}
		case 'F':
			return true
		}
	}
	return false
}

// text is the statement's, when it is kept.
func (s *stmt) text() []byte {
	text, _, _ := bytes.Cut([]byte(s.body), zero)
	return text
}

// commits errs on the safe side: whether a text may end a transaction with success.
func commits(text []byte) bool {
	for _, one := range bytes.Split(text, []byte(";")) {
		switch one = bytes.TrimLeft(one, " \t\r\n\f\v"); {
		case len(one) > 0 && (one[0] == '/' || one[0] == '-'), begins(one, "commit"), begins(one, "end"), begins(one, "prepare"):
			return true
		}
	}
	return false
}

// begins says whether a text begins with a word, in any case.
func begins(text []byte, word string) bool {
	return len(text) >= len(word) && bytes.EqualFold(text[:len(word)], []byte(word))
}
