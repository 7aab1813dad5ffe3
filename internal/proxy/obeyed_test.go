package proxy

import (
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/conv"
	"manada/internal/proxy/route"
)

// A drain is obeyed by the proxy's own clock, from when the proxy saw it, and no longer
// than it says and grace.
func TestDrainIsObeyedByOwnClock(t *testing.T) {
	d := func(id string, hold bool) *route.Drain {
		return &route.Drain{Drain: cluster.Drain{ID: id, SoftMS: 300, HoldMS: 1000, ForMS: 5000, Hold: hold}}
	}
	const grace = 2 * time.Second
	var o obeyed
	start := time.Now()
	for _, c := range []struct {
		at    time.Duration
		drain *route.Drain
		want  conv.Phase
		wait  time.Duration
	}{
		{0, nil, conv.NoDrain, 0},
		{0, d("a", false), conv.Soft, 7 * time.Second},
		{2 * time.Second, d("a", true), conv.Hold, time.Second},
		{2500 * time.Millisecond, d("a", true), conv.Hold, 500 * time.Millisecond},
		{3 * time.Second, d("a", true), conv.Over, 4 * time.Second},
		{4 * time.Second, nil, conv.NoDrain, 0}, // withdrawn
		{5 * time.Second, d("b", false), conv.Soft, 7 * time.Second},
		{12 * time.Second, d("b", false), conv.NoDrain, 0}, // nobody renews it
		{13 * time.Second, d("b", true), conv.NoDrain, 0},
		{14 * time.Second, d("c", true), conv.Hold, time.Second}, // heard of late
		{20500 * time.Millisecond, d("c", true), conv.Over, 500 * time.Millisecond},
		{21 * time.Second, d("c", true), conv.NoDrain, 0},
	} {
		if p, wait := o.phase(c.drain, start.Add(c.at), grace); p != c.want || wait != c.wait {
			t.Errorf("after %s: %s for %s, want %s for %s", c.at, p, wait, c.want, c.wait)
		}
	}
}
