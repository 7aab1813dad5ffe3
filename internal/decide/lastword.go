package decide

import "manada/internal/cluster"

// A leader that commits alone (k = 0) has what nobody else has. When its host is
// stopped in order it archives its WAL to the last byte and leaves its last word
// in the record: a promise that names nobody and says where its WAL ends. From
// then on nothing is acknowledged in its epoch, and whoever holds all of that
// WAL may lead. So a herd that was shut down, standby first, comes back also
// when the last primary's disk does not.

// lastWordAfter is how many times SuspectAfter a standby waits for the leader to
// come back by itself: it need not fetch anything, and nobody is rewound.
const lastWordAfter = 10

// leaveWord is the leader's side, after a clean stop for good.
func leaveWord(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if !l.Leaving || l.HandoverTo != "" {
		return Decision{}, false
	}
	switch {
	case l.Postgres != cluster.PostgresDown || !l.CleanStop || len(t.Sync) > 0:
		return wait("this host is being stopped"), true
	case l.Promised != t.Epoch:
		return do(Action{Verb: Promise, Epoch: t.Epoch}, "stopped in order, with commits that are nowhere else: promising the end of epoch %d", t.Epoch), true
	case !l.Final:
		return do(Action{Verb: ReadPosition}, "stopped in order: reading where the WAL ends"), true
	case l.Archived < l.WAL.LSN:
		return do(Action{Verb: ArchiveEnd, LSN: l.WAL.LSN}, "stopped in order: archiving the WAL up to its end at %s", l.WAL.LSN), true
	}
	if _, said := t.LastWord(); !said {
		return do(Action{Verb: Swap, Term: promised(t, myPromise(v, "")), Note: "promise"},
			"stopped in order at %s: whoever has all of it may lead", l.WAL.LSN), true
	}
	return wait("stopped in order at %s: whoever has all of it may lead", l.WAL.LSN), true
}

// lastWord is what a leader that does not come back has left to others.
func lastWord(v *View) (cluster.Promise, bool) {
	p, said := v.Store.Term.LastWord()
	manual := v.Local.Manual && !wanted(v)
	return p, said && p.Node != v.Self && !manual && v.Local.AgentFor >= lastWordAfter*v.Spec.SuspectAfter
}

// fetch gets what the archive has of the leader's WAL and this node does not.
func fetch(v *View) (Decision, bool) {
	p, said := lastWord(v)
	at := position(v)
	switch {
	case !said || !at.Less(p.Position()) || v.without(WithoutTheRest):
		return Decision{}, false
	case at.Epoch != p.WALEpoch:
		return withdraw(v, "this node's WAL ends in an older epoch than that of "+p.Node), true
	}
	return do(Action{Verb: FetchWAL, LSN: p.LSN}, "%s stopped in order at %s: fetching from %s on out of the archive", p.Node, p.LSN, at.LSN), true
}
