package decide

import (
	"slices"

	"manada/internal/cluster"
)

// Every change of the term record is one of these functions. They copy: the
// record they are given is never changed.

// firstTerm is epoch 1, won and not yet open.
func firstTerm(v *View) *cluster.Term {
	return &cluster.Term{
		SystemID: v.Local.SystemID, Epoch: 1, Leader: v.Self,
		WantK: v.Spec.WantK, Durability: v.Spec.Durability,
		History:        []cluster.Branch{{Epoch: 1, Leader: v.Self, Timeline: 1, Nonce: v.Nonce}},
		LastOpenLeader: v.me(),
		Reason:         "founded",
	}
}

// promised adds or replaces a promise.
func promised(t *cluster.Term, p cluster.Promise) *cluster.Term {
	n := withdrawn(t, p.Node)
	n.Promises = append(n.Promises, p)
	slices.SortFunc(n.Promises, func(a, b cluster.Promise) int { return cmp(a.Node, b.Node) })
	n.Reason = p.Node + " promised the end of the epoch"
	if p.For != "" {
		n.Reason = "switchover from " + p.Node + " to " + p.For
	}
	return n
}

func cmp(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// withdrawn removes the promise of a node, also when there is none: the write
// is what makes an earlier write of unknown outcome fail (H1).
func withdrawn(t *cluster.Term, node string) *cluster.Term {
	n := t.Clone()
	n.Promises = slices.DeleteFunc(n.Promises, func(p cluster.Promise) bool { return p.Node == node })
	n.Reason = node + " withdrew its promise"
	return n
}

// won is the next epoch, not open. sync and k stay: they describe the last
// open epoch, whose commits must survive (C3).
func won(v *View, at cluster.Position, reason string) *cluster.Term {
	t := v.Store.Term
	n := t.Clone()
	n.Epoch, n.Leader, n.Open = t.Epoch+1, v.Self, false
	n.Promises, n.Restore = nil, nil
	if !v.without(WithoutClearing) {
		n.Drain = nil
	}
	n.Reason = reason
	if n.Lost != nil && n.Lost.Node == v.Self {
		n.Lost = nil // it was made anew since, or could not win
	}
	n.History = append(n.History, cluster.Branch{
		Epoch: n.Epoch, Parent: at.Epoch, Leader: v.Self,
		Timeline: t.NextTimeline(), ForkLSN: at.LSN, Nonce: v.Nonce,
	})
	if v.without(WithoutOpening) { // waits for those who were counted, at once
		n.Open, n.LastOpenLeader, n.Sync = true, v.me(), nil
		for _, p := range t.Promises {
			if m, ok := t.SyncNamed(p.Node); ok && p.Node != v.Self {
				n.Sync = append(n.Sync, m)
			}
		}
		n.K = min(1, len(n.Sync))
	}
	return n
}

// opened admits clients: commits wait for k of members (none: the leader
// commits alone).
func opened(v *View, members []cluster.Member, k int) *cluster.Term {
	n := v.Store.Term.Clone()
	n.Open, n.LastOpenLeader = true, v.me()
	n.Promises = nil
	if !v.without(WithoutClearing) {
		n.Drain = nil
	}
	n.Sync, n.K = members, min(k, len(members))
	n.WantK, n.Durability = v.Spec.WantK, v.Spec.Durability
	i := len(n.History) - 1
	if v.Local.Fork != 0 && v.Local.Fork < n.History[i].ForkLSN {
		n.History[i].ForkLSN = v.Local.Fork
	}
	return n
}

// resynced replaces who is waited for.
func resynced(t *cluster.Term, members []cluster.Member, k int, reason string) *cluster.Term {
	n := t.Clone()
	n.Sync = slices.Clone(members)
	slices.SortFunc(n.Sync, func(a, b cluster.Member) int { return cmp(a.Name, b.Name) })
	n.K = min(k, len(members))
	n.Reason = reason
	return n
}

// restored is the epoch that begins where the recovery of a restore ended. Who
// was waited for has WAL that may lie past that point, and the leader's directory
// is another one: nobody counts before he is certified.
func restored(v *View) *cluster.Term {
	t := v.Store.Term
	n := won(v, v.Local.WAL, "restored to "+t.Restore.To()+" from backup "+t.Restore.Set)
	n.Sync, n.K, n.LastOpenLeader = nil, 0, v.me()
	n.History[len(n.History)-1].Restored = t.Restore.ID
	return n
}

// unordered withdraws the order of a restore; all else stays, and the ordinary
// rules decide who leads on.
func unordered(t *cluster.Term, by string) *cluster.Term {
	n := t.Clone()
	n.Restore = nil
	n.Reason = "the restore was undone"
	if by != "" {
		n.Reason += " by " + by
	}
	return n
}
