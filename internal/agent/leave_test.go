package agent

import (
	"testing"
	"time"

	"manada/internal/peer"
)

// TestDeserted: a host that is stopped goes on waiting for its last word to be
// kept while the store or any other host is there.
func TestDeserted(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name         string
		store, other time.Duration // since when they are silent
		want         bool
	}{
		{"all is there", 0, 0, false},
		{"the store is silent", 3 * time.Second, 0, false},
		{"the others are silent, the store is not", 0, 3 * time.Second, false},
		{"not for long", 1900 * time.Millisecond, 3 * time.Second, false},
		{"the other for not so long", 3 * time.Second, 1900 * time.Millisecond, false},
		{"nobody", 3 * time.Second, 3 * time.Second, true},
	} {
		a := leading(t)
		a.rec.snap.Sent = now.Add(-c.store)
		heard := map[string]peer.Heard{"master": {At: now}, "slave": {At: now.Add(-c.other)}, "backup": {}}
		if got := a.deserted(now, heard); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
