package backup

import (
	"context"
	"fmt"
	"time"

	"manada/internal/blob"
	"manada/internal/repo"
)

// waitArchived waits until all WAL that a restore needs is in the archive. The
// time limit starts again with every segment that arrives.
func (r *run) waitArchived(ctx context.Context) error {
	need, err := repo.Segments(r.m.ArchiveStart, r.m.ArchiveStop, uint64(r.ctl.SegmentSize))
	if err != nil {
		return err
	}
	limit := time.NewTimer(r.ArchiveTimeout)
	defer limit.Stop()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		left, err := missingWAL(ctx, r.Storage, r.Stanza, r.archive.ArchiveID(), need)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if len(left) < len(need) {
			limit.Reset(r.ArchiveTimeout)
		}
		need = left
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fail(CodeArchiveTimeout, "Check that archive_command works and writes to this repository; PostgreSQL's log has its errors.",
				"WAL segment %s (and %d more) was not archived within %s%s", left[0], len(left)-1, r.ArchiveTimeout, r.pg.archiver(ctx))
		case <-poll.C:
		}
	}
}

// missingWAL gives those of the segments that are not in the archive.
func missingWAL(ctx context.Context, s blob.Storage, stanza, archiveID string, need []string) ([]string, error) {
	have := map[string]bool{}
	listed := map[string]bool{}
	var left []string
	for _, seg := range need {
		if d := repo.WALDir(seg); !listed[d] {
			listed[d] = true
			es, err := s.List(ctx, repo.ArchivePath(stanza, archiveID, d), false)
			if err != nil {
				return nil, fmt.Errorf("list the archive: %w", err)
			}
			for _, e := range es {
				if w, ok := repo.ParseStoredWAL(e.Name); ok {
					have[w.Name] = true
				}
			}
		}
		if !have[seg] {
			left = append(left, seg)
		}
	}
	return left, nil
}

// FindWAL says where the archive has a segment of the stanza's cluster; "" when
// it does not have it.
func FindWAL(ctx context.Context, s blob.Storage, stanza, segment string) (string, error) {
	_, db, err := loadArchive(ctx, s, stanza)
	if err != nil {
		return "", err
	}
	dir := repo.ArchivePath(stanza, db.ArchiveID(), repo.WALDir(segment))
	have, err := findWAL(ctx, s, dir, segment)
	if err != nil || len(have) == 0 {
		return "", err
	}
	return dir + "/" + have[0].String(), nil
}
