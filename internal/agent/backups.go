package agent

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
	"manada/internal/peer"
)

// SetBackups keeps what the repository holds for the status. Where it could not be
// asked the last that was known stays, with since when that is so, over restarts of
// the agent, too. Called by one at a time.
func (a *Agent) SetBackups(b *health.Backup) {
	a.mu.Lock()
	old, now := a.backupStatus, time.Now().UTC()
	if b.Unreachable != "" {
		b.UnknownSince = &now
		if old != nil {
			why, host := b.Unreachable, b.Host
			kept := *old
			b, kept.Unreachable, kept.Host = &kept, why, host
			if b.UnknownSince == nil {
				b.UnknownSince = &now
			}
		}
	}
	a.backupStatus = b
	kept := *b
	news := old == nil || !sameLabel(old.Last, b.Last)
	a.mu.Unlock()
	a.keepLastKnown(&kept, now)
	if news {
		a.poke() // the others hear of a new backup at once
	}
}

// noteBackups keeps what a primary told of a backup that this host has not been
// told of yet, for when nobody can be asked. Called with mu held.
func (a *Agent) noteBackups(heard map[string]peer.Heard) {
	for _, h := range heard {
		l, k := h.Beat.Backup, a.backupStatus
		if l != nil && k != nil && (k.Last == nil || l.Stop.After(k.Last.Stop)) {
			n := *k
			n.Last = l
			a.backupStatus = &n
		}
	}
}

func sameLabel(x, y *cluster.BackupLabel) bool {
	return x == nil && y == nil || x != nil && y != nil && x.Label == y.Label
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

// countWaiting looks which WAL segments wait to be archived; nil where that is not
// this node's business, or could not be seen.
func (a *Agent) countWaiting() *cluster.Waiting {
	a.mu.Lock()
	state := a.seen.state
	a.mu.Unlock()
	if a.db == nil || state != cluster.PostgresPrimary {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(a.wal, "archive_status"))
	if err != nil {
		return nil
	}
	w := &cluster.Waiting{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".ready") {
			continue
		}
		w.Segments++
		if i, err := e.Info(); err == nil {
			w.OldestMS = max(w.OldestMS, time.Since(i.ModTime()).Milliseconds())
		}
	}
	return w
}
