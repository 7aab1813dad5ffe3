package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"manada/internal/cluster"
)

// ArchiveEnd archives all WAL that the stopped primary has and the archive has
// not, up to its very end. The last segment goes in under its full name although
// it is not full: its timeline is never written again, for any start as a
// primary is a new epoch and timeline. So whoever reads the archive finds every
// acknowledged commit, and no other content ever wants that name.
func (i *Instance) ArchiveEnd(ctx context.Context, push func(ctx context.Context, path string) error) (WALTail, error) {
	var w WALTail
	err := i.alone("archiving of the last WAL", func() (err error) {
		w, err = i.archiveTail(ctx, push)
		return err
	})
	return w, err
}

func (i *Instance) archiveTail(ctx context.Context, push func(ctx context.Context, path string) error) (WALTail, error) {
	w, n, err := i.archiveEnd(ctx, push)
	if err != nil {
		return WALTail{}, fmt.Errorf("archive the last WAL: %w", err)
	}
	i.log.Info("last WAL archived", "files", n, "end", w.Complete.String(), "timeline", w.Timeline)
	return w, nil
}

func (i *Instance) archiveEnd(ctx context.Context, push func(ctx context.Context, path string) error) (w WALTail, n int, err error) {
	if err := i.mustBeDown(ctx); err != nil {
		return w, 0, err
	}
	if w, err = i.WALTail(ctx); err != nil {
		return w, 0, err
	}
	files, err := i.unarchived(w)
	if err != nil {
		return w, 0, err
	}
	for _, f := range files {
		if err := push(ctx, f); err != nil {
			return w, 0, err
		}
	}
	return w, len(files), nil
}

// unarchived lists what PostgreSQL has not archived yet, in order: segments and
// history files that wait, and the segments of the last timeline up to its end,
// the one that is not full included.
func (i *Instance) unarchived(w WALTail) ([]string, error) {
	c, err := ReadControl(i.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(i.cfg.DataDir, "pg_wal")
	e, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	has := func(name, status string) bool {
		_, err := os.Stat(filepath.Join(dir, "archive_status", name+status))
		return err == nil
	}
	last := uint64(w.Complete-1) / c.SegmentSize
	var out []string
	for _, f := range e {
		tl, seg, segment := cluster.ParseSegment(f.Name(), c.SegmentSize)
		switch {
		case f.IsDir() || has(f.Name(), ".done") || segment && tl == w.Timeline && seg > last:
		case has(f.Name(), ".ready"), segment && tl == w.Timeline,
			f.Name() == w.Timeline.HistoryFile() && !i.isFiller(w.Timeline):
			out = append(out, filepath.Join(dir, f.Name()))
		}
	}
	slices.Sort(out)
	return out, nil
}
