package pki

import (
	"net/netip"
	"sync"
	"time"

	"manada/internal/cluster"
)

const (
	perAddress = 2 // exchanges at once from one address; so at most 2 guesses a second
	maxWorking = 8 // exchanges at once that cost more than the wait behind a wrong secret
)

// slots bound the exchanges with strangers, for each address apart, so that one
// that guesses keeps nobody else out.
type slots struct {
	mu      sync.Mutex
	working int
	hosts   map[netip.Prefix]int
}

// take returns how to give the slot back, or false when there is none.
func (s *slots) take(remote string) (s1 *slot, ok bool) {
	at := slot{of: s, host: cluster.HostOf(remote), working: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working >= maxWorking || s.hosts[at.host] >= perAddress {
		return nil, false
	}
	if s.hosts == nil {
		s.hosts = map[netip.Prefix]int{}
	}
	s.hosts[at.host]++
	s.working++
	return &at, true
}

// slot is one that was taken.
type slot struct {
	of      *slots
	host    netip.Prefix
	working bool // guarded by of.mu
}

// hold keeps the slot for a while from its address, and from nobody else. It does
// not end early, also when the stranger hangs up: this is the bound on guessing.
func (s *slot) hold(d time.Duration) {
	s.of.mu.Lock()
	s.of.working--
	s.working = false
	s.of.mu.Unlock()
	<-time.NewTimer(d).C
}

func (s *slot) free() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.working {
		s.of.working--
	}
	if s.of.hosts[s.host]--; s.of.hosts[s.host] == 0 {
		delete(s.of.hosts, s.host)
	}
}
