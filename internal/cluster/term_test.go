package cluster

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func sampleTerm() *Term {
	return &Term{
		SystemID: "1", Epoch: 4, Leader: "c", Open: true, K: 1, WantK: 2, Durability: Quorum,
		Sync:     []Member{{"a", "ia"}, {"b", "ib"}},
		Promises: []Promise{{Node: "a", Instance: "ia", Epoch: 4, WALEpoch: 2, LSN: 0x210, For: "b"}},
		// e3 was won and never promoted: e4 forks from e2.
		History: []Branch{
			{Epoch: 1, Leader: "a", Timeline: 1, Nonce: "n1"},
			{Epoch: 2, Parent: 1, Leader: "b", Timeline: 2, ForkLSN: 0x100, Nonce: "n2"},
			{Epoch: 3, Parent: 2, Leader: "a", Timeline: 3, ForkLSN: 0x180, Nonce: "n3"},
			{Epoch: 4, Parent: 2, Leader: "c", Timeline: 4, ForkLSN: 0x200, Nonce: "n4"},
		},
		LastOpenLeader: Member{"c", "ic"},
		Lost:           &Lost{Node: "a", From: 0x300},
		Restore:        &Restore{ID: "r1", Type: "time", Target: "2026-11-22 14:30:00+00", Timeline: 4, Set: "20261122-030000F"},
		Drain:          &Drain{ID: "d1", Epoch: 4, To: "a", SoftMS: 300, HoldMS: 1000, ForMS: 5000},
	}
}

func TestCloneSharesNothing(t *testing.T) {
	a := sampleTerm()
	b := a.Clone()
	if d := cmp.Diff(a, b); d != "" {
		t.Fatalf("a clone differs:\n%s", d)
	}
	b.Sync[0].Name, b.Promises[0].Node, b.History[0].Leader, b.Lost.Node = "x", "x", "x", "x"
	b.Restore.Touched, b.Drain.Hold = true, true
	if d := cmp.Diff(sampleTerm(), a); d != "" {
		t.Fatalf("changing the clone changed the original:\n%s", d)
	}
	if (*Term)(nil).Clone() != nil {
		t.Fatal("the clone of no term is a term")
	}
}

func TestDrainOfAnotherEpochIsVoid(t *testing.T) {
	a := sampleTerm()
	if d := a.Draining(); d == nil || d.ID != "d1" {
		t.Fatalf("in force: %+v", d)
	}
	a.Open = false
	if d := a.Draining(); d != nil {
		t.Fatalf("in an epoch that is not open: %+v", d)
	}
	a.Open, a.Epoch = true, 5
	if d := a.Draining(); d != nil {
		t.Fatalf("of epoch 4 in epoch 5: %+v", d)
	}
	if (*Term)(nil).Draining() != nil {
		t.Fatal("a drain of no term")
	}
}

func TestTermAsJSON(t *testing.T) {
	a := sampleTerm()
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var b Term
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, &b); d != "" {
		t.Fatalf("read back:\n%s", d)
	}
}

func TestDivergence(t *testing.T) {
	for _, c := range []struct {
		why  string
		p    Position
		want LSN
	}{
		{"the current epoch itself", Position{4, 0x250}, 0x250},
		{"past the fork of the next epoch", Position{2, 0x230}, 0x200},
		{"before it", Position{2, 0x190}, 0x190},
		{"an older ancestor", Position{1, 0x130}, 0x100},
		{"an epoch beside the line leaves it at its own fork", Position{3, 0x190}, 0x180},
		{"an epoch that is not known", Position{9, 0x999}, 0x200},
		{"nothing known at all", Position{}, 0x200},
	} {
		if got := sampleTerm().Divergence(c.p); got != c.want {
			t.Errorf("%s: %v diverges at %s, want %s", c.why, c.p, got, c.want)
		}
	}
}

func TestLookups(t *testing.T) {
	a := sampleTerm()
	if a.Current().Nonce != "n4" || a.NextTimeline() != 5 {
		t.Errorf("current %+v, next timeline %d", a.Current(), a.NextTimeline())
	}
	if e, ok := a.EpochOf(3); !ok || e != 3 {
		t.Errorf("timeline 3 is of epoch %d, %v", e, ok)
	}
	if _, ok := a.EpochOf(9); ok {
		t.Error("timeline 9 was never allocated")
	}
	if a.InSync(Member{"a", "other"}) || !a.InSync(Member{"a", "ia"}) {
		t.Error("a member is a name and a directory (H3)")
	}
	if _, ok := a.SyncNamed("c"); ok {
		t.Error("c is not in sync")
	}
	if p, ok := a.PromiseOf("a"); !ok || p.Position() != (Position{2, 0x210}) {
		t.Errorf("promise of a: %+v, %v", p, ok)
	}
}

// Needed is never 0: a k beyond |sync| must not let anybody win (H7).
func TestNeeded(t *testing.T) {
	m := []Member{{"a", ""}, {"b", ""}, {"c", ""}}
	for _, c := range []struct{ n, k, want int }{
		{0, 0, 1}, {0, 1, 1}, {1, 1, 1}, {1, 2, 1}, {2, 1, 2}, {2, 2, 1}, {3, 1, 3}, {3, 2, 2}, {3, 3, 1},
	} {
		if got := (&Term{Sync: m[:c.n], K: c.k}).Needed(); got != c.want {
			t.Errorf("|sync| %d, k %d: %d promises needed, want %d", c.n, c.k, got, c.want)
		}
	}
}

