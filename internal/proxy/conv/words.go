package conv

import (
	"fmt"
	"strings"

	"manada/internal/proxy/wire"
)

// gone deals with a side that has ended.
func (c *Conv) gone(side Side, why Why, err *wire.Error, fx *Effects) {
	switch side {
	case Client:
		if !c.leaves && c.answering() {
			c.leaves, c.half = true, true // it sends no more, and may still read
			return
		}
		c.mid = sides // nothing reaches it
		c.end(nil, fx)
	case Reader:
		c.readerGone(fx)
	default:
		c.mainGone(why, err, fx)
	}
}

// answering says whether an answer is on its way for which a server waits for
// nothing of the client.
func (c *Conv) answering() bool {
	l := c.links[Main]
	return c.wait >= forReader && c.wait <= forAnswer || c.wait == forTuning || c.read.pending ||
		c.skip == 0 && !c.open && l != nil && l.q.owes() && !l.tail && !l.copying
}

func (c *Conv) readerGone(fx *Effects) {
	l, torn := c.links[Reader], c.mid == Reader
	if l == nil {
		return
	}
	c.links[Reader] = nil
	if torn { // half a message is with the client: nothing can be said
		c.end(nil, fx)
		return
	}
	c.readerLost(l.Node, fx)
}

// mainGone says the last words, if they may be said: not in the middle of a
// message, and not behind the server's own.
func (c *Conv) mainGone(why Why, err *wire.Error, fx *Effects) {
	l := c.links[Main]
	if l == nil {
		return
	}
	if f := c.fate(l); f != leaves && !l.fatal {
		c.links[Main] = nil
		c.suffer(f, l, fx)
		return
	}
	var e *wire.Error
	if c.mid == Client && !l.fatal && !c.leaves {
		e = err
		switch {
		case e == nil && c.holds(l) && l.free():
			e = c.handedOver()
		case e == nil:
			e = c.lastWords(l, why)
		}
		e = c.doubted(e, fx)
	}
	c.links[Main] = nil
	c.end(e, fx)
}

// elsewhere is for who may be served by another standby.
const elsewhere = "Connect again: the proxy finds another node to read from."

// lastWords is what the client is told when its server is lost.
func (c *Conv) lastWords(l *Link, why Why) *wire.Error {
	hint := "Connect again: the proxy waits for the new primary."
	if l.Epoch == 0 {
		hint = elsewhere
	}
	if keeps, stays := c.stays(); l.Epoch == 0 && stays && c.pooled() {
		return wire.Fatal("57P01", fmt.Sprintf("standby %s was lost, and this session keeps its connection: %s", l.Node, keeps), hint)
	}
	switch why {
	case Deposed:
		return wire.Fatal("57P01", fmt.Sprintf("the primary changed: %s was replaced after epoch %d", l.Node, l.Epoch), hint)
	case Silent:
		return wire.Fatal("57P01", fmt.Sprintf("%s does not answer any more", l.Node), hint)
	}
	return wire.Fatal("08006", fmt.Sprintf("the connection to PostgreSQL on %s was lost", l.Node), hint)
}

func shuttingDown() *wire.Error {
	return wire.Fatal("57P01", "the proxy is shutting down", "Connect again: another proxy, or this one once it is back.")
}

// doubted adds what the end means for the command under way, if the client can be
// in doubt about it.
func (c *Conv) doubted(e *wire.Error, fx *Effects) *wire.Error {
	l := c.links[Main]
	if e == nil || l == nil {
		return e
	}
	owed, reads, inTx := !l.free(), l.replica() || c.onlyReads(), l.status != 'I'
	out := *e
	if out.Detail != "" && (!owed || reads) {
		return &out
	}
	switch {
	case owed && reads && !inTx:
		out.Detail = "The last command only read, as far as its text says; it can be repeated."
	case owed && !reads:
		fx.Count.Unknown++
		out.Code = "08007"
		out.Message += "; it is not known whether the last command took effect"
		out.Hint = "Connect again and check whether the last transaction is there before repeating it."
	case c.wait == forAnswer:
		out.Detail = "The last command only read; it can be repeated."
	case inTx:
		out.Detail = "The open transaction was rolled back."
	}
	return &out
}

// unreplicated is told instead of the success of a commit that PostgreSQL did
// locally without waiting for its standbys.
func unreplicated() *wire.Error {
	e := wire.Fatal("08007", "transaction resolution unknown: the wait for synchronous replication was canceled",
		"Connect again and check whether the transaction is there before repeating it.")
	e.Detail = "The transaction has committed on the primary but may not have been replicated; a failover could lose it."
	return e
}

// Replication through the proxy may not bear a name with @ or ~: only standbys
// do, and PostgreSQL would let whoever has such a name acknowledge commits. The
// name may come with the start-up packet, from the role's or the database's
// settings, or by SET, set_config or a function; whatever way, the server
// reports it. So each query of a replication session waits for the answers to
// those before it, and none is passed on while the reported name is one of these.

// mayAsk says whether a replication session may send its next query.
func (c *Conv) mayAsk(r *run) bool {
	l := c.links[Main]
	if !l.free() {
		c.wait = forWalsender
		return false
	}
	name := l.reported.values["application_name"]
	if !strings.ContainsAny(name, "@~") {
		return true
	}
	r.flush()
	r.fx.add(Effect{Kind: Warn, Text: "replication under a standby's name refused: " + name})
	c.end(wire.Fatal("42501", fmt.Sprintf("a replication connection through the proxy may not have the application_name \"%s\"", name),
		"Names with @ or ~ are the standbys'. Choose another application_name."), r.fx)
	return false
}
