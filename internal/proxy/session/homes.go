package session

import (
	"sync"
	"time"

	"manada/internal/proxy/route"
)

// homes spreads the sessions that read over the nodes. The primary's name is "".
type homes struct {
	mu     sync.Mutex
	count  map[string]int
	turn   int
	failed map[string]time.Time
}

// choose finds the home of a session, the primary or a standby, see least.
func (h *homes) choose(usable []route.Standby) string {
	names := []string{""}
	for _, s := range usable {
		names = append(names, s.Name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	best := h.fewest(names)
	if h.count == nil {
		h.count = map[string]int{}
	}
	h.count[best]++
	return best
}

// least is the node that is the home of the fewest; of several, in turn.
func (h *homes) least(names []string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fewest(names)
}

// fewest is least, with mu held.
func (h *homes) fewest(names []string) string {
	h.turn++
	best := ""
	for i := range names {
		n := names[(h.turn+i)%len(names)]
		if i == 0 || h.count[n] < h.count[best] {
			best = n
		}
	}
	return best
}

func (h *homes) enter(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == nil {
		h.count = map[string]int{}
	}
	h.count[name]++
}

func (h *homes) leave(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count[name]--; h.count[name] <= 0 {
		delete(h.count, name)
	}
}

// avoid keeps the reads of all sessions away from a standby for a moment.
func (h *homes) avoid(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed == nil {
		h.failed = map[string]time.Time{}
	}
	h.failed[name] = time.Now()
}

func (h *homes) avoided(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.failed[name]
	return ok && time.Since(at) < avoidFor
}
