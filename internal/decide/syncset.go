package decide

import (
	"fmt"
	"slices"
	"strings"

	"manada/internal/cluster"
)

// syncSet keeps who is waited for. The invariant is over history: every
// acknowledged commit has been flushed by at least k members of sync (C2).
// So a change that narrows what a takeover must hear goes to PostgreSQL first
// and into the term only when k' of the remaining members have flushed past a
// position taken after it was in force; a change that widens goes into the
// term first. One change at a time.
func syncSet(v *View) (Decision, bool) {
	t := v.Store.Term
	if t.Durability != v.Spec.Durability && v.Store.Reachable {
		// It changes nobody's rules: this leader goes by its own. Who looks is told.
		n := resynced(t, t.Sync, t.K, fmt.Sprintf("durability is %s from now on", v.Spec.Durability))
		n.Durability = v.Spec.Durability
		return do(Action{Verb: Swap, Term: n, Note: "durability"}, "%s", n.Reason), true
	}
	if v.Spec.Durability == cluster.Async {
		if t.K > 0 { // a widening: the term first
			n := resynced(t, nil, 0, "asynchronous from now on: commits are safe on "+v.Self+" alone")
			return do(Action{Verb: Swap, Term: n, Note: "degraded"}, "%s", n.Reason), true
		}
		return render(v, cluster.CommitAlone(), "asynchronous")
	}
	if t.K == 0 {
		return fromNothing(v)
	}
	return maintain(v)
}

// eligible are the nodes that may be waited for: they present the certificate,
// show the epoch's control row replayed, stream under the certified name, may
// lead, and have promised nothing.
func eligible(v *View) []cluster.Member {
	t := v.Store.Term
	nonce := t.Current().Nonce
	var out []cluster.Member
	for _, p := range v.Peers {
		s, streams := v.sender(p.Node, t.Epoch)
		if !streams || s.State != "streaming" || !v.fresh(p) || p.Instance == "" || !p.MayLead {
			continue
		}
		if p.Frozen >= t.Epoch {
			continue
		}
		if (p.Certified != t.Epoch || p.ControlNonce != nonce) && !v.without(WithoutCertificate) {
			continue
		}
		out = append(out, cluster.Member{Name: p.Node, Instance: p.Instance})
	}
	return out
}

// render asks for a setting unless it stands.
func render(v *View, s cluster.SyncSetting, why string) (Decision, bool) {
	if v.Local.Sync.Setting.Equal(s) {
		return Decision{}, false
	}
	return do(Action{Verb: SetSync, Sync: s}, "synchronous_standby_names: %s", why), true
}

// enforce makes sure that a setting is in force in every process before what
// follows is counted: it is rendered, the walsenders that may still apply a
// smaller k are ended (H4: each has its own copy), and only then the position
// is taken from which on it was obeyed. A commit that an old walsender released
// lies before it. An agent that was started again knows no position and begins
// anew.
func enforce(v *View, s cluster.SyncSetting, why string) (Decision, bool) {
	l := &v.Local.Sync
	switch {
	case !l.Setting.Equal(s):
		return do(Action{Verb: SetSync, Sync: s}, "synchronous_standby_names: %s", why), true
	case len(l.Old) > 0:
		return do(Action{Verb: EndSenders, PIDs: l.Old}, "ending walsenders that may still count fewer standbys"), true
	case l.Since == 0:
		return do(Action{Verb: SetSync, Sync: s}, "synchronous_standby_names: %s; from when on is it obeyed?", why), true
	}
	return Decision{}, false
}

// waitFor is the setting that waits for k of the members. What strict
// durability wants beyond the k of the term goes into PostgreSQL only (H7).
func waitFor(v *View, k int, ms []cluster.Member) cluster.SyncSetting {
	names := make([]string, len(ms))
	for i, m := range ms {
		names[i] = m.Name
	}
	if v.Spec.Durability == cluster.Strict {
		k = max(k, v.Spec.WantK)
	}
	return cluster.WaitFor(k, v.Store.Term.Epoch, names...)
}

