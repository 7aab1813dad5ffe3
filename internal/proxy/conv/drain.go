package conv

import (
	"fmt"

	"manada/internal/proxy/wire"
)

// Busy is what a switchover has to wait for in a conversation.
type Busy uint8

const (
	Quiet      Busy = iota // it has nothing under way on a primary
	Working                // a transaction is open, or a statement under way
	Committing             // and a COMMIT may be
)

// Busy says what a switchover has to wait for.
func (c *Conv) Busy() Busy {
	l := c.links[Main]
	switch {
	case l == nil || l.Epoch == 0 || l.idle() && !c.open:
		return Quiet
	case l.status != 'I' && !l.free() && c.mayCommit():
		return Committing
	}
	return Working
}

// holds says whether nothing may be begun on a server, or on one to come when that is
// nil. A standby has no part in a switchover: a client of the read-only port may get one.
func (c *Conv) holds(l *Link) bool {
	if l == nil {
		return c.phase >= Hold && !c.cfg.ReadOnly
	}
	return c.phase >= Hold && l.Epoch > 0
}

// drain learns the phase of a switchover. What waited for its end goes on.
func (c *Conv) drain(p Phase) {
	c.phase = p
	if p < Hold && c.wait == forHold {
		c.wait = nothing
	}
}

// drained ends what is still open when the time to hold others back is up. A COMMIT
// that was sent is never interrupted: its server is read to the end.
func (c *Conv) drained(fx *Effects) {
	l := c.links[Main]
	if c.wait == nothing && c.read.pending { // it was held, see repeat
		c.ready(fx)
		l = c.links[Main]
	}
	if c.phase != Over || l == nil || !c.holds(l) || !l.free() || c.skip > 0 || c.open || c.cfg.Walsender || c.killed != nil {
		return
	}
	if _, stays := c.stays(); !stays {
		if l.status != 'I' && c.wait == nothing {
			status := l.status
			c.give(Main, Close, fx)
			c.set.undo()
			c.haunt(status)
		}
		return
	}
	c.killed = c.doubted(c.handedOver(), fx)
	if c.mid == Client {
		c.end(c.killed, fx)
	}
}

// outgrown ends a client that keeps a server whose node was a standby when it came
// there, and leads now. Its transaction may end before.
func (c *Conv) outgrown(fx *Effects) {
	l := c.links[Main]
	why, stays := c.stays()
	if !c.promoted || !stays || l == nil || l.Epoch > 0 || !l.idle() || !c.free() {
		return
	}
	c.end(wire.Fatal("57P01", fmt.Sprintf("%s has become the primary, and this session keeps its connection to it: %s", l.Node, why), elsewhere), fx)
}

// handedOver is what a client is told that keeps its server.
func (c *Conv) handedOver() *wire.Error {
	why, _ := c.stays()
	return wire.Fatal("57P01", "the primary changes, and this session keeps its server: "+why,
		"Connect again: the proxy waits for the new primary.")
}
