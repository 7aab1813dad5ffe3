package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
	"manada/internal/health"
	"manada/internal/postgres"
)

// careLoop does what PostgreSQL needs now and then and no decision hangs on:
// slots for the other members, settings that were changed by hand put back.
func (a *Agent) careLoop(ctx context.Context) {
	fast := time.NewTicker(500 * time.Millisecond)
	second := time.NewTicker(time.Second)
	slow := time.NewTicker(2 * time.Second)
	defer fast.Stop()
	defer second.Stop()
	defer slow.Stop()
	a.access(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-fast.C:
			a.access(ctx)
			a.enforce(ctx)
		case <-second.C:
			a.guardReplication(ctx)
		case <-a.overridden:
			a.enforce(ctx)
		case <-slow.C:
			a.slots(ctx)
			a.readdress(ctx)
			a.forgetRestore()
		}
	}
}

func (a *Agent) running() (cluster.PostgresState, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.seen.state
	return s, (s == cluster.PostgresStandby || s == cluster.PostgresPrimary) && a.busy() == ""
}

// enforce reads back the settings on which the protocol stands.
// `ALTER SYSTEM SET synchronous_standby_names = ”` silently beats a rendered
// file: it is put back and said.
func (a *Agent) enforce(ctx context.Context) {
	state, ok := a.running()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	found, err := a.db.Enforce(ctx)
	if err != nil {
		return
	}
	for _, name := range found.Reset {
		a.event("config_changed", 0, name+" was changed by ALTER SYSTEM on "+a.cfg.Node+" and put back")
	}
	var cs []cluster.Condition
	for _, b := range found.Beaten {
		setting, by, _ := strings.Cut(strings.TrimSuffix(b, ")"), " (")
		cs = append(cs, health.Say(health.SettingBeaten, a.cfg.Node, "setting", setting, "by", by))
	}
	for _, e := range found.FileErrors {
		cs = append(cs, health.Say(health.ConfigRefused, a.cfg.Node, "why", e))
	}
	for _, l := range found.Loose {
		if state != cluster.PostgresPrimary {
			break // standbys have it from the primary, which tells of it
		}
		whom, value, _ := strings.Cut(l, ": ")
		value = strings.TrimPrefix(value, "synchronous_commit=")
		cs = append(cs, health.Say(health.CommitNotSync, a.cfg.Node, "whom", whom, "value", value))
	}
	if state == cluster.PostgresPrimary && len(found.Named) > 0 {
		cs = append(cs, health.Say(health.ConsoleHidden, a.cfg.Node, "databases", strings.Join(found.Named, " and ")))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(found.Reset) > 0 {
		a.putBack, a.putBackAt = strings.Join(found.Reset, ", "), time.Now()
	}
	if a.putBack != "" && time.Since(a.putBackAt) < putBackShown {
		cs = append(cs, health.Say(health.SettingPutBack, a.cfg.Node, "setting", a.putBack, "value", "as it was"))
	}
	a.drift = cs
}

// putBackShown is how long `status` tells of a setting that was put back.
const putBackShown = 10 * time.Minute

// slots keeps one for every other data node, on every node, so that whoever is
// promoted next has them (T12).
func (a *Agent) slots(ctx context.Context) {
	state, ok := a.running()
	if !ok {
		return
	}
	var want []postgres.SlotWanted
	for name, h := range a.hub.Heard() {
		if h.Beat.Kind == "data" && name != a.cfg.Node {
			want = append(want, postgres.SlotWanted{Name: cluster.SlotName(name), Advance: h.Beat.Replay})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	if err := a.db.EnsureSlots(ctx, want); err != nil {
		a.log.Debug("cannot keep slots", "state", state, "error", err.Error())
	}
}

// guardianLoop hears within milliseconds of a postmaster's end, and tells the
// guardian to whom it beats.
func (a *Agent) guardianLoop(ctx context.Context) {
	for e := range a.guard.Watch(ctx) {
		if e.Err != nil {
			a.log.Warn("guardian is gone; starting another", "error", e.Err.Error())
			if a.parts.EnsureGuardian != nil {
				if err := a.parts.EnsureGuardian(ctx); err != nil && ctx.Err() == nil {
					a.log.Error("cannot start a guardian", "error", err.Error())
				}
			}
			continue
		}
		a.postmasterGone(e.Status)
		a.observe(ctx)
		a.poke()
	}
}

// postmasterGone takes the guardian's word at once: an observation may hang for
// a moment on sessions that are just ending.
func (a *Agent) postmasterGone(st guardian.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if st.Running || !a.seen.state.Up() || st.PID != a.seen.postmaster {
		return
	}
	a.steps++
	s := a.seen
	s.state, s.treeEmpty = cluster.PostgresDying, st.TreeEmpty
	if st.TreeEmpty {
		s.state = cluster.PostgresDown
	}
	s.receiver, s.senders, s.cleanStop = false, nil, false
	a.noteChange(&s)
	a.seen = s
	a.poke()
}

// tellGuardian says to whom the guardian beats while this agent is away.
func (a *Agent) tellGuardian(ctx context.Context, peers map[string]string) {
	if a.guard == nil {
		return
	}
	var to []string
	for n, addr := range peers {
		if n != a.cfg.Node {
			to = append(to, addr)
		}
	}
	slices.Sort(to)
	b := guardian.BeatConfig{Peers: to, IdentityDir: a.cfg.IdentityDir, Template: a.Self()}
	b.Template.Term = nil // the guardian speaks of the postmaster, not of the record
	if err := a.guard.SetBeats(ctx, b); err != nil && ctx.Err() == nil {
		a.log.Debug("cannot tell the guardian its peers", "error", err.Error())
	}
}
