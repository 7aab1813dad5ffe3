package decide

import (
	"manada/internal/cluster"
)

// fallen: this node holds an open epoch but its PostgreSQL does not run as its
// primary: it crashed, was stopped, or the host came back. The epoch is never
// continued (H8): a synchronous standby takes over, or this node succeeds
// itself under a new epoch and timeline.
func fallen(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if t.Leader != v.Self || !t.Open || (l.Leads == t.Epoch && l.Postgres.Up()) {
		return Decision{}, false
	}
	give := func(d Decision, why string) (Decision, bool) { d.CannotCommit = why; return d, true }
	switch {
	case l.Empty || l.Poisoned || t.LastOpenLeader != v.me():
		return give(wait("this is not the data directory that led epoch %d: a standby must take over", t.Epoch), "its data directory is gone")
	case l.Postgres == cluster.PostgresDying || (l.Postgres == cluster.PostgresDown && !l.TreeEmpty):
		return give(wait("PostgreSQL died; waiting for its last processes to end"), "PostgreSQL died")
	case l.Postgres == cluster.PostgresHung || l.Postgres == cluster.PostgresStopping:
		return give(wait("PostgreSQL is %s", l.Postgres), "PostgreSQL is "+string(l.Postgres))
	}
	if d, ok := handOver(v); ok {
		return d, true
	}
	if d, ok := leaveWord(v); ok {
		return d, true
	}
	if len(t.Sync) > 0 && l.AgentFor < v.Spec.SuspectAfter {
		return wait("just started: listening to the others first"), true
	}
	if l.Promised != t.Epoch && !l.CleanStop && l.DownFor < v.Spec.HandoverAfter {
		if who := heir(v); who != "" {
			return give(wait("PostgreSQL died; %s takes over", who), "PostgreSQL died")
		}
	}
	return succeedItself(v)
}

// heir is a synchronous standby that answers and could take over.
func heir(v *View) string {
	for _, m := range v.Store.Term.Sync {
		if p, ok := v.peer(m.Name); ok && v.fresh(p) && p.Instance == m.Instance && p.MayLead && !p.Manual && p.StoreOK {
			return m.Name
		}
	}
	return ""
}

// handOver is the leader's side of a switchover after a clean stop: its tree
// is empty, so it promises as last open leader, with its WAL end, for the
// named successor.
func handOver(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if l.HandoverTo == "" || l.Postgres != cluster.PostgresDown || !l.CleanStop || l.PromisedFor > v.Spec.HandoverAfter {
		return Decision{}, false
	}
	switch {
	case l.Promised != t.Epoch:
		return do(Action{Verb: Promise, Epoch: t.Epoch}, "switchover: stopped cleanly, promising the end of epoch %d", t.Epoch), true
	case !l.Final:
		return do(Action{Verb: ReadPosition}, "switchover: reading where the WAL ends"), true
	}
	if p, ok := t.PromiseOf(v.Self); !ok || p.For != l.HandoverTo {
		return do(Action{Verb: Swap, Term: promised(t, myPromise(v, l.HandoverTo)), Note: "promise"},
			"switchover: naming %s as successor at %s", l.HandoverTo, l.WAL.LSN), true
	}
	return wait("switchover: waiting for %s to open the next epoch", l.HandoverTo), true
}

// succeedItself: promise with an empty tree, start as a standby of nobody,
// read the position, win, promote.
func succeedItself(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if l.Promised != t.Epoch {
		return do(Action{Verb: Promise, Epoch: t.Epoch}, "no other node can take over epoch %d: succeeding itself", t.Epoch), true
	}
	if d, ok := cutOff(v); ok {
		return d, true
	}
	switch {
	case l.Postgres == cluster.PostgresDown:
		return do(Action{Verb: StartStandby}, "succeeding itself: starting PostgreSQL"), true
	case l.Postgres != cluster.PostgresStandby:
		return wait("succeeding itself: PostgreSQL is %s", l.Postgres), true
	case !l.Final:
		return do(Action{Verb: ReadPosition}, "succeeding itself: reading where the WAL ends"), true
	}
	if why, ok := mayWin(v); ok {
		return do(Action{Verb: Swap, Term: won(v, position(v), why), Note: "won"}, "%s", why), true
	}
	who := whoHasMore(v, position(v))
	d := wait("%s has WAL of this epoch beyond the end of this node's (%s): it must take over", who, l.WAL.LSN)
	d.CannotCommit = "its WAL ends before that of " + who
	return d, true
}
