package conv

import (
	"bytes"
	"fmt"
	"slices"

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
	skipped             // a batch has failed and was answered: what comes is skipped up to a Sync
	broken              // a part of an answer is with it: the statement has failed, and can be repeated
)

// fate decides. A client that may have another server lives on, unless nobody
// knows what became of what it has sent. owed is what l has to answer yet.
func (c *Conv) fate(l *Link) fate {
	ends := l.q.ends()
	switch {
	case !c.survives():
		return leaves
	case c.wait == forTuning:
		return again
	case l.free() && l.status == 'I':
		return goes
	case l.free():
		return rolled
	case l.failing && l.q.n == 0:
		return skipped
	case ends > 1:
		return c.several(l)
	case l.status != 'I' && (l.replica() || !c.mayCommit()):
		return aborted
	case l.status != 'I' || !(l.replica() || c.onlyReads()) || c.skip > 0:
		return leaves
	case c.owed.whole && !c.owed.relayed && !l.failed:
		return again
	case ends == 1:
		return broken
	}
	return leaves
}

// several is the fate of a client that waits for the ends of several units. Of a standby
// it is told that each has failed.
func (c *Conv) several(l *Link) fate {
	switch {
	case !l.replica() || c.open || c.skip > 0:
		return leaves
	case l.status != 'I':
		return aborted
	}
	return broken
}

// survives says whether the client may have another server.
func (c *Conv) survives() bool {
	_, stays := c.stays()
	return !stays && !c.leaves && c.killed == nil && c.mid == Client
}

// suffer does it. The link is not the client's any more.
func (c *Conv) suffer(f fate, l *Link, fx *Effects) {
	ends, tuning := l.q.ends(), c.wait == forTuning
	if tuning || c.wait == forReset {
		c.wait = nothing
	}
	l.abandon(func(e entry) { c.lost(l, e) })
	c.set.undo()
	c.names = naming{}
	c.set.local, c.set.rolledBack, c.barrier, c.unsure = false, false, false, false
	switch f {
	case again:
		if c.called {
			c.callOff(fx)
			break
		}
		if !tuning {
			c.read.bytes, c.owed.unit = c.owed.unit, c.read.bytes
			c.read.bytes = ungiven(c.read.bytes, c.owed.given)
			c.read.pending = len(c.read.bytes) > 0
			fx.Count.Repeated++
			c.open = false
		}
		c.ready(fx)
	case rolled:
		c.haunt(l.status)
	case aborted:
		c.lapse()
		c.haunt('E')
		c.tellLost(ends, 'E', l, fx)
	case skipped:
		c.open, c.ghost = true, ghost{skips: true}
		if l.status != 'I' {
			c.ghost.status = 'E'
		}
	case broken:
		c.lapse()
		c.tellLost(ends, 'I', l, fx)
	}
	if f != again {
		fx.recycle(c.owed.unit)
		c.owed = owed{}
	}
}

// ungiven is a unit without the messages at its front of which the client has the
// answers: these were the proxy's own, and what they meant is done.
func ungiven(unit []byte, given int) []byte {
	for at := 0; given > 0; {
		total := messageLen(unit[at:])
		if unit[at] != 'P' && unit[at] != 'C' {
			at += total
			continue
		}
		unit, given = append(unit[:at], unit[at+total:]...), given-1
	}
	return unit
}

// lapse gives the rest of a message of COPY's data to nobody: no other is passed on
// in pieces while all of its unit is kept.
func (c *Conv) lapse() { c.lapses, c.skip = c.lapses+c.skip, 0 }

// tellLost says that what is under way has failed: so many units, or one whose end is
// not there yet.
func (c *Conv) tellLost(units int, status byte, l *Link, fx *Effects) {
	e := serialization(fmt.Sprintf("the connection to PostgreSQL on %s was lost while it answered", l.Node))
	at := len(fx.own)
	c.open = units == 0
	c.ghost.skips = c.ghost.skips || c.open
	for range max(units, 1) {
		fx.own = e.Append(fx.own)
		if units > 0 {
			fx.own = wire.AppendMessage(fx.own, wire.TypeReady, []byte{status})
		}
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
func (c *Conv) mayCommit() bool { return !c.every(func(text []byte) bool { return !commits(text) }) }

// undone says whether what is owed has left nothing behind when PostgreSQL answers it
// with 57P01: it says that where it looks for interrupts, never between a commit and
// its answer. What commits more than once, or has done so already, is not undone.
func (c *Conv) undone() bool {
	return c.every(func(text []byte) bool {
		return single(text) || !c.owed.completed && endsWith(text, "commit", "end")
	})
}

// every says whether something holds for each text that what is owed may run; not
// where one is not known.
func (c *Conv) every(holds func(text []byte) bool) bool {
	o := &c.owed
	if !o.whole {
		return false
	}
	for b := o.unit; len(b) >= headerLen; {
		total := messageLen(b)
		msg := b[:total]
		b = b[total:]
		switch msg[0] {
		case 'Q':
			if !holds(textOf(msg)) {
				return false
			}
		case 'B':
			_, rest, _ := bytes.Cut(msg[headerLen:], zero)
			name, _, _ := bytes.Cut(rest, zero)
			if s := c.statement(name); s == nil || s.body == "" || !holds(s.text()) {
				return false
			}
		case 'E':
			if len(msg) > headerLen && msg[headerLen] != 0 { // bound before, perhaps
				return false
			}
		case 'F':
			return false
		}
	}
	return true
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

// single says whether a text is of one transaction, as far as its first words say.
func single(text []byte) bool {
	for _, one := range bytes.Split(bytes.TrimRight(text, "; \t\r\n"), []byte(";")) {
		one = bytes.TrimLeft(one, " \t\r\n\f\v")
		if !slices.ContainsFunc(singles, func(w string) bool { return begins(one, w) }) {
			return false
		}
	}
	return true
}

var singles = []string{"insert ", "update ", "delete ", "merge ", "select ", "with ", "copy "}

// begins says whether a text begins with a word, in any case.
func begins(text []byte, word string) bool {
	return len(text) >= len(word) && bytes.EqualFold(text[:len(word)], []byte(word))
}
