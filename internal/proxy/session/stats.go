package session

import (
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are the counters of a Server, an element for each Port where they
// differ. Everything but the gauges only grows.
type Stats struct {
	Connections [2]atomic.Int64 // accepted
	Logins      [2]atomic.Int64 // succeeded
	Failures    [2]atomic.Int64 // clients that got an error instead of a session
	Clients     [2]atomic.Int64 // gauge: admitted, logged in or not yet
	Waiting     [2]atomic.Int64 // gauge: waiting for a node
	FromClients [2]atomic.Int64 // bytes relayed
	ToClients   [2]atomic.Int64 // bytes relayed

	AuthFailures  atomic.Int64 // wrong password or unknown role
	Cancels       atomic.Int64 // requests forwarded
	Fallbacks     atomic.Int64 // read-only sessions sent to the primary
	Retries       atomic.Int64 // attempts to reach a node that failed and were repeated
	Deposed       atomic.Int64 // sessions ended because the primary changed
	Lost          atomic.Int64 // sessions whose node went away
	Unreplicated  atomic.Int64 // commits that were not passed on as success
	UnknownResult atomic.Int64 // sessions ended while an answer was owed
	Repeated      atomic.Int64 // reads that the primary answered because a standby could not

	reads named // queries of the read-write port, by the node that was given them
	pins  named // clients that keep their connection, by the reason

	// Waited is told how long a client waited for a node when the first attempt
	// did not succeed. Set before first use; nil is allowed.
	Waited func(time.Duration)
}

func randomString(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return string(b)
}

// named are counters with names, of which there are few.
type named struct {
	of sync.Map // string to *atomic.Int64
	n  atomic.Int64
}

// maxNamed bounds them: further names count as others.
const maxNamed = 100

func (n *named) add(name string, k int) { n.counter(name).Add(int64(k)) }

// counter is that of a name, for those who count often.
func (n *named) counter(name string) *atomic.Int64 {
	c, ok := n.of.Load(name)
	if !ok {
		if n.n.Load() >= maxNamed {
			name = others
		}
		if c, ok = n.of.LoadOrStore(name, new(atomic.Int64)); !ok {
			n.n.Add(1)
		}
	}
	return c.(*atomic.Int64)
}

func (n *named) get(name string) int64 {
	if c, ok := n.of.Load(name); ok {
		return c.(*atomic.Int64).Load()
	}
	return 0
}

func (n *named) all() map[string]int64 {
	m := map[string]int64{}
	n.of.Range(func(k, v any) bool { m[k.(string)] = v.(*atomic.Int64).Load(); return true })
	return m
}

// Reads is how many queries a node was given by the read-write port.
func (s *Stats) Reads(node string) int64 { return s.reads.get(node) }

// ReadsByNode is Reads of every node that was given any.
func (s *Stats) ReadsByNode() map[string]int64 { return s.reads.all() }

// PinsByReason is how many clients kept their connection, by why they did.
func (s *Stats) PinsByReason() map[string]int64 { return s.pins.all() }

// reasonOf is a reason without the name in it, of which there may be any number.
func reasonOf(why string) string {
	for _, of := range []string{"a call of ", "what is behind "} {
		if strings.HasPrefix(why, of) {
			return of + "a name"
		}
	}
	return why
}
