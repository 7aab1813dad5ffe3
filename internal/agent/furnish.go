package agent

import (
	"context"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
)

// furnishLoop compares what the herd leans on inside the database, once a second
// on a primary, and puts back what somebody changed. A standby keeps the session
// for it warm: a promotion begins with it.
func (a *Agent) furnishLoop(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	warmed := 0 // the postmaster that has answered it
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch state, ok := a.running(); {
		case ok && state == cluster.PostgresPrimary && a.leading():
			a.furnish(ctx)
		case ok && a.warmingDue(n, warmed):
			if a.db.WarmFurnisher(ctx) == nil { // what it finds the primary says
				warmed = a.postmaster()
			}
			fallthrough
		default:
			a.mu.Lock()
			a.unfurnished = nil
			a.mu.Unlock()
		}
	}
}

// warmingDue says whether a standby's session is to be looked at in the n-th
// second: at once after each start, as a takeover may come as soon.
func (a *Agent) warmingDue(n, warmed int) bool { return n%5 == 0 || warmed != a.postmaster() }

func (a *Agent) postmaster() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen.postmaster
}

func (a *Agent) furnish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	found, err := a.db.Furnish(ctx, false)
	if err != nil {
		return // a session that does not come about is said by observations
	}
	back := strings.Join(found.PutBack, ", ")
	if back != "" {
		a.event("config_changed", 0, back+" in the database was changed on "+a.cfg.Node+" and put back")
		a.poke()
	}
	var cs []cluster.Condition
	by := "no session that is still there"
	if len(found.By) > 0 {
		by = strings.Join(found.By, "; ")
	}
	if len(found.Contested) > 0 {
		cs = append(cs, health.Say(health.Unfurnished, a.cfg.Node, "what", strings.Join(found.Contested, ", "), "by", by,
			"why", "it was put back three times within a minute"))
	}
	if found.Failed != "" {
		cs = append(cs, health.Say(health.Unfurnished, a.cfg.Node, "what", "what the herd needs in the database", "by", by, "why", found.Failed))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if back != "" {
		a.putBack, a.putBackAt = back, time.Now()
	}
	a.unfurnished = cs
}
