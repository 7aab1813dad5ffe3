package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
)

func testTerm(epoch uint64) *cluster.Term {
	return &cluster.Term{SystemID: "74", Epoch: epoch, Leader: "a", Durability: cluster.Quorum}
}

func client(t *testing.T, m *Memory, name string) Store {
	t.Helper()
	s := m.Client(name, "herd", 30*time.Millisecond, 20*time.Millisecond)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func write[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestH1_DelayedPromise: B's promise is stuck on the way. B gives up, withdraws
// and resumes; the promise arrives afterwards and must not count.
func TestH1_DelayedPromise(t *testing.T) {
	m, ctx := NewMemory(), t.Context()
	b := client(t, m, "b")
	rev := write[int64](t)(b.Create(ctx, testTerm(7)))

	m.SetFault(func(c Call) Fault { return Fault{Hold: c.Name == "swap"} })
	promise := testTerm(7)
	promise.Promises = []cluster.Promise{{Node: "b", Epoch: 7, WALEpoch: 7, LSN: 100}}
	if _, err := b.Swap(ctx, rev, promise); !errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v, want %v", err, ErrUnknown)
	}
	m.SetFault(nil)
	// The withdrawal is a write of the record; that nothing was there to
	// withdraw does not make it needless.
	rev = write[int64](t)(b.Touch(ctx, write[Snapshot](t)(b.Read(ctx)).TermRev))
	if n := m.Deliver(); n != 0 {
		t.Fatalf("%d delayed promises were applied after the withdrawal", n)
	}
	got := write[Snapshot](t)(b.Read(ctx))
	if len(got.Term.Promises) != 0 || got.TermRev != rev {
		t.Fatalf("the record holds a withdrawn promise: %+v", got.Term)
	}
}

// TestH2_UnknownThenTouch: neither a lost request nor a lost answer nor a late
// arrival is mistaken for the other, and Touch settles each of them.
func TestH2_UnknownThenTouch(t *testing.T) {
	for name, tc := range map[string]struct {
		fault   Fault
		applied bool // when Touch is called
	}{
		"request lost":      {Fault{DropRequest: true}, false},
		"answer lost":       {Fault{DropReply: true}, true},
		"request in flight": {Fault{Hold: true}, false},
		"slow":              {Fault{Delay: time.Second}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, ctx := NewMemory(), t.Context()
			s := client(t, m, "a")
			rev := write[int64](t)(s.Create(ctx, testTerm(1)))
			m.SetFault(func(c Call) Fault {
				if c.Name == "swap" {
					return tc.fault
				}
				return Fault{}
			})
			_, err := s.Swap(ctx, rev, testTerm(2))
			if !errors.Is(err, ErrUnknown) || errors.Is(err, ErrConflict) || errors.Is(err, ErrUnreachable) {
				t.Fatalf("got %v, want only %v", err, ErrUnknown)
			}
			m.SetFault(nil)
			snap := write[Snapshot](t)(s.Read(ctx))
			if applied := snap.Term.Epoch == 2; applied != tc.applied {
				t.Fatalf("applied: %v", applied)
			}
			settled := write[int64](t)(s.Touch(ctx, snap.TermRev))
			if n := m.Deliver(); n != 0 {
				t.Fatal("the swap was applied after its outcome was settled")
			}
			after := write[Snapshot](t)(s.Read(ctx))
			if after.Term.Epoch != snap.Term.Epoch || after.TermRev != settled {
				t.Fatalf("epoch %d revision %d after settling epoch %d at %d",
					after.Term.Epoch, after.TermRev, snap.Term.Epoch, settled)
			}
		})
	}
}

