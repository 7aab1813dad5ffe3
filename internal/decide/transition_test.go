package decide

import (
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"manada/internal/cluster"
)

func termForTests() *cluster.Term {
	return &cluster.Term{
		SystemID: "1", Epoch: 2, Leader: "a", Open: true, K: 1, WantK: 1, Durability: cluster.Quorum,
		Sync:           []cluster.Member{{Name: "b", Instance: "i-b"}, {Name: "c", Instance: "i-c"}},
		Promises:       []cluster.Promise{{Node: "c", Instance: "i-c", Epoch: 2, WALEpoch: 2, LSN: 0x180}},
		History:        []cluster.Branch{{Epoch: 1, Leader: "b", Timeline: 1, Nonce: "n1"}, {Epoch: 2, Parent: 1, Leader: "a", Timeline: 5, ForkLSN: 0x100, Nonce: "n2"}},
		LastOpenLeader: cluster.Member{Name: "a", Instance: "i-a"},
	}
}

func viewForTests(t *cluster.Term) *View {
	v := &View{Self: "b", Spec: testSpec(), Nonce: "n3", Store: Store{Term: t, Reachable: true}}
	v.Local.Instance, v.Local.SystemID = "i-b", "1"
	return v
}

// unchanged fails when a transition touched the record that it was given.
func unchanged(t *testing.T, given *cluster.Term) {
	t.Helper()
	if d := diff.Diff(termForTests(), given); d != "" {
		t.Errorf("the given record was changed:\n%s", d)
	}
}

func TestPromisedAndWithdrawn(t *testing.T) {
	old := termForTests()
	p := cluster.Promise{Node: "b", Instance: "i-b", Epoch: 2, WALEpoch: 1, LSN: 0x90}
	n := promised(old, p)
	if len(n.Promises) != 2 || n.Promises[0] != p || n.Promises[1].Node != "c" {
		t.Errorf("promises %+v, want b's and c's in order", n.Promises)
	}
	p.LSN = 0x95
	if n = promised(n, p); len(n.Promises) != 2 || n.Promises[0].LSN != 0x95 {
		t.Errorf("a second promise of b: %+v, want it in the place of the first", n.Promises)
	}
	if n = withdrawn(n, "b"); len(n.Promises) != 1 || n.Promises[0].Node != "c" {
		t.Errorf("after b's withdrawal: %+v", n.Promises)
	}
	if n = withdrawn(n, "b"); len(n.Promises) != 1 { // a change all the same (H1)
		t.Errorf("after another: %+v", n.Promises)
	}
	unchanged(t, old)
}

func TestWon(t *testing.T) {
	old := termForTests()
	n := won(viewForTests(old), cluster.Position{Epoch: 1, LSN: 0x90}, "why")
	want := termForTests()
	want.Epoch, want.Leader, want.Open, want.Promises, want.Reason = 3, "b", false, nil, "why"
	want.History = append(want.History, cluster.Branch{Epoch: 3, Parent: 1, Leader: "b", Timeline: 6, ForkLSN: 0x90, Nonce: "n3"})
	if d := diff.Diff(want, n); d != "" {
		t.Errorf("sync, k and the last open leader stay (C3), the timeline is new (M7):\n%s", d)
	}
	unchanged(t, old)

	old.Lost = &cluster.Lost{Node: "b", From: 0x80}
	if n := won(viewForTests(old), cluster.Position{Epoch: 2, LSN: 0x190}, ""); n.Lost != nil {
		t.Error("what was lost on b is past once b leads again")
	}
	old.Lost.Node = "a"
	if n := won(viewForTests(old), cluster.Position{Epoch: 2, LSN: 0x190}, ""); n.Lost == nil {
		t.Error("what was lost on a is still lost when b leads")
	}
}

func TestOpened(t *testing.T) {
	old := termForTests()
	old.Open = false
	v := viewForTests(old)
	v.Self, v.Local.Instance, v.Spec.WantK = "a", "i-a", 2
	n := opened(v, old.Sync[:1], 2)
	if !n.Open || n.K != 1 || len(n.Sync) != 1 || n.WantK != 2 || n.Promises != nil || n.LastOpenLeader != v.me() {
		t.Errorf("opened: %+v; want k no more than its one member (H7), and no promise left", n)
	}
	if n := opened(v, nil, 1); n.K != 0 || len(n.Sync) != 0 {
		t.Errorf("opened alone: k %d of %v", n.K, n.Sync)
	}
	// PostgreSQL forks where the last whole record ends; the record must not say
	// that more is shared.
	for fork, want := range map[cluster.LSN]cluster.LSN{0: 0x100, 0x100: 0x100, 0x120: 0x100, 0xF0: 0xF0} {
		v.Local.Fork = fork
		if got := opened(v, nil, 0).Current().ForkLSN; got != want {
			t.Errorf("promoted at %s, won at 0/100: fork %s, want %s", fork, got, want)
		}
	}
	if old.History[1].ForkLSN != 0x100 {
		t.Error("the given record was changed")
	}
}

func TestResynced(t *testing.T) {
	old := termForTests()
	given := []cluster.Member{{Name: "d", Instance: "i-d"}, {Name: "b", Instance: "i-b"}}
	n := resynced(old, given, 3, "why")
	if n.K != 2 || n.Sync[0].Name != "b" || n.Sync[1].Name != "d" || given[0].Name != "d" || n.Reason != "why" {
		t.Errorf("%+v; want b and d in order, k no more than 2, and the argument as it was", n)
	}
	if len(n.Promises) != 1 {
		t.Error("a change of sync withdraws nobody's promise")
	}
	unchanged(t, old)
}

func TestFirstTerm(t *testing.T) {
	v := viewForTests(nil)
	n := firstTerm(v)
	if n.Open || n.Epoch != 1 || n.K != 0 || n.SystemID != "1" || n.Leader != "b" || n.Current().Timeline != 1 || n.Current().Nonce != "n3" || n.LastOpenLeader != v.me() {
		t.Errorf("the first record: %+v; want epoch 1, won by b and not open", n)
	}
}
