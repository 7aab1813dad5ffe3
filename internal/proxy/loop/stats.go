package loop

import (
	"math/bits"
	"time"

	"manada/internal/proxy/conv"
)

// Stats are what happened to the clients of one label, which is a database's. Each
// loop keeps its own and nobody else touches them: counting costs no lock and no
// atomic operation, and whoever wants to know asks the loops (Group.Stats).
type Stats struct {
	Logins, Assignments, Transactions, Queries int64
	Received, Sent                             int64 // bytes from and to clients, without TLS
	ClientParses, ServerParses, Binds          int64

	Query       Histogram // from what a server was given to its ReadyForQuery
	Transaction Histogram // from its first statement to the ReadyForQuery outside of it
	Wait        Histogram // from when a server was wanted of the pools to when it came, or was refused
}

// Add adds what another loop counted.
func (s *Stats) Add(o *Stats) {
	s.Logins += o.Logins
	s.Assignments += o.Assignments
	s.Transactions += o.Transactions
	s.Queries += o.Queries
	s.Received += o.Received
	s.Sent += o.Sent
	s.ClientParses += o.ClientParses
	s.ServerParses += o.ServerParses
	s.Binds += o.Binds
	s.Query.add(&o.Query)
	s.Transaction.add(&o.Transaction)
	s.Wait.add(&o.Wait)
}

// Buckets of a Histogram, and the bound of the first: each one's is twice that of the
// one before, so that the last but one ends at 65 seconds. The last has no bound.
const (
	Buckets    = 21
	FirstBound = 125 * time.Microsecond
)

// Histogram counts durations.
type Histogram struct {
	Counts [Buckets]int64
	Sum    time.Duration
}

// observe counts one.
func (h *Histogram) observe(d time.Duration) {
	h.Sum += d
	h.Counts[min(bits.Len64(uint64(max(d, 0)/FirstBound)), Buckets-1)]++
}

func (h *Histogram) add(o *Histogram) {
	h.Sum += o.Sum
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
}

// Total is how many were counted.
func (h *Histogram) Total() (n int64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// of are the statistics of a label.
func (l *Loop) of(label int) *Stats {
	for len(l.stats) <= label {
		l.stats = append(l.stats, &Stats{})
	}
	return l.stats[label]
}

// mark counts what began and ended in a step of a client. Times are those of the last
// wait of the loop: what happens within one turn takes none.
func (l *Loop) mark(c *client, m *conv.Marks) {
	s := c.stats
	s.ClientParses += int64(m.ClientParses)
	s.ServerParses += int64(m.ServerParses)
	s.Binds += int64(m.Binds)
	for range m.Answered { // the next of a pipeline begins where the one before ends
		s.Queries++
		s.Query.observe(time.Duration(l.now - c.unit))
		c.unit = l.now
	}
	for range m.Ended {
		s.Transactions++
		s.Transaction.observe(time.Duration(l.now - c.tx))
		c.tx = l.now
	}
	switch m.Began {
	case conv.BeganTransaction:
		c.unit, c.tx = l.now, l.now
	case conv.BeganUnit:
		c.unit = l.now
	}
}

// came counts a wait for a server of the pools that is over.
func (l *Loop) came(c *client, side conv.Side) {
	if side == conv.Main && c.asked != 0 {
		c.stats.Wait.observe(time.Duration(l.now - c.asked))
		c.asked = 0
	}
}

// Stats are those of every label, by its number. It waits for the loops to answer,
// which they do in between two events; those that are closed count no more.
func (g *Group) Stats() []Stats {
	var all []Stats
	for _, l := range g.loops {
		done := make(chan []Stats, 1)
		if !l.post(func(l *Loop) {
			out := make([]Stats, len(l.stats))
			for i, s := range l.stats {
				out[i] = *s
			}
			done <- out
		}) {
			continue
		}
		own := <-done
		for i := range own {
			if i == len(all) {
				all = append(all, Stats{})
			}
			all[i].Add(&own[i])
		}
	}
	return all
}
