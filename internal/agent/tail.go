package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
	"manada/internal/postgres"
)

// archiveEnd puts what is not in the archive yet of this stopped leader's WAL
// there, also the last, partial segment.
func (a *Agent) archiveEnd(ctx context.Context) error {
	if a.repo == nil {
		return errors.New("archive the last WAL: no repository")
	}
	if why := a.repo.Nowhere(); why != "" {
		return errors.New("archive the last WAL: " + why)
	}
	w, err := a.db.ArchiveEnd(ctx, a.repo.Push)
	if err == nil {
		a.remembered(func(m *memory) { m.archived = w.End })
	}
	return err
}

// segmentSize is that of this cluster's WAL segments, in bytes: whoever ran initdb
// chose it.
func (a *Agent) segmentSize() (cluster.LSN, error) {
	c, err := postgres.ReadControl(filepath.Dir(a.wal))
	if err == nil && c.SegmentSize == 0 {
		err = errors.New("pg_control gives no segment size")
	}
	return cluster.LSN(c.SegmentSize), err
}

// segments are the WAL segments of a timeline in pg_wal, in order. One that cannot
// be read is an error, not an empty one.
func (a *Agent) segments(tl cluster.Timeline) ([]string, error) {
	files, err := os.ReadDir(a.wal) // sorted
	if err != nil {
		return nil, fmt.Errorf("list WAL segments: %w", err)
	}
	var out []string
	for _, f := range files {
		if len(f.Name()) == 24 && strings.HasPrefix(f.Name(), fmt.Sprintf("%08X", uint32(tl))) {
			out = append(out, filepath.Join(a.wal, f.Name()))
		}
	}
	return out, nil
}

// fetchWait is how long replay of what was fetched may stand still.
const fetchWait = time.Minute

// fetchWAL gets the WAL up to an end out of the archive, for a standby that
// receives nothing, and waits until it is replayed. PostgreSQL finds in pg_wal
// what is put there.
func (a *Agent) fetchWAL(ctx context.Context, end cluster.LSN) error {
	if a.repo == nil {
		return errors.New("fetch WAL out of the archive: no repository")
	}
	a.mu.Lock()
	from := a.mem.position
	a.mu.Unlock()
	size, err := a.segmentSize()
	if err != nil {
		return fmt.Errorf("fetch WAL out of the archive: %w", err)
	}
	a.unread()
	for at := from.lsn - from.lsn%size; at < end; at += size {
		if err := a.fetchSegment(ctx, from.timeline.Segment(at, uint64(size))); err != nil {
			return fmt.Errorf("fetch WAL out of the archive: %w", err)
		}
	}
	return a.awaitReplay(ctx, end)
}

// fetchSegment replaces a segment of pg_wal by the archive's, which has at least
// as much.
func (a *Agent) fetchSegment(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	part := filepath.Join(a.wal, "manada.fetch"+durable.TempMark)
	defer os.Remove(part)
	if err := a.repo.Get(ctx, name, part); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return durable.Place(part, filepath.Join(a.wal, name))
}

func (a *Agent) awaitReplay(ctx context.Context, end cluster.LSN) error {
	replayed, moved := cluster.LSN(0), time.Now()
	for {
		a.observe(ctx)
		a.mu.Lock()
		at := a.seen.replay
		a.mu.Unlock()
		if at >= end {
			return nil
		}
		if at > replayed {
			replayed, moved = at, time.Now()
		}
		if time.Since(moved) > fetchWait {
			return fmt.Errorf("replay what was fetched: stands at %s, not %s, for %s", at, end, fetchWait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