// flushed counts the members that have flushed what was written after the
// present setting was in force.
func flushed(v *View, ms []cluster.Member) int {
	n := 0
	for _, m := range ms {
		s, ok := v.sender(m.Name, v.Store.Term.Epoch)
		if ok && s.Flush >= v.Local.Sync.Since && v.Local.Sync.Since != 0 && !slices.Contains(v.Local.Sync.Old, s.PID) {
			n++
		}
	}
	if v.without(WithoutNarrowingFlush) {
		return len(ms)
	}
	return n
}

// fromNothing: the term says k = 0. Commit alone, or bring standbys in: first
// the placeholder, then a probe commit seen waiting, then the names (C5), and
// the term when they have flushed what came after.
func fromNothing(v *View) (Decision, bool) {
	l := &v.Local
	ready := eligible(v)
	if len(ready) == 0 {
		if v.Spec.Durability == cluster.Strict {
			return render(v, cluster.HoldCommits(), "no standby, durability strict: writes wait")
		}
		return render(v, cluster.CommitAlone(), "no standby is certified, the term says k = 0")
	}
	k := min(v.Spec.WantK, len(ready))
	want := waitFor(v, k, ready)
	switch {
	case l.Sync.Setting.Alone || !l.Sync.Proved && !l.Sync.Setting.IsHold():
		return render(v, cluster.HoldCommits(), "a standby is ready: holding commits for a moment")
	case !l.Sync.Proved:
		return do(Action{Verb: Probe}, "proving that commits wait"), true
	case l.Sync.Setting.IsHold() && l.Sync.Since == 0:
		// A walsender that has not come to the placeholder yet may still apply
		// names with a smaller k from before (H4).
		return enforce(v, cluster.HoldCommits(), "holding commits until every walsender follows")
	}
	if d, ok := enforce(v, want, "waiting for "+list(ready)); ok {
		return d, true
	}
	if flushed(v, ready) < k {
		return wait("waiting until %d of %s flushed what came after the change", k, list(ready)), true
	}
	n := resynced(v.Store.Term, ready, k, "durability restored: commits wait for "+list(ready))
	return do(Action{Verb: Swap, Term: n, Note: "durability_restored"}, "%s", n.Reason), true
}

// maintain: the term says k >= 1.
func maintain(v *View) (Decision, bool) {
	t := v.Store.Term
	here, gone := split(v)
	switch {
	case len(here) < t.K && v.Spec.Durability == cluster.Strict:
		return substitute(v, here, gone)
	case len(here) < t.K:
		return degrade(v, here, gone)
	case len(gone) > 0:
		return narrow(v, gone[0])
	}
	if d, ok := widen(v); ok {
		return d, true
	}
	if t.K < min(v.Spec.WantK, len(t.Sync)) {
		return raise(v)
	}
	return render(v, waitFor(v, t.K, t.Sync), "as the term says")
}

// split tells the members of sync that are there from those that have been
// away for longer than the time-out, are another directory by now, or say that
// they may not lead any more (M4: their host is being stopped).
func split(v *View) (here, gone []cluster.Member) {
	for _, m := range v.Store.Term.Sync {
		p, known := v.peer(m.Name)
		away := !known || p.UnseenFor >= v.Spec.DegradeAfter
		remade := known && v.fresh(p) && p.Instance != "" && p.Instance != m.Instance
		barred := known && v.fresh(p) && !p.MayLead
		if away || remade || barred {
			gone = append(gone, m)
		} else {
			here = append(here, m)
		}
	}
	return here, gone
}

