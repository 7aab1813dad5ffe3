package decide

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"manada/internal/cluster"
)

// anyDrain is an announcement in the record, perhaps of another epoch or run.
func anyDrain(t *rapid.T, epoch uint64) *cluster.Drain {
	return &cluster.Drain{ID: rapid.SampledFrom([]string{"d1", "d1", "d1", "d2"}).Draw(t, "drain"), To: rapid.SampledFrom([]string{"b", "c"}).Draw(t, "to"),
		Epoch: epoch - uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "ago")), Hold: rapid.Bool().Draw(t, "hold"), HoldMS: 1000}
}

// draining: a leader on its way to hand over.
func draining(t *rapid.T, v *View) {
	term, d := v.Store.Term, &v.Local.Drain
	term.Open, term.Restore, v.Local.Restore = true, nil, LocalRestore{}
	term.LastOpenLeader, term.Promises = v.me(), nil
	age := func(what string) time.Duration {
		return rapid.SampledFrom([]time.Duration{0, 1, 200 * time.Millisecond, time.Second, 1100 * time.Millisecond, 1300 * time.Millisecond, 5 * time.Second, time.Minute}).Draw(t, what)
	}
	*d = LocalDrain{ID: "d1", To: rapid.SampledFrom([]string{"b", "c"}).Draw(t, "heir"), Request: "r", Hold: rapid.Bool().Draw(t, "holds"),
		Age: age("since"), HoldAge: age("hold since"), HeldFor: age("held"), Looked: age("looked"), Oldest: age("oldest"),
		Open: rapid.SampledFrom([]int{0, 0, 3}).Draw(t, "under way"), InCommit: rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "in commit")}
	if rapid.IntRange(0, 4).Draw(t, "preparing") == 0 {
		*d = LocalDrain{ID: "d1", To: d.To, Request: "r", Preparing: true, Looked: time.Hour}
	}
	if rapid.IntRange(0, 2).Draw(t, "unheld") == 0 {
		d.Unheld, d.HeldFor = []string{"p"}, 0
	}
	if rapid.IntRange(0, 5).Draw(t, "announced") > 0 {
		term.Drain = anyDrain(t, term.Epoch)
		if rapid.IntRange(0, 3).Draw(t, "as it was") > 0 {
			term.Drain = &cluster.Drain{ID: d.ID, Epoch: term.Epoch, To: d.To, Hold: d.Hold, HoldMS: 1000}
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "asked") > 0 {
		v.Store.Request = &Request{ID: "r", Kind: "switchover", To: d.To, Tried: true}
	}
	for i := range v.Local.Senders { // mostly it could
		v.Local.Senders[i].Stranger = ""
		v.Local.Senders[i].Flush = min(v.Local.Senders[i].Flush, v.Local.WAL.LSN)
	}
	v.Local.Impostor, v.Local.Lie = "", ""
}

// While the checkpoint before a switchover is under way a leader does what it would
// do without.
func TestACheckpointHoldsNothingUp(t *testing.T) {
	gen, noticed, steps := anyView(), false, 0
	for i := range 60000 {
		v := gen.Example(i)
		if !v.Local.Drain.Preparing || v.Store.Term.Drain != nil {
			continue
		}
		text := func() string { return fmt.Sprint(Decide(v).Actions) }
		got := text()
		v.Without = WithoutDuties
		mutant := text()
		v.Without, v.Local.Drain, v.Store.Request = 0, LocalDrain{}, nil
		want := text()
		if got != want {
			t.Fatalf("view %d: %s, without the switchover %s", i, got, want)
		}
		noticed = noticed || mutant != want
		if want != "[]" {
			steps++
		}
	}
	if !noticed || steps < 20 {
		t.Fatalf("%d views with a step, the mutant noticed: %v", steps, noticed)
	}
}

// unsafeDrain: only the leader of an open epoch announces a switchover, goes on
// with it or withdraws it, and nothing else with it; the next epoch has none.
func unsafeDrain(v *View, n *cluster.Term) string {
	t, l := v.Store.Term, &v.Local
	was, is := t.Drain, n.Drain
	switch {
	case n.Epoch != t.Epoch || n.Open != t.Open || n.Restore != nil && t.Restore == nil:
		if is != nil {
			return "a drain outlives what it announced"
		}
		return ""
	case was == nil && is == nil || was != nil && is != nil && *was == *is:
		return ""
	case t.Leader != v.Self || !t.Open || l.Leads != t.Epoch:
		return "only who leads drains"
	case !slices.Equal(n.Sync, t.Sync) || n.K != t.K || !slices.Equal(n.Promises, t.Promises) || n.LastOpenLeader != t.LastOpenLeader:
		return "a drain changes nothing else"
	case is == nil:
		return ""
	case is.ID != l.Drain.ID || is.ID == "" || is.Epoch != t.Epoch || is.To != l.Drain.To:
		return "it is not what this run began"
	case is.Hold && !l.Drain.Hold && l.Drain.Age < v.Spec.Drain.For-v.Spec.Drain.Hold && (l.Drain.Oldest > v.Spec.Drain.Soft || l.Drain.Looked >= l.Drain.Age):
		return "an old transaction could still be waited for at no cost"
	}
	return ""
}

// unsafeHandOver: the stop comes when nothing is under way, or late enough.
func unsafeHandOver(v *View, a Action) string {
	t, l, s := v.Store.Term, &v.Local.Drain, v.Spec.Drain
	if a.Request == "" {
		return "" // what was released falsely does not wait
	}
	if d := t.Draining(); d == nil || d.ID != l.ID || !d.Hold || !l.Hold || d.To != a.To {
		return "it was not announced"
	}
	over := l.Looked < l.HoldAge-s.Hold
	switch {
	case l.HoldAge >= s.Hold+250*time.Millisecond:
	case l.InCommit > 0:
		return "the stop interrupts a COMMIT"
	case !over && (len(l.Unheld) > 0 || l.Looked >= l.HeldFor):
		return "it goes on before the proxies answered"
	case !over && l.Open > 0:
		return "a transaction could still end"
	}
	return ""
}