// TestH2_ReadAloneDoesNotSettle: why Touch is needed at all.
func TestH2_ReadAloneDoesNotSettle(t *testing.T) {
	m, ctx := NewMemory(), t.Context()
	s := client(t, m, "a")
	rev := write[int64](t)(s.Create(ctx, testTerm(1)))
	m.SetFault(func(c Call) Fault { return Fault{Hold: c.Name == "swap"} })
	_, _ = s.Swap(ctx, rev, testTerm(2))
	if e := write[Snapshot](t)(s.Read(ctx)).Term.Epoch; e != 1 {
		t.Fatalf("epoch %d", e)
	}
	if n := m.Deliver(); n != 1 {
		t.Fatal("the late swap was not applied: the fault injection is broken")
	}
	if e := write[Snapshot](t)(s.Read(ctx)).Term.Epoch; e != 2 {
		t.Fatalf("epoch %d", e)
	}
}

func TestMemoryPartition(t *testing.T) {
	m, ctx := NewMemory(), t.Context()
	a, b := client(t, m, "a"), client(t, m, "b")
	rev := write[int64](t)(a.Create(ctx, testTerm(1)))
	watched := a.Watch(ctx)
	<-watched
	m.Cut("a", true)
	if _, err := a.Swap(ctx, rev, testTerm(2)); !errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	if _, err := a.Status(ctx); err == nil {
		t.Fatal("a partitioned client has a status")
	}
	rev = write[int64](t)(b.Swap(ctx, rev, testTerm(3)))
	select { // a read that was under way before the cut may still be there
	case s := <-watched:
		if s.TermRev == rev {
			t.Fatal("a watch hears through a partition")
		}
	case <-time.After(100 * time.Millisecond):
	}
	m.Cut("a", false)
	deadline := time.After(5 * time.Second)
	for {
		select {
		case s := <-watched:
			if s.TermRev == rev {
				return
			}
		case <-deadline:
			t.Fatal("the watch does not recover")
		}
	}
}

func TestMemoryRefusesAtOnce(t *testing.T) {
	m := NewMemory()
	s := client(t, m, "a")
	m.SetFault(func(Call) Fault { return Fault{Refuse: true} })
	if _, err := s.Create(t.Context(), testTerm(1)); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v", err)
	}
}

// TestTouchKeepsUnknownFields: a newer version's fields survive an older one.
func TestTouchKeepsUnknownFields(t *testing.T) {
	m, ctx := NewMemory(), t.Context()
	s := client(t, m, "a")
	write[int64](t)(s.Create(ctx, testTerm(1)))
	const key = "/manada/herd/term"
	m.mu.Lock()
	value := strings.Replace(string(m.state.keys[key].value), "{", `{"from_the_future":42,`, 1)
	res := m.apply(txn{then: []op{put(key, []byte(value))}})
	m.mu.Unlock()
	write[int64](t)(s.Touch(ctx, res.rev))
	if got := string(m.state.keys[key].value); got != value {
		t.Fatalf("touched to %s", got)
	}
}

// TestWatchSurvivesDeafBell: re-reading finds what a broken watch missed.
func TestWatchSurvivesDeafBell(t *testing.T) {
	m, ctx := NewMemory(), t.Context()
	s := client(t, m, "a")
	ch := s.Watch(ctx)
	<-ch
	m.mu.Lock()
	m.state.keys["/manada/herd/lease"] = pair{key: "/manada/herd/lease", value: []byte(`{"node":"a","epoch":1,"seq":1}`), rev: 2}
	m.state.rev = 2 // behind the bells' back
	m.mu.Unlock()
	deadline := time.After(5 * time.Second)
	for {
		select {
		case s := <-ch:
			if s.Lease != nil {
				return
			}
		case <-deadline:
			t.Fatal("the change was never seen")
		}
	}
}

// TestEventsAreBounded: only the newest thousand stay, and numbers go on.
func TestEventsAreBounded(t *testing.T) {
	m := NewMemory()
	s := m.Client("a", "herd", time.Second, 0)
	defer s.Close()
	ctx := context.Background()
	for range keptEvents + 5 {
		write[int64](t)(s.AppendEvent(ctx, Event{Kind: "promoted"}))
	}
	es := write[[]Event](t)(s.Events(ctx, 0, 0))
	if len(es) != keptEvents || es[0].N != 6 || es[len(es)-1].N != keptEvents+5 {
		t.Fatalf("%d events from %d to %d", len(es), es[0].N, es[len(es)-1].N)
	}
}
