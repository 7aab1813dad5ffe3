package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func highWater(t *testing.T, path string) *HighWater {
	t.Helper()
	h, err := OpenHighWater(path)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestC6_HighWater: every way in which a store goes back is noticed, also after
// a restart of this process.
func TestC6_HighWater(t *testing.T) {
	for name, goBack := range map[string]func(t *testing.T, m *Memory, s Store, old Saved){
		"older epoch":           func(t *testing.T, m *Memory, s Store, old Saved) { m.Restore(old, false) },
		"backup of etcd":        func(t *testing.T, m *Memory, s Store, old Saved) { m.Restore(old, true) },
		"empty store":           func(t *testing.T, m *Memory, s Store, old Saved) { m.Wipe() },
		"empty store, used":     func(t *testing.T, m *Memory, s Store, old Saved) { m.Wipe(); refill(t, s, 1) },
		"same epoch, older rev": func(t *testing.T, m *Memory, s Store, old Saved) { m.Restore(old, false); refill(t, s, 8) },
	} {
		t.Run(name, func(t *testing.T) {
			m, ctx, path := NewMemory(), t.Context(), filepath.Join(t.TempDir(), "highwater.json")
			s := client(t, m, "a")
			h := highWater(t, path)
			rev := write[int64](t)(s.Create(ctx, testTerm(7)))
			old := m.Save()
			if err := h.Observe(write[Snapshot](t)(s.Read(ctx))); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				rev = write[int64](t)(s.Touch(ctx, rev))
			}
			write[int64](t)(s.Swap(ctx, rev, testTerm(8)))
			if err := h.Observe(write[Snapshot](t)(s.Read(ctx))); err != nil {
				t.Fatal(err)
			}
			goBack(t, m, s, old)
			now := write[Snapshot](t)(s.Read(ctx))
			for _, h := range []*HighWater{h, highWater(t, path)} {
				if err := h.Observe(now); !errors.Is(err, ErrRolledBack) {
					t.Fatalf("epoch %d rev %d of store %x: got %v", epochOf(now), now.TermRev, now.StoreID, err)
				}
			}
		})
	}
}

func refill(t *testing.T, s Store, epoch uint64) {
	t.Helper()
	ctx := t.Context()
	snap := write[Snapshot](t)(s.Read(ctx))
	if snap.TermRev == 0 {
		write[int64](t)(s.Create(ctx, testTerm(epoch)))
		return
	}
	write[int64](t)(s.Swap(ctx, snap.TermRev, testTerm(epoch)))
}

func TestHighWaterLetsLateAnswersPass(t *testing.T) {
	m, ctx := NewMemory(), t.Context()
	s, h := client(t, m, "a"), highWater(t, filepath.Join(t.TempDir(), "h"))
	rev := write[int64](t)(s.Create(ctx, testTerm(1)))
	late := write[Snapshot](t)(s.Read(ctx))
	write[int64](t)(s.Swap(ctx, rev, testTerm(2)))
	newest := write[Snapshot](t)(s.Read(ctx))
	if err := h.Observe(newest); err != nil {
		t.Fatal(err)
	}
	if err := h.Observe(late); err != nil { // it overtook, nothing went back
		t.Fatal(err)
	}
	if got := h.Marks(); got.Epoch != 2 || got.TermRev != newest.TermRev {
		t.Fatalf("a late answer lowered the marks to %+v", got)
	}
	late.Sent = time.Now() // the same content, asked for now: that is a rollback
	if err := h.Check(late); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("got %v", err)
	}
}

func TestHighWaterObeyAndAdopt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h")
	h := highWater(t, path)
	if err := h.Obey(5, 100); err != nil {
		t.Fatal(err)
	}
	h = highWater(t, path)
	if got := h.Marks(); got.Epoch != 5 || got.TermRev != 100 {
		t.Fatalf("after a restart: %+v", got)
	}
	recovered := Snapshot{Term: testTerm(6), TermRev: 3, StoreRev: 3, StoreID: 9, Sent: time.Now()}
	if err := h.Check(recovered); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("got %v", err)
	}
	if err := h.Adopt(Snapshot{Term: testTerm(4), StoreID: 9}); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("adopting an older epoch: %v", err)
	}
	if err := h.Adopt(recovered); err != nil {
		t.Fatal(err)
	}
	if err := highWater(t, path).Check(recovered); err != nil {
		t.Fatal(err)
	}
}

func TestHighWaterNeverGuesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHighWater(path); err == nil {
		t.Fatal("a broken file was taken for an empty one")
	}
}

func TestHighWaterWritesSparingly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h")
	h := highWater(t, path)
	at := time.Now()
	observe := func(rev int64, d time.Duration) {
		t.Helper()
		s := Snapshot{Term: testTerm(1), TermRev: 2, StoreRev: rev, StoreID: 1, Sent: at.Add(d), Received: at.Add(d)}
		if err := h.Observe(s); err != nil {
			t.Fatal(err)
		}
	}
	observe(2, 0)
	observe(3, time.Second)
	if got := highWater(t, path).Marks().StoreRev; got != 2 {
		t.Fatalf("a renewal was written to disk: revision %d", got)
	}
	observe(4, revPersist+time.Second)
	if got := highWater(t, path).Marks().StoreRev; got != 4 {
		t.Fatalf("revision %d on disk", got)
	}
}
