package conv

import (
	"time"

	"manada/internal/proxy/wire"
)

// arm sets the timers by what the conversation does now.
func (c *Conv) arm(fx *Effects) {
	g := c.cfg
	if g.QueryTimeout == 0 && g.TxTimeout == 0 && g.IdleTxTimeout == 0 && g.IdleTimeout == 0 {
		return
	}
	free, inTx := c.free(), c.status() != 'I'
	for t, limit := range [Timers]struct {
		d  time.Duration
		on bool
	}{
		QueryTimer:  {g.QueryTimeout, !free},
		TxTimer:     {g.TxTimeout, inTx},
		IdleTxTimer: {g.IdleTxTimeout, free && inTx},
		IdleTimer:   {g.IdleTimeout, free && !inTx},
	} {
		if limit.d == 0 || limit.on == c.armed[t] {
			continue
		}
		c.armed[t] = limit.on
		if !limit.on {
			limit.d = 0
		}
		fx.add(Effect{Kind: Arm, Timer: Timer(t), D: limit.d})
	}
}

// expired ends the client, with the codes that PostgreSQL has for the same.
func (c *Conv) expired(t Timer) {
	if !c.armed[t] || c.killed != nil {
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
