package conv

import (
	"time"

	"manada/internal/proxy/wire"
)

// arm sets the timers by what the conversation does now.
func (c *Conv) arm(fx *Effects) {
	g := c.limits
	if g == nil || c.killed != nil {
		return
	}
	free, inTx := c.free(), c.status() != 'I'
	for t, limit := range [Timers]struct {
		d  time.Duration
		on bool
	}{
		QueryTimer:  {g.Query, !free},
		TxTimer:     {g.Tx, inTx},
		IdleTxTimer: {g.IdleTx, free && inTx},
		IdleTimer:   {g.Idle, free && !inTx},
	} {
		if limit.d == 0 || limit.on == c.armed[t] {
			continue
		}
		c.armed[t] = limit.on
		c.late = c.late && Timer(t) != QueryTimer
		if !limit.on {
			limit.d = 0
		}
		fx.add(Effect{Kind: Arm, Timer: Timer(t), D: limit.d})
	}
}

// some is nil where nothing is limited.
func (l *Limits) some() *Limits {
	if l == nil || *l == (Limits{}) {
		return nil
	}
	return l
}

// limited takes other limits.
func (c *Conv) limited(l *Limits, fx *Effects) {
	c.limits = l.some()
	for t, on := range c.armed {
		if on {
			c.armed[t] = false
			fx.add(Effect{Kind: Arm, Timer: Timer(t)})
		}
	}
}

// cancelPatience is how long a query may take to end that was cancelled because it has
// taken too long.
const cancelPatience = time.Second

// expired ends the client, with the codes that PostgreSQL has for the same. A query is
// cancelled, and the client ends where that does not help.
func (c *Conv) expired(t Timer, fx *Effects) {
	if !c.armed[t] || c.killed != nil {
		return
	}
	if t == QueryTimer && !c.late {
		c.late = true
		c.cancel(fx)
		fx.add(Effect{Kind: Arm, Timer: t, D: cancelPatience})
		return
	}
	c.armed[t] = false
	c.killed = [Timers]*wire.Error{
		QueryTimer:  wire.Fatal("57014", "terminating connection due to query timeout", "The proxy's limit is proxy.query_timeout."),
		TxTimer:     wire.Fatal("25P04", "terminating connection due to transaction timeout", "The proxy's limit is proxy.transaction_timeout."),
		IdleTxTimer: wire.Fatal("25P03", "terminating connection due to idle-in-transaction timeout", "The proxy's limit is proxy.idle_transaction_timeout."),
		IdleTimer:   wire.Fatal("57P05", "terminating connection due to idle-session timeout", "The proxy's limit is proxy.client_idle_timeout."),
	}[t]
}