func TestWALEpoch(t *testing.T) {
	a := sampleTerm()
	for _, c := range []struct {
		tl   Timeline
		lsn  LSN
		want uint64
	}{
		{1, 0x50, 1}, {1, 0x500, 1}, // of a timeline's own tail nobody can say that it is over
		{2, 0x101, 2}, {2, 0x100, 1}, {2, 0x50, 1},
		{4, 0x201, 4}, {4, 0x200, 2}, {4, 0x101, 2}, {4, 0x100, 1},
		{3, 0x181, 3}, {3, 0x180, 2},
		{9, 0x50, 0},
	} {
		if got, ok := a.WALEpoch(c.tl, c.lsn); got != c.want || ok != (c.want != 0) {
			t.Errorf("timeline %d at %s: epoch %d, %v; want %d", c.tl, c.lsn, got, ok, c.want)
		}
	}
}

func TestIsPrefix(t *testing.T) {
	a := sampleTerm()
	for _, c := range []struct {
		at    Position
		epoch uint64
		want  bool
	}{
		{Position{4, 0x999}, 4, true},
		{Position{2, 0x200}, 4, true}, {Position{2, 0x201}, 4, false},
		{Position{1, 0x100}, 4, true}, {Position{1, 0x101}, 4, false},
		{Position{3, 0x181}, 4, false}, // e3 is no ancestor of e4
		{Position{2, 0x180}, 3, true}, {Position{2, 0x181}, 3, false},
		{Position{4, 0x201}, 2, false}, // nor is a later epoch
		{Position{0, 0x10}, 4, false}, {Position{1, 1}, 9, false},
	} {
		if got := a.IsPrefix(c.at, c.epoch); got != c.want {
			t.Errorf("%+v is a prefix of e%d: %v, want %v", c.at, c.epoch, got, c.want)
		}
	}
}

// A tree of histories as it can come about: every epoch forks from the end of
// some node's log, and that log may be of any earlier epoch. What WALEpoch and
// IsPrefix say from the record alone is compared with the logs themselves.
func TestPrefixAgainstLogs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		term := &Term{}
		logs := map[Timeline][]uint64{} // timeline: the epoch that wrote each byte
		for e := uint64(1); e <= uint64(rapid.IntRange(1, 6).Draw(t, "epochs")); e++ {
			b := Branch{Epoch: e, Timeline: term.NextTimeline()}
			var log []uint64
			if e > 1 {
				from := Timeline(rapid.IntRange(1, int(b.Timeline)-1).Draw(t, "from"))
				end := rapid.IntRange(1, len(logs[from])).Draw(t, "end")
				log = slices.Clone(logs[from][:end])
				b.Parent, b.ForkLSN = log[end-1], LSN(end)
				if got, ok := term.WALEpoch(from, LSN(end)); !ok || got != b.Parent {
					t.Fatalf("timeline %d at %d: epoch %d, written by %d", from, end, got, b.Parent)
				}
			}
			for range rapid.IntRange(1, 4).Draw(t, "wrote") {
				log = append(log, e)
			}
			logs[b.Timeline] = log
			term.History, term.Epoch = append(term.History, b), e
		}
		for tl, log := range logs {
			for end := 1; end <= len(log); end++ {
				at := Position{LSN: LSN(end)}
				at.Epoch, _ = term.WALEpoch(tl, at.LSN)
				for _, b := range term.History {
					want := end <= len(logs[b.Timeline]) && slices.Equal(log[:end], logs[b.Timeline][:end])
					if got := term.IsPrefix(at, b.Epoch); got != want {
						t.Fatalf("timeline %d up to %d (%+v): prefix of e%d %v, the logs say %v; history %+v", tl, end, at, b.Epoch, got, want, term.History)
					}
				}
			}
		}
	})
}

func TestLine(t *testing.T) {
	a := sampleTerm()
	// e3 was won and never promoted: it is on nobody's line but its own.
	want := []Stretch{{Timeline: 4}, {Timeline: 2, End: 0x200}, {Timeline: 1, End: 0x100}}
	if d := cmp.Diff(want, a.Line(4)); d != "" {
		t.Errorf("the line of timeline 4:\n%s", d)
	}
	if a.Line(9) != nil {
		t.Error("timeline 9 was never allocated")
	}
}

func TestRestoreOrders(t *testing.T) {
	r := sampleTerm().Restore
	o := *r
	o.ID, o.By, o.Touched = "r2", "somebody", true
	if !r.Same(&o) {
		t.Error("the same wish, typed again, is another")
	}
	if o.Target = "2026-11-22 14:31:00+00"; r.Same(&o) {
		t.Error("another time is the same wish")
	}
	a := sampleTerm()
	a.History[1].Restored = "r1"
	if b, ok := a.RestoredBy("r1"); !ok || b.Epoch != 2 {
		t.Errorf("r1 began %+v", b)
	}
	if _, ok := a.RestoredBy(""); ok {
		t.Error("no order began an epoch")
	}
}
