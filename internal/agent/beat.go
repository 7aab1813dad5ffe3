package agent

import (
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/health"
)

// publish tells the others what this node is and has decided.
func (a *Agent) publish(v *decide.View, d decide.Decision) {
	a.seq++
	b := cluster.Beat{
		Schema: 1, Cluster: a.cfg.Cluster, Node: a.cfg.Node, From: "agent",
		Boot: a.boot, Seq: a.seq, Version: a.cfg.Version, Kind: a.cfg.Kind,
		Postgres: cluster.PostgresNone, Addrs: a.cfg.Addrs,
		StoreOK: v.Store.Reachable, Term: v.Store.Term, TermRev: v.Store.Rev, Paused: v.Store.Paused,
		Suspects: d.Suspects, CannotCommit: d.CannotCommit, WritesWait: d.WritesWait, Rejoin: d.Rejoin,
		Answers: answersTo(v), Leaving: a.stopping.Load(),
		Certified: d.Certified, Reason: d.Reason, Op: v.Local.Busy,
	}
	if a.db != nil {
		a.localBeat(&b, v)
	}
	if b.Op == "" {
		b.Op = a.recoveryOp(v)
	}
	if b.Op == "" && v.Local.Drain.ID != "" {
		b.Op = a.drainOp(d)
	}
	if foreign(v) {
		b.Rejoin = "" // it neither is rewound nor cloned
	}
	b.Conditions = a.conditions(v)
	if v.Local.Drain.ID != "" {
		b.Conditions = append(b.Conditions, health.Say(health.HandingOver, v.Local.Drain.To, "what", b.Op))
	}
	if d.Stuck != "" {
		b.Conditions = append(b.Conditions, health.Say(health.RestoreFails, a.cfg.Node, "why", d.Stuck))
	}
	if d.Diverges != "" {
		b.Conditions = append(b.Conditions, health.Say(health.KeepsDiverging, a.cfg.Node, "why", d.Diverges))
	}
	b.Unconfirmed = a.unconfirmed(b)
	now := time.Now()
	a.mu.Lock()
	a.beat, a.beatAt = b, now
	a.said.add(b.Seq, now)
	a.mu.Unlock()
	if err := a.hub.Publish(b); err != nil {
		a.log.Error("cannot publish a beat", "error", err.Error())
	}
}

func (a *Agent) localBeat(b *cluster.Beat, v *decide.View) {
	l := &v.Local
	b.Instance, b.Postgres, b.Timeline = l.Instance, l.Postgres, l.Timeline
	b.WAL, b.Leads, b.Upstream = l.WAL, l.Leads, l.Upstream
	b.ControlNonce, b.MayLead, b.Senders = l.ControlNonce, l.MayLead, l.Senders
	if a.admits.Load() {
		b.Run = a.cfg.Run
	}
	b.Manual, b.Priority, b.ShowsCert = l.Manual, l.Priority, true
	if l.Promised != 0 {
		b.Frozen = l.Promised
	}
	a.mu.Lock()
	b.Streaming, b.ReceiverError = a.seen.streams(), a.seen.receiverError
	if l.Postgres == cluster.PostgresPrimary {
		b.Waiting = a.waiting
		if k := a.backupStatus; k != nil {
			b.Backup = k.Last
		}
	}
	b.Replay, b.LagMS, b.WaitingMS = a.seen.replay, a.seen.lagMS, a.seen.waiting.Milliseconds()
	a.mu.Unlock()
}

// Self is the newest beat of this node.
func (a *Agent) Self() cluster.Beat {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.beat
}