// degrade lowers k: a widening, so the term first. If a takeover won the race
// the swap fails and this primary steps down. PostgreSQL follows in a later
// step, when the swap is known to have succeeded.
func degrade(v *View, here, gone []cluster.Member) (Decision, bool) {
	t := v.Store.Term
	if v.without(WithoutSwapFirst) && !v.Local.Sync.Setting.Alone {
		return render(v, cluster.CommitAlone(), "degrading")
	}
	if !v.Store.Reachable && !v.without(WithoutSwapFirst) {
		return wait("%s away and the store does not answer: writes wait", list(gone)), true
	}
	reason := "degraded: " + list(gone) + " away, commits are safe on " + v.Self + " alone"
	n := resynced(t, nil, 0, reason)
	if len(here) > 0 {
		reason = "fewer standbys: " + list(gone) + " away"
		n = resynced(t, t.Sync, len(here), reason)
	}
	return do(Action{Verb: Swap, Term: n, Note: "degraded"}, "%s", reason), true
}

// substitute: durability strict never lowers k, but others may take the places
// of the members that are gone: another node by the widening rule, a directory
// that was made anew under the same name once it has flushed all that was
// acknowledged. For the latter nothing is acknowledged meanwhile: the name says
// nothing about the directory that bears it.
func substitute(v *View, here, gone []cluster.Member) (Decision, bool) {
	t := v.Store.Term
	if d, ok := widen(v); ok {
		return d, true
	}
	rest := slices.Clone(here)
	for _, m := range eligible(v) {
		if slices.ContainsFunc(gone, func(g cluster.Member) bool { return g.Name == m.Name && g.Instance != m.Instance }) {
			rest = append(rest, m)
		}
	}
	if len(rest) < t.K {
		return wait("%s away, durability strict: writes wait", list(gone)), true
	}
	if d, ok := enforce(v, cluster.HoldCommits(), "a standby was made anew: holding commits until it has them all"); ok {
		return d, true
	}
	if flushed(v, rest) < t.K {
		return wait("waiting until %d of %s have all that was acknowledged", t.K, list(rest)), true
	}
	n := resynced(t, rest, t.K, list(rest)+" are the synchronous standbys")
	return do(Action{Verb: Swap, Term: n, Note: "narrow"}, "%s", n.Reason), true
}

// narrow takes one name out: PostgreSQL first, the term when k of the
// remaining members have flushed past a position taken after that (C2).
func narrow(v *View, out cluster.Member) (Decision, bool) {
	t := v.Store.Term
	rest := slices.DeleteFunc(slices.Clone(t.Sync), func(m cluster.Member) bool { return m == out })
	if d, ok := enforce(v, waitFor(v, t.K, rest), out.Name+" is away"); ok {
		return d, true
	}
	if flushed(v, rest) < t.K {
		return wait("%s is away; waiting until %d of %s have all that was acknowledged", out.Name, t.K, list(rest)), true
	}
	n := resynced(t, rest, t.K, out.Name+" left the synchronous standbys")
	return do(Action{Verb: Swap, Term: n, Note: "narrow"}, "%s", n.Reason), true
}

// widen adds a certified standby: the term first, PostgreSQL after.
func widen(v *View) (Decision, bool) {
	t := v.Store.Term
	for _, m := range eligible(v) {
		if _, listed := t.SyncNamed(m.Name); listed {
			continue
		}
		n := resynced(t, append(slices.Clone(t.Sync), m), t.K, m.Name+" joined the synchronous standbys")
		return do(Action{Verb: Swap, Term: n, Note: "widen"}, "%s", n.Reason), true
	}
	return Decision{}, false
}

// raise adds one to k: PostgreSQL first, in every walsender (H4); then the
// term, when k+1 have flushed what came after.
func raise(v *View) (Decision, bool) {
	t := v.Store.Term
	k := t.K + 1
	if d, ok := enforce(v, waitFor(v, k, t.Sync), "waiting for one standby more"); ok {
		return d, true
	}
	if flushed(v, t.Sync) < k {
		return wait("waiting until %d of %s flushed what came after the change", k, list(t.Sync)), true
	}
	n := resynced(t, t.Sync, k, "commits wait for one standby more")
	return do(Action{Verb: Swap, Term: n, Note: "raise"}, "%s", n.Reason), true
}

func list(ms []cluster.Member) string {
	names := make([]string, len(ms))
	for i, m := range ms {
		names[i] = m.Name
	}
	return strings.Join(names, ", ")
}
