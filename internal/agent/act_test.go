package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/store"
)

// withStore gives the agent a store with the record, and reads it.
func withStore(t *testing.T, a *Agent, term *cluster.Term) *store.Memory {
	t.Helper()
	m := store.NewMemory()
	a.store = m.Client("master", "c", 0, 0)
	t.Cleanup(func() { a.store.Close() })
	if _, err := a.store.Create(t.Context(), term); err != nil {
		t.Fatal(err)
	}
	if err := a.readStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (a *Agent) swap(t *testing.T, act decide.Action, change func(*cluster.Term)) error {
	t.Helper()
	v := &decide.View{Self: "master", Store: a.storeView(a.rec.snap.Sent)}
	act.Term = v.Store.Term.Clone()
	change(act.Term)
	return a.change(t.Context(), v, act)
}

func nextEpoch(n *cluster.Term) {
	n.Epoch, n.Open = n.Epoch+1, false
	n.History = append(n.History, cluster.Branch{Epoch: n.Epoch, Parent: n.Epoch - 1, Leader: "master", Timeline: 3, ForkLSN: 0x2000, Nonce: "n3"})
}

// A write whose answer was lost is of unknown outcome, from before it was sent
// until it is settled (H2); one that was certainly not applied is not.
func TestH2_WriteWithoutAnAnswerIsUnsettled(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	m := withStore(t, a, twoEpochs())
	if a.rec.unsettled {
		t.Fatal("unsettled before anything was written")
	}
	m.SetFault(func(c store.Call) store.Fault { return store.Fault{Hold: c.Name == "swap"} })
	err := a.swap(t, decide.Action{Verb: decide.Swap}, func(n *cluster.Term) { n.K, n.Sync = 0, nil })
	if !errors.Is(err, store.ErrUnknown) || !a.rec.unsettled {
		t.Fatalf("%v, unsettled %v", err, a.rec.unsettled)
	}
	m.SetFault(nil)
	if err := a.settle(t.Context()); err != nil || a.rec.unsettled {
		t.Fatalf("settled: %v, unsettled %v", err, a.rec.unsettled)
	}
	if m.Deliver() != 0 {
		t.Fatal("the delayed write was applied after it was settled")
	}
	m.SetFault(func(c store.Call) store.Fault { return store.Fault{Refuse: c.Name == "swap"} })
	if err := a.swap(t, decide.Action{Verb: decide.Swap}, func(n *cluster.Term) { n.K, n.Sync = 0, nil }); err == nil || a.rec.unsettled {
		t.Fatalf("%v, unsettled %v: it never left this process", err, a.rec.unsettled)
	}
}

// An epoch of this node's own making is on its disk when the swap returns (C6).
func TestC6_OwnEpochIsOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "high.json")
	high, err := store.OpenHighWater(path)
	if err != nil {
		t.Fatal(err)
	}
	a := withDisk(t, newTestAgent(t))
	a.high = high
	withStore(t, a, twoEpochs())
	if err := a.swap(t, decide.Action{Verb: decide.Swap, Note: "won"}, nextEpoch); err != nil {
		t.Fatal(err)
	}
	again, err := store.OpenHighWater(path)
	if err != nil || again.Marks().Epoch != 3 || again.Marks().TermRev != a.rec.snap.TermRev {
		t.Fatalf("%+v on disk, %v; obeys epoch 3 at revision %d", again.Marks(), err, a.rec.snap.TermRev)
	}
}

