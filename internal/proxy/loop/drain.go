package loop

import "manada/internal/proxy/conv"

// A planned switchover as the loops see it (protocol-2.md, section 5): they tell its
// phase to their clients, and count what has to be waited for, each for itself and
// only as long as it lasts.

// Work is what a switchover waits for.
type Work struct {
	// Phase is what every client of every loop knows at least.
	Phase conv.Phase
	// Open counts the clients that have something under way on a primary, Committing
	// those of them whose COMMIT may be. They are 0 in NoDrain.
	Open, Committing int
}

// Switchover tells every client the phase of a switchover, also those to come.
func (g *Group) Switchover(p conv.Phase) {
	g.each(func(l *Loop) {
		l.phase = p
		l.all(func(c *client) {
			l.step(c, conv.Event{Kind: conv.Drain, Phase: p})
			if p == conv.NoDrain {
				l.count(c, conv.Quiet)
			}
		})
		l.told.Store(uint32(p))
		g.stir()
	})
}

// Work says how far a switchover is.
func (g *Group) Work() Work {
	w := Work{Phase: conv.Over}
	for _, l := range g.loops {
		w.Phase = min(w.Phase, conv.Phase(l.told.Load()))
		committing := int(l.counts[conv.Committing].Load())
		w.Open += int(l.counts[conv.Working].Load()) + committing
		w.Committing += committing
	}
	return w
}

// Stirred says, at some time after it, that Work has changed. It is for one listener.
func (g *Group) Stirred() <-chan struct{} { return g.stirred }

func (g *Group) stir() {
	select {
	case g.stirred <- struct{}{}:
	default:
	}
}

// count keeps the counts by what a client is now.
func (l *Loop) count(c *client, is conv.Busy) {
	if c.busy == is {
		return
	}
	l.counts[c.busy].Add(-1)
	l.counts[is].Add(1)
	c.busy = is
	l.group.stir()
}
