package session

import (
	"crypto/rand"
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

	reads sync.Map // name of a node to *atomic.Int64: queries that it was given by the read-write port

	// Waited is told how long a client waited for a node when the first attempt
	// did not succeed. Set before first use; nil is allowed.
	Waited func(time.Duration)
}

func randomString(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return string(b)
}

// read counts queries of a node.
func (s *Stats) read(node string, n int) {
	c, ok := s.reads.Load(node)
	if !ok {
		c, _ = s.reads.LoadOrStore(node, new(atomic.Int64))
	}
	c.(*atomic.Int64).Add(int64(n))
}

// Reads is how many queries a node was given by the read-write port.
func (s *Stats) Reads(node string) int64 {
	if c, ok := s.reads.Load(node); ok {
		return c.(*atomic.Int64).Load()
	}
	return 0
}

// ReadsByNode is Reads of every node that was given any.
func (s *Stats) ReadsByNode() map[string]int64 {
	m := map[string]int64{}
	s.reads.Range(func(k, v any) bool { m[k.(string)] = v.(*atomic.Int64).Load(); return true })
	return m
}