// A promise goes off the disk when it is off the record, not before and not
// later (H3).
func TestH3_WithdrawnPromiseIsOffTheDisk(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	term := twoEpochs()
	term.Promises = []cluster.Promise{{Node: "master", Instance: "m", Epoch: 2, LSN: 0x1500}}
	m := withStore(t, a, term)
	if err := a.db.WritePromise(term.Promises[0]); err != nil {
		t.Fatal(err)
	}
	withdraw := func() error {
		return a.swap(t, decide.Action{Verb: decide.Withdraw}, func(n *cluster.Term) { n.Promises = nil })
	}
	m.SetFault(func(c store.Call) store.Fault { return store.Fault{Refuse: c.Name == "swap"} })
	if err := withdraw(); err == nil {
		t.Fatal("withdrawn without the store")
	}
	if p, err := a.db.Promise(); err != nil || p == nil {
		t.Fatalf("%v, %v: off the disk while it stands in the record", p, err)
	}
	m.SetFault(nil)
	if err := withdraw(); err != nil {
		t.Fatal(err)
	}
	if p, err := a.db.Promise(); err != nil || p != nil {
		t.Fatalf("%v, %v: on the disk after the withdrawal", p, err)
	}
	if a.mem.withdrawals != 1 || a.mem.withdrawnAt.IsZero() {
		t.Errorf("%d withdrawals are remembered", a.mem.withdrawals)
	}
}

// Only the leader of the current epoch may archive (T11).
func TestT11_WhoMayArchive(t *testing.T) {
	for _, c := range []struct {
		what  string
		leads uint64
		edit  func(*cluster.Term)
		may   bool
	}{
		{"the leader", 2, func(*cluster.Term) {}, true},
		{"a standby", 0, func(n *cluster.Term) { n.Leader = "slave" }, false},
		{"a primary that was deposed and does not stop", 2, func(n *cluster.Term) { nextEpoch(n); n.Leader = "slave" }, false},
		{"a leader that won again and still runs as primary of the epoch before", 2, nextEpoch, false},
		{"a leader whose PostgreSQL is no primary", 0, func(*cluster.Term) {}, false},
	} {
		a := newTestAgent(t)
		a.repo = &flakyRepo{}
		term := twoEpochs()
		c.edit(term)
		a.rec.snap.Term, a.mem.leads = term, c.leads
		if err := a.mayArchive(); (err == nil) != c.may {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	a := newTestAgent(t)
	a.rec.snap.Term, a.mem.leads = twoEpochs(), 2
	if a.mayArchive() == nil {
		t.Error("archives without a repository")
	}
}

// A pg_wal that cannot be read is not an empty one: the epoch is not done.
func TestT11_UnreadableWALIsNotDone(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	a.repo = &flakyRepo{}
	a.rec.snap.Term, a.mem.leads = twoEpochs(), 2
	writeControl(t, a, 16<<20)
	if _, err := a.backfill(t.Context(), a.Term()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v: back-filled out of nothing", err)
	}
}

// An order is attempted once, and is there before, meanwhile and after.
func TestOrderIsNeverLost(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	m := withStore(t, a, twoEpochs())
	q := store.Request{ID: "q1", Kind: store.RequestSwitchover, To: "slave", By: "root"}
	if err := a.store.CreateRequest(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	there := func() store.Request {
		s, err := m.Client("look", "c", 0, 0).Read(t.Context())
		if err != nil || len(s.Requests) != 1 || s.Requests[0].By != "root" {
			t.Fatalf("%+v, %v", s.Requests, err)
		}
		return s.Requests[0]
	}
	writes := 0
	m.SetFault(func(c store.Call) store.Fault {
		if c.Write {
			writes++
		}
		return store.Fault{Hold: c.Write && writes == 1}
	})
	act := decide.Action{Verb: decide.Prepare, Request: "q1", To: "slave"}
	if err := a.prepare(t.Context(), act); !errors.Is(err, store.ErrUnknown) {
		t.Fatal(err)
	}
	if there().Options[optionTried] != "" {
		t.Fatal("marked already")
	}
	m.Deliver()
	if there().Options[optionTried] != "true" {
		t.Fatal("not marked")
	}
	if err := a.prepare(t.Context(), act); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "tried already") {
		t.Fatalf("a second attempt: %v", err)
	}
}
