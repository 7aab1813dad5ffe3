package decide

import "manada/internal/cluster"

// PostgreSQL counts standbys by the name that they give. Who may bear one is
// kept out by attribute and pg_hba (package postgres); these rules are for what
// is found all the same.

// lie: a walsender reports a flush beyond this leader's own WAL, whoever it is.
// The released position stays in shared memory, so all that follows would be
// acknowledged with nobody there, until PostgreSQL was restarted (C1); ending
// the walsender changes nothing. First the record says that this node has its
// commits alone, so that nobody takes over without them; then the epoch goes to a
// member that gets all of them, else PostgreSQL restarts here: a new epoch
// either way.
func lie(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if l.Postgres != cluster.PostgresPrimary || v.without(WithoutCertificate) {
		return Decision{}, false
	}
	who, pid := liar(v)
	if who == "" {
		return Decision{}, false
	}
	if t != nil && t.Restore == nil && t.Open && t.Leader == v.Self && l.Leads == t.Epoch && v.Store.Reachable {
		switch to := hasAll(v); {
		case v.Store.Unsettled && t.K > 0:
			return Decision{}, false // its outcome first (the rule unsettled)
		case t.K > 0 && !v.without(WithoutRecord):
			n := resynced(t, nil, 0, "commits are on "+v.Self+" alone: "+who)
			return do(Action{Verb: Swap, Term: n, Note: "lie"}, "%s", n.Reason), true
		case v.without(WithoutRestart) && pid != 0:
			return do(Action{Verb: EndSenders, PIDs: []int{pid}}, "%s", who), true
		case v.without(WithoutRestart):
			return Decision{}, false
		case to != "" && l.HandoverTo == "" && !v.Store.Unsettled:
			return do(Action{Verb: HandOver, To: to}, "%s: handing over to %s, as what was released stays released until a restart", who, to), true
		}
	}
	return do(Action{Verb: Stop, Mode: "immediate", Note: "false flush position"},
		"%s: stopping, as its commits could be released by that report", who), true
}

// liar says who reports a false flush position now, or did to this postmaster.
func liar(v *View) (who string, pid int) {
	for _, s := range v.Local.Senders {
		if _, _, ok := cluster.ParseCertifiedName(s.Name); ok && s.Flush > v.Local.WAL.LSN {
			return s.Name + " reports WAL flushed to " + s.Flush.String() + ", but this primary's WAL ends at " + v.Local.WAL.LSN.String(), s.PID
		}
	}
	return v.Local.Lie, 0
}

// hasAll is the certified standby that lacks least of this leader's WAL: a fast
// stop gives it the rest, and it leads only when it has all. "": there is none.
func hasAll(v *View) string {
	best, at := "", cluster.LSN(0)
	for _, m := range eligible(v) {
		p, _ := v.peer(m.Name)
		if s, ok := v.sender(m.Name, v.Store.Term.Epoch); ok && !p.Manual && s.Flush > at && s.Flush <= v.Local.WAL.LSN {
			best, at = m.Name, s.Flush
		}
	}
	return best
}

// impostor: somebody bears a name that only members bear, under another role or
// from an address that is not the node's. What it released is on this node
// alone, so the record says so first: nobody may take over without it. Only then
// is its walsender ended. Standbys are waited for again as after any other k = 0:
// the agent has forgotten that waiting is proved and since when.
func impostor(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if l.Postgres != cluster.PostgresPrimary || v.without(WithoutRole) ||
		t != nil && (t.Restore != nil || t.Leader != v.Self || l.Leads != t.Epoch) {
		return Decision{}, false
	}
	who, pids := l.Impostor, []int(nil)
	for _, s := range l.Senders {
		if s.Impostor() {
			who, pids = s.Name+" is borne by "+s.Stranger, append(pids, s.PID)
		}
	}
	if who == "" {
		return Decision{}, false
	}
	if t != nil && t.Open && t.K > 0 && !v.without(WithoutRecord) {
		switch {
		case v.Store.Reachable && v.Store.Unsettled:
			return Decision{}, false // its outcome first (the rule unsettled)
		case v.Store.Reachable:
			n := resynced(t, nil, 0, "commits are on "+v.Self+" alone: "+who)
			return do(Action{Verb: Swap, Term: n, Note: "impostor"}, "%s", n.Reason), true
		}
	}
	if len(pids) == 0 { // gone; the record follows as soon as the store answers
		return Decision{}, false
	}
	return do(Action{Verb: EndSenders, PIDs: pids, Note: "impostor"}, "ending the walsender: %s", who), true
}

// doubled: a member has come back before its old walsender was missed. The older
// one would be counted beside the new one.
func doubled(v *View) (Decision, bool) {
	for _, s := range v.Local.Senders {
		for _, o := range v.Local.Senders {
			if s.Name == o.Name && cluster.IsMemberName(s.Name) && s.Stranger == "" && o.Stranger == "" && s.Start < o.Start {
				return do(Action{Verb: EndSenders, PIDs: []int{s.PID}}, "%s has come back: ending its older walsender", s.Name), true
			}
		}
	}
	return Decision{}, false
}

// keptOut: a member cannot get in because walsenders of others have taken all
// that max_wal_senders allows.
func keptOut(v *View) (Decision, bool) {
	l := &v.Local
	var others []int
	for _, s := range l.Senders {
		if s.Stranger != "" {
			others = append(others, s.PID)
		}
	}
	if len(others) == 0 || l.MaxSenders == 0 || len(l.Senders) < l.MaxSenders {
		return Decision{}, false
	}
	for _, p := range v.Peers {
		if v.fresh(p) && p.Kind == "data" && !p.Streaming && wantsIn(v, p) {
			return do(Action{Verb: EndSenders, PIDs: others}, "%s cannot stream: all %d walsenders are taken; ending those of others", p.Node, l.MaxSenders), true
		}
	}
	return Decision{}, false
}

// wantsIn: the node's receiver is told to stream in this epoch, and it is not there.
func wantsIn(v *View, p Peer) bool {
	e := v.Store.Term.Epoch
	if p.Upstream != cluster.CertifiedName(p.Node, e) && p.Upstream != cluster.UncertifiedName(p.Node, e) {
		return p.Rejoin != "" // it clones or rewinds, and needs walsenders for that
	}
	for _, s := range v.Local.Senders {
		if s.Stranger == "" && s.Name == p.Upstream {
			return false
		}
	}
	return true
}
