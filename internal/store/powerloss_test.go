package store

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"manada/internal/durable/durabletest"
)

// TestHighWaterSurvivesPowerLoss: an epoch that is obeyed is known after any
// power loss.
func TestHighWaterSurvivesPowerLoss(t *testing.T) {
	dir := t.TempDir()
	h := highWater(t, filepath.Join(dir, "h"))
	for epoch := uint64(5); epoch < 8; epoch++ {
		was := h.Marks().Epoch
		durabletest.PowerLoss(t, dir, func() error { return h.Obey(epoch, int64(epoch)*10) }, func(l durabletest.Loss) string {
			left, err := OpenHighWater(filepath.Join(l.Dir, "h"))
			if err != nil {
				return err.Error()
			}
			if got := left.Marks().Epoch; got != epoch && (got != was || l.Returned) {
				return "the mark is an older epoch's"
			}
			return ""
		})
	}
}

// TestC6_StoreRevision: a store whose term is the same and whose own revision
// went back has forgotten writes (requests, events, who was removed).
func TestC6_StoreRevision(t *testing.T) {
	h := highWater(t, filepath.Join(t.TempDir(), "h"))
	seen := Snapshot{Term: testTerm(3), TermRev: 10, StoreRev: 20, StoreID: 9, Sent: time.Now(), Received: time.Now()}
	if err := h.Observe(seen); err != nil {
		t.Fatal(err)
	}
	seen.StoreRev, seen.Sent = 19, time.Now()
	if err := h.Observe(seen); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("got %v", err)
	}
}
