package session

import (
	"sync"
	"time"

	"manada/internal/proxy/route"
)

// Statuses remembers since when each member is up or down and in its role. The
// zero value knows nothing; it is safe for concurrent use.
type Statuses struct {
	mu    sync.Mutex
	nodes map[string]statusOf
}

type statusOf struct {
	up, primary bool
	since       time.Time
}

// Note compares with what was known before.
func (s *Statuses) Note(members []route.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes = map[string]statusOf{}
	}
	for _, m := range members {
		if was, ok := s.nodes[m.Name]; !ok || was.up != m.Up || was.primary != m.Primary {
			s.nodes[m.Name] = statusOf{m.Up, m.Primary, time.Now()}
		}
	}
}

// since is the time of a member's last change, as pgpool prints it.
func (s *Statuses) since(m route.Member) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.nodes[m.Name].since
	if at.IsZero() {
		at = time.Now()
	}
	return at.Format(time.DateTime)
}
