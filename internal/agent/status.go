package agent

import (
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/health"
)

// Status is the herd as this host sees it. It asks nobody anything, so it
// answers at once also when other hosts or the store do not.
func (a *Agent) Status() cluster.Status {
	now := time.Now()
	in := health.Input{Cluster: a.cfg.Cluster, Self: a.cfg.Node, Now: now, Nodes: map[string]health.Seen{}}
	for n, h := range a.hub.Heard() {
		b := h.Beat
		in.Nodes[n] = health.Seen{Beat: &b, Age: now.Sub(h.At)}
	}
	for n, h := range a.hub.HeardGuardian() {
		s, b := in.Nodes[n], h.Beat
		s.Guardian, s.GuardianAge = &b, now.Sub(h.At)
		in.Nodes[n] = s
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if self := a.beat; !a.beatAt.IsZero() {
		in.Nodes[a.cfg.Node] = health.Seen{Beat: &self, Age: now.Sub(a.beatAt)} // old when the loop, or the host, has stood still
	}
	in.Term, in.TermRev = a.rec.snap.Term.Clone(), a.rec.snap.TermRev
	in.Paused = a.rec.snap.Pause != nil
	for _, n := range a.nodes {
		in.Expected = append(in.Expected, health.Expected{
			Name: n.Name, Kind: n.Kind, ID: n.ID, Location: n.Location, Address: n.Addrs.SQL, Failover: n.Failover, Priority: n.Priority,
		})
	}
	in.Store = a.storeStatus()
	in.Backup = a.backupStatus
	return health.Build(in)
}

// storeStatus is called with mu held.
func (a *Agent) storeStatus() *cluster.StoreStatus {
	s := a.storeUp
	if s.Voters == 0 {
		return nil
	}
	out := &cluster.StoreStatus{Voters: s.Voters, Up: s.Up, Leader: s.Leader}
	switch {
	case !a.storeUnknown.IsZero():
		at := a.storeUnknown.UTC()
		out.UnknownSince = &at
	case time.Since(a.storeAskedAt) > storeAsked:
		at := a.storeAskedAt.UTC()
		out.UnknownSince = &at
	}
	for _, m := range s.Members {
		if m.Learner {
			continue
		}
		out.Voting = append(out.Voting, m.Name)
		if !m.Up {
			out.Down = append(out.Down, m.Name)
		}
	}
	return out
}

// storeAsked is the age from which what the store last said of itself is unknown:
// it is asked every second.
const storeAsked = 10 * time.Second

// conditions are what only this node knows of itself; the rest is derived from
// everybody's beats in package health.
func (a *Agent) conditions(v *decide.View) []cluster.Condition {
	var cs []cluster.Condition
	a.mu.Lock()
	defer a.mu.Unlock()
	if v.Store.RolledBack {
		cs = append(cs, health.Say(health.StoreRolledBack, a.cfg.Node, "seen", a.high.Marks().Epoch))
	}
	if foreign(v) {
		cs = append(cs, health.Say(health.ForeignDirectory, a.cfg.Node, "found", v.Local.SystemID, "herd", v.Store.Term.SystemID))
	}
	cs = append(append(cs, a.drift...), a.unfurnished...)
	cs = append(append(cs, a.replicationConditions()...), a.impostorConditions()...)
	cs = append(cs, a.troubles(time.Now())...)
	if p := a.seen.pendingRestart; len(p) > 0 {
		cs = append(cs, health.Say(health.RestartNeeded, a.cfg.Node, "parameters", strings.Join(p, ", ")))
	}
	cs = append(cs, a.careful...)
	cs = append(cs, a.stepFails...)
	if a.restoreErr != "" && v.Store.Term != nil && v.Store.Term.Restore != nil {
		cs = append(cs, health.Say(health.RestoreFails, a.cfg.Node, "why", a.restoreErr))
	}
	if a.parts.Conditions != nil {
		cs = append(cs, a.parts.Conditions()...)
	}
	switch k := a.backupStatus; {
	case a.archiveOther != "" && a.mem.leads != 0:
		host := "the repository host"
		if k != nil && k.Host != "" {
			host = k.Host
		}
		cs = append(cs, health.Say(health.ArchiveOther, a.cfg.Node, "file", a.archiveOther, "host", host))
	case a.archiveErr != "":
		cs = append(cs, health.Say(health.ArchiveFailing, a.cfg.Node, "why", a.archiveErr))
	}
	return cs
}

// foreign says whether the data directory belongs to another database system.
func foreign(v *decide.View) bool {
	l, t := &v.Local, v.Store.Term
	return t != nil && !l.Empty && l.SystemID != "" && l.SystemID != t.SystemID
}
