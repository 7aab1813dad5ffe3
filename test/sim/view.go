package sim

import (
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// viewOf puts together what a node knows, as the real agent does.
func (w *world) viewOf(n *node) *decide.View {
	a := n.a
	v := &a.view
	v.Self, v.Spec, v.Without = n.name, w.spec, w.prof.Without
	v.Spec.Witness = n.witness
	v.Nonce = w.freshNonce()
	w.storeView(n, &v.Store)
	if !n.witness {
		w.localView(n, &v.Local)
	}
	v.Peers = w.peersView(n)
	return v
}

// freshNonce is used up only when a record with it is written.
func (w *world) freshNonce() string { return w.nonces[len(w.nonces)-1] }

func (w *world) storeView(n *node, s *decide.Store) {
	a := n.a
	*s = decide.Store{ReadAge: never, Unsettled: a.unsettled}
	if !a.have {
		return
	}
	s.ReadAge = ms(w.now - a.sent)
	s.Reachable = !a.failed && s.ReadAge < 2*time.Second
	s.Term, s.Rev = a.term, a.rev
	s.Lease = decide.Lease{Node: a.lease.node, Epoch: a.lease.epoch, Unchanged: ms(max(0, a.sent-a.leaseSince))}
	if a.request != nil {
		r := *a.request
		r.Age = ms(w.now - a.requestSince)
		s.Request = &r
	}
}

func (w *world) localView(n *node, l *decide.Local) {
	a := n.a
	o, m := &a.seen, &a.mem
	*l = decide.Local{
		Instance: o.dir.instance, Empty: o.dir.empty, Poisoned: o.dir.poisoned,
		Founder: n.i == 0, SystemID: systemID, HighEpoch: n.d.highEpoch,
		AgentFor: ms(w.now - a.started),
		Postgres: o.state, Busy: a.busy, TreeEmpty: o.pid == 0, CleanStop: o.dir.cleanStop,
		Former: o.dir.former, Remade: o.dir.remade, Leads: m.leads, Fork: m.fork, Timeline: o.timeline,
		Promised: o.promised, Withdrawals: m.withdrawn, WithdrawnAgo: ms(w.now - m.withdrawAt),
		HandoverTo: m.handoverTo, Upstream: o.upstream, Receiver: o.receiver,
		SilentFor: o.silentFor, StuckFor: ms(w.now - m.progressAt),
		ControlNonce: o.nonce, Senders: o.senders, MayLead: n.leaveBy == 0,
		Leaving: a.leaving, Archived: m.archived, Impostor: m.unrecorded,
	}
	l.Drain = w.drainView(n)
	if m.liedTo != 0 && m.liedTo == o.pid {
		l.Lie = m.lie
	}
	if n.ending {
		l.Busy = "the stop of PostgreSQL"
	}
	if o.promised != 0 {
		l.PromisedFor = ms(w.now - m.promisedAt)
	}
	if o.state == cluster.PostgresDown {
		l.DownFor = ms(w.now - m.downSince)
	}
	if m.leads != 0 {
		l.LeadsFor = ms(w.now - m.leadsSince)
		l.Written = m.written == m.leads || a.term != nil && o.nonce != "" && o.nonce == a.term.Current().Nonce
	}
	l.WAL, l.Final = a.position()
	l.Sync = decide.Sync{Setting: o.sync, Proved: o.pid != 0 && m.provedPID == o.pid, Since: m.since, Old: a.oldSenders()}
	if o.state == cluster.PostgresHung && m.hungSince != 0 && ms(w.now-m.hungSince) >= suspectAfter {
		l.Stalled = "PostgreSQL does not answer"
	}
}

// position: the timeline and the forks in the record's history tell to which
// epoch the last record belongs (C7).
func (a *agent) position() (cluster.Position, bool) {
	tl, lsn := a.seen.timeline, a.seen.wal
	if a.mem.final {
		tl, lsn = a.mem.timeline, a.mem.lsn
	}
	p := cluster.Position{LSN: lsn}
	if a.term != nil {
		p.Epoch, _ = a.term.WALEpoch(tl, lsn)
	}
	return p, a.mem.final
}

func (a *agent) oldSenders() []int {
	var out []int
	for _, pid := range a.mem.old {
		for _, s := range a.seen.senders {
			if s.PID == pid {
				out = append(out, pid)
			}
		}
	}
	return out
}

func (w *world) peersView(n *node) []decide.Peer {
	a := n.a
	a.peers = a.peers[:0]
	for _, m := range w.nodes { // sorted by name
		if m == n {
			continue
		}
		h := &a.heard[m.i]
		if h.beat == nil && (a.term == nil || !inSync(a.term, m.name)) {
			continue
		}
		a.peers = append(a.peers, decide.Peer{})
		p := &a.peers[len(a.peers)-1]
		if h.beat != nil {
			p.Beat = *h.beat
		}
		p.Node, p.Age = m.name, ms(w.now-h.at)
		p.Guardian, p.GuardianAge = h.guard, ms(w.now-h.guardAt)
		at := a.mem.streamed[m.i]
		if at == 0 {
			at = max(a.started, a.mem.leadsSince)
		}
		p.UnseenFor = ms(w.now - at)
	}
	return a.peers
}

func inSync(t *cluster.Term, name string) bool { _, ok := t.SyncNamed(name); return ok }

// publish sends the beat that follows from a decision.
func (w *world) publish(n *node, d decide.Decision) {
	a, v := n.a, &n.a.view
	l := &v.Local
	b := &cluster.Beat{Node: n.name, Kind: "data", From: "agent", Postgres: cluster.PostgresNone,
		StoreOK: v.Store.Reachable, Suspects: d.Suspects, CannotCommit: d.CannotCommit,
		Rejoin: d.Rejoin, Certified: d.Certified, Term: v.Store.Term, TermRev: v.Store.Rev}
	if n.witness {
		b.Kind = "witness"
	} else {
		b.Instance, b.Postgres, b.Timeline = l.Instance, l.Postgres, l.Timeline
		b.WAL, b.Leads, b.Upstream = l.WAL, l.Leads, l.Upstream
		b.ControlNonce, b.MayLead, b.Frozen = l.ControlNonce, l.MayLead, l.Promised
		b.WaitingMS = a.seen.waiting
	}
	a.beat = b
}

// beats sends the newest beat of every agent, and every guardian's word.
func (w *world) beats() {
	keep := w.air[:0]
	for _, m := range w.air {
		if m.at > w.now {
			keep = append(keep, m)
			continue
		}
		to := w.nodes[m.to]
		if !to.runs(w.now) && to.hostUp { // waits in a socket's buffer
			keep = append(keep, m)
			continue
		}
		if to.a == nil || !to.hostUp {
			continue
		}
		h := &to.a.heard[m.from]
		if m.sent < h.sent {
			continue
		}
		h.sent = m.sent
		if m.beat != nil {
			h.beat, h.at = m.beat, w.now
		}
		if m.guard != "" {
			h.guard, h.guardAt = m.guard, w.now
		}
	}
	w.air = keep
	for _, n := range w.nodes {
		if !n.runs(w.now) {
			continue
		}
		var b *cluster.Beat
		if n.a != nil && n.a.pausedUntil <= w.now {
			b = n.a.beat
		}
		var g cluster.PostgresState
		if !n.witness {
			g = n.state(w.now)
		}
		for _, m := range w.nodes {
			if m != n && !w.cut[n.i][m.i] && !w.chance(w.prof.beatLoss) {
				w.air = append(w.air, packet{at: w.now + int64(w.rng.IntN(3))*tick, sent: w.now, from: n.i, to: m.i, beat: b, guard: g})
			}
		}
	}
}

type packet struct {
	at, sent int64
	from, to int
	beat     *cluster.Beat
	guard    cluster.PostgresState
}
