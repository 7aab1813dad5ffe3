package decide

import (
	"slices"

	"pgregory.net/rapid"

	"manada/internal/cluster"
)

// intruded: a leader that commits alone is about to wait for its standbys again,
// and somebody bears a name of one.
func intruded(t *rapid.T, v *View) {
	l, term := &v.Local, v.Store.Term
	if term.Restore != nil {
		return
	}
	term.Open, term.Sync, term.K, term.LastOpenLeader = true, nil, 0, v.me()
	l.Senders, l.Lie, l.Impostor, v.Store.Request = nil, "", "", nil
	l.Sync = Sync{Proved: true, Since: 0x200}
	var names []string
	for i, p := range v.Peers {
		names = append(names, p.Node)
		if rapid.Bool().Draw(t, "there") {
			l.Senders = append(l.Senders, cluster.Sender{Name: cluster.CertifiedName(p.Node, term.Epoch), State: "streaming", PID: 100 + i,
				Flush: cluster.LSN(rapid.SampledFrom([]int{0x100, 0x300}).Draw(t, "flush")), Start: 1})
		}
	}
	i := rapid.IntRange(0, len(names)-1).Draw(t, "whose")
	l.Senders = append(l.Senders, cluster.Sender{Name: cluster.CertifiedName(names[i], term.Epoch), State: "streaming", PID: 110, Flush: 0x300, Start: 2, Stranger: "role reppy"})
	l.Sync.Setting = waitFor(v, min(v.Spec.WantK, len(names)), []cluster.Member{{Name: names[0]}, {Name: names[1]}})
}

// falseFlush: somebody reported, or reports, more than this primary has.
func falseFlush(v *View) (pid int, lied bool) {
	for _, s := range v.Local.Senders {
		if _, _, ok := cluster.ParseCertifiedName(s.Name); ok && s.Flush > v.Local.WAL.LSN {
			return s.PID, true
		}
	}
	return 0, v.Local.Lie != ""
}

// unrecorded: the record does not say yet that only this node has its commits,
// and could.
func unrecorded(v *View) string {
	t := v.Store.Term
	if t.Open && t.Leader == v.Self && v.Local.Leads == t.Epoch && t.K > 0 && v.Store.Reachable && t.Restore == nil {
		return "somebody could take over without what a stranger released"
	}
	return ""
}

// unsafeStranger: ending a walsender undoes nothing of what it released.
func unsafeStranger(v *View, a Action) string {
	_, lied := falseFlush(v)
	if lied && v.Local.Postgres == cluster.PostgresPrimary {
		switch {
		case a.Verb == EndSenders:
			return "what was released stays released until PostgreSQL was restarted (C1)"
		case a.Verb == HandOver:
			return unrecorded(v)
		}
	}
	if a.Verb != EndSenders {
		return ""
	}
	for _, s := range v.Local.Senders {
		switch mine := slices.Contains(a.PIDs, s.PID); {
		case mine && s.Impostor():
			return unrecorded(v)
		case mine && s.Stranger == "" && !slices.Contains(v.Local.Sync.Old, s.PID):
			if !slices.ContainsFunc(v.Local.Senders, func(o cluster.Sender) bool { return o.Name == s.Name && o.Stranger == "" && o.Start > s.Start }) {
				return "the member's only walsender"
			}
		}
	}
	return ""
}
