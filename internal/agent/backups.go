package agent

import (
	"os"
	"path/filepath"
	"strings"

	"manada/internal/cluster"
	"manada/internal/health"
)

// SetBackups keeps what the repository holds for the status.
func (a *Agent) SetBackups(b *health.Backup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.backupStatus = b
}

// Event adds to the herd's history on behalf of this host.
func (a *Agent) Event(kind, text string) { a.event(kind, 0, text) }

// SocketDir is where this node's PostgreSQL has its unix socket.
func (a *Agent) SocketDir() string {
	if a.db == nil {
		return ""
	}
	return a.db.SocketDir()
}

// PeerAddr is where another host's agent listens.
func (a *Agent) PeerAddr(node string) (string, bool) {
	h, ok := a.hub.Heard()[node]
	return h.Beat.Addrs.Peer, ok && h.Beat.Addrs.Peer != ""
}

// SegmentsWaiting counts the WAL segments that wait to be archived; false where
// that is not this node's business.
func (a *Agent) SegmentsWaiting() (int64, bool) {
	a.mu.Lock()
	state := a.seen.state
	a.mu.Unlock()
	if a.db == nil || state != cluster.PostgresPrimary {
		return 0, false
	}
	entries, err := os.ReadDir(filepath.Join(a.wal, "archive_status"))
	if err != nil {
		return 0, false
	}
	n := int64(0)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".ready") {
			n++
		}
	}
	return n, true
}
