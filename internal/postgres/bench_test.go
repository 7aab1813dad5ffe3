package postgres

import (
	"testing"
	"time"
)

// An observation is made ten times a second for ever.
func TestObserveIsCheap(t *testing.T) {
	a := leader(t, "a")
	a.observe()
	best := time.Hour
	for range 20 {
		begun := time.Now()
		a.observe()
		best = min(best, time.Since(begun))
	}
	t.Log("best of 20:", best)
	if best > 50*time.Millisecond {
		t.Errorf("an observation takes %s", best)
	}
}
