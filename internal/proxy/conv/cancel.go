package conv

import (
	"maps"
	"slices"

	"manada/internal/proxy/wire"
)

// Runs is the side that works for the client at the moment: a request to cancel is
// for it. Client: none.
func (c *Conv) Runs() Side {
	switch {
	case c.wait == forAnswer:
		return Reader
	case c.links[Main] != nil && !c.links[Main].free():
		return Main
	}
	return Client
}

// cancel asks for an end of what is done for the client. What no server has begun is
// answered without one: while a server takes the client's settings over, when it has
// done so, for a request would meet these.
func (c *Conv) cancel(fx *Effects) {
	switch c.wait {
	case forTuning, forSettings:
		c.called = !c.enters
	case forMain:
		if !c.enters {
			fx.add(Effect{Kind: Withdraw, Side: Main})
			c.callOff(fx)
		}
	case forReader:
		fx.add(Effect{Kind: Withdraw, Side: Reader})
		c.callOff(fx)
	case forWritten, forReplayed, forHold:
		if !c.enters {
			c.callOff(fx)
		}
	default:
		if side := c.Runs(); side != Client {
			c.links[side].cancels++
			fx.add(Effect{Kind: SendCancel, Side: side})
		}
	}
}

// callOff answers what waits as cancelled: what was kept of it, or else what the
// client's bytes begin with. The servers that were found for it are given back.
func (c *Conv) callOff(fx *Effects) {
	c.wait, c.called, c.owed.peeked = nothing, false, false
	c.ghost = ghost{canceled: true}
	if rd := &c.read; len(rd.bytes) > 0 {
		r := run{fx: fx, to: Client, b: rd.bytes}
		for len(r.rest()) >= headerLen {
			b := r.rest()
			total := messageLen(b)
			c.wail(&r, b[0], b[:total], total)
			r.drop(total)
		}
		rd.pending, c.ghost = false, ghost{}
		c.forgetUnit(fx)
	}
	if l := c.links[Main]; l != nil && !c.used {
		if _, stays := c.stays(); !stays {
			c.give(Main, l.asItIs(), fx)
		}
	}
	c.releaseReader(fx)
}

// releaseReader gives the standby back that nobody reads from.
func (c *Conv) releaseReader(fx *Effects) {
	l := c.links[Reader]
	if reads := c.wait >= forReader && c.wait <= forAnswer; l != nil && !reads && c.pooled() && l.idle() && l.cancels == 0 {
		c.give(Reader, l.asItIs(), fx)
	}
}

// cancelRead: PostgreSQL has read a request to cancel, or nobody knows whether it will.
func (c *Conv) cancelRead(ev Event, fx *Effects) {
	l := c.links[ev.Side]
	if l == nil || l.cancels == 0 {
		return
	}
	l.cancels--
	l.haunted = l.haunted || ev.Kind == CancelLost
	if ev.Side == Reader {
		c.releaseReader(fx)
	}
}

// asItIs is how a link is given back that has nothing of its client.
func (l *Link) asItIs() How {
	if l.haunted {
		return Close
	}
	return Clean
}

// sendsNoMore: the client has closed its direction while it waits for a server. Most
// have left, some are there to hear the answer. A setting that it was told before finds
// out: the host of one that has left refuses it, and the driver is told that.
func (c *Conv) sendsNoMore(fx *Effects) {
	switch {
	case c.mid != Client:
	case c.enters, c.shown == nil, len(c.shown.values) == 0:
		c.mid = sides // it hears nothing
		c.end(nil, fx)
	default:
		name := slices.Min(slices.Collect(maps.Keys(c.shown.values)))
		at := len(fx.own)
		fx.own = wire.AppendParameterStatus(fx.own, name, c.shown.values[name])
		fx.add(Effect{Kind: Send, Side: Client, B: fx.own[at:]})
	}
}
