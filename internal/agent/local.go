package agent

import (
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// localView is this node, from the newest observation and what is on disk.
func (a *Agent) localView(now time.Time, t *cluster.Term) decide.Local {
	a.noteLeading(&a.seen, now)
	o, m := &a.seen, &a.mem
	l := decide.Local{
		Instance: o.instance, Empty: o.empty, Poisoned: o.poisoned,
		Founder: a.cfg.Founder, SystemID: o.systemID, HighEpoch: a.high.Marks().Epoch,
		AgentFor: now.Sub(a.started),
		Postgres: o.state, Busy: a.busy(), TreeEmpty: o.treeEmpty, CleanStop: o.cleanStop,
		Former: o.former, Leads: m.leads, Fork: m.fork, Timeline: o.timeline,
		Promised: o.promised, Withdrawals: m.withdrawals, WithdrawnAgo: now.Sub(m.withdrawnAt),
		HandoverTo: m.handoverTo, Upstream: o.upstream, Receiver: o.receiver,
		SilentFor: o.silentFor, StuckFor: now.Sub(m.progressAt),
		ControlNonce: o.controlNonce, Senders: o.senders, MaxSenders: o.maxSenders, Impostor: a.strangers.unrecorded,
		MayLead: !a.stopping.Load(), Manual: a.cfg.Manual, Priority: a.cfg.Priority,
	}
	if a.ending.Load() {
		l.Busy = "the stop of PostgreSQL, as this host's manada is being stopped,"
	}
	if o.promised != 0 {
		l.PromisedFor = now.Sub(m.promisedAt)
	}
	if x := &a.strangers; x.liedTo != 0 && x.liedTo == o.postmaster {
		l.Lie = x.lie
	}
	if o.state == cluster.PostgresDown {
		l.DownFor = now.Sub(m.downSince)
	}
	if m.leads != 0 {
		l.LeadsFor = now.Sub(m.leadsSince)
		l.Written = m.writtenEpoch == m.leads || (t != nil && o.controlNonce != "" && o.controlNonce == t.Current().Nonce)
	}
	l.WAL, l.Final = a.position(t)
	if l.Final {
		l.Complete = m.position.complete
	}
	l.Remade, l.BadHistory = o.remade, o.historyFault
	if t != nil && o.rewoundIn == t.Epoch {
		l.Rewound = o.rewound
	}
	l.Leaving, l.Archived = a.leaving.Load(), m.archived
	l.Restore, l.Drain = o.restore, a.drainView(t, now)
	l.Sync = decide.Sync{
		Setting: o.sync, Proved: o.postmaster != 0 && m.provedPID == o.postmaster,
		Since: m.syncSince, Old: stillThere(m.oldSenders, o.senders),
	}
	if o.state == cluster.PostgresHung && !m.hungSince.IsZero() && now.Sub(m.hungSince) >= a.cfg.Spec.SuspectAfter {
		l.Stalled = "PostgreSQL does not answer (" + o.hungWhy + ")"
	}
	return l
}

// position is where the WAL ends and to which epoch its last record belongs:
// the timeline and the fork, looked up in the record's history, tell (C7).
func (a *Agent) position(t *cluster.Term) (cluster.Position, bool) {
	o, p := &a.seen, a.mem.position
	tl, lsn := o.timeline, o.wal
	if o.state == cluster.PostgresPrimary {
		p.final = false // it writes: what was read before the promotion is past
	}
	if p.final {
		tl, lsn = p.timeline, p.lsn
	}
	pos := cluster.Position{LSN: lsn}
	if t != nil {
		if e, ok := t.WALEpoch(tl, lsn); ok {
			pos.Epoch = e
		}
	}
	return pos, p.final
}

func stillThere(pids []int, senders []cluster.Sender) []int {
	var out []int
	for _, pid := range pids {
		for _, s := range senders {
			if s.PID == pid {
				out = append(out, pid)
			}
		}
	}
	return out
}
