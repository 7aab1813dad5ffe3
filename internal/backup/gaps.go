package backup

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"manada/internal/blob"
	"manada/internal/cluster"
	"manada/internal/repo"
)

// Gap is WAL that the archive lacks and without which a recovery ends.
type Gap struct {
	First    string    `json:"first"`    // what is missing: a segment, or a history file
	Last     string    `json:"last"`     // the last one that is missing
	Segments int       `json:"segments"` // 0: of a history file
	Backup   string    `json:"backup"`   // the newest backup that needs it; older ones do, too
	Until    string    `json:"until"`    // LSN at which a recovery from it ends
	Stored   time.Time `json:"stored"`   // when the WAL before it was archived; zero: not known
	// Inside: the backup is not consistent without it and cannot be restored.
	Inside bool `json:"inside,omitempty"`
	// Covered: a newer backup begins behind it.
	Covered bool `json:"covered,omitempty"`
}

// FindGaps looks by names alone whether the archive has all WAL from the oldest
// backup on, along the newest timeline. What a retention of WAL removes between
// old backups is no gap (retained says that one is set).
func FindGaps(ctx context.Context, s blob.Storage, stanza string, retained bool) ([]Gap, error) {
	g, err := findGaps(ctx, s, stanza, retained)
	if err != nil {
		return nil, fmt.Errorf("look for gaps in the archive of stanza %s: %w", stanza, err)
	}
	return g, nil
}

// reach is a backup and the numbers of the segments that make it consistent.
type reach struct {
	label       string
	first, last uint64
}

// gapFinder looks at one archive.
type gapFinder struct {
	PlanOptions
	id      string
	backups []reach // on the line, oldest first
}

func findGaps(ctx context.Context, s blob.Storage, stanza string, retained bool) ([]Gap, error) {
	info, arch, err := loadStanza(ctx, s, stanza)
	if err != nil {
		return nil, err
	}
	db, err := arch.DB()
	if err != nil {
		return nil, err
	}
	f := gapFinder{PlanOptions: PlanOptions{Storage: s, Stanza: stanza}, id: db.ArchiveID()}
	newest, file, err := f.newest(ctx)
	if err != nil || newest == 0 {
		return nil, err
	}
	if f.SegmentSize, err = segmentSize(ctx, s, stanza, file, db); err != nil {
		return nil, err
	}
	whole, err := f.readLine(ctx, newest)
	if err != nil {
		return nil, err
	}
	if err := f.choose(info, db); err != nil {
		return nil, err
	}
	if !whole {
		return f.withoutHistory(info, db, newest), nil
	}
	if len(f.backups) == 0 {
		return nil, nil
	}
	first := slices.MinFunc(f.backups, func(a, b reach) int { return int(a.first) - int(b.first) }).first
	have, last, err := f.archived(ctx, f.id, first)
	if err != nil {
		return nil, err
	}
	return f.holes(have, first, last, retained), nil
}

// newest is the newest timeline with WAL in the archive, and one of its segments;
// 0 for an empty archive.
func (f *gapFinder) newest(ctx context.Context) (cluster.Timeline, string, error) {
	dirs, err := f.Storage.List(ctx, repo.ArchivePath(f.Stanza, f.id), false)
	if err != nil {
		return 0, "", err
	}
	for _, d := range slices.Backward(dirs) {
		if !d.Dir || !repo.IsWALDir(d.Name) {
			continue
		}
		es, err := f.Storage.List(ctx, repo.ArchivePath(f.Stanza, f.id, d.Name), false)
		if err != nil {
			return 0, "", err
		}
		for _, e := range es {
			w, ok := repo.ParseStoredWAL(e.Name)
			if ok && repo.KindOfWAL(w.Name) == repo.WALSegment {
				tl, _, _ := cluster.ParseSegment(w.Name, 1<<20)
				return tl, d.Name + "/" + e.Name, nil
			}
		}
	}
	return 0, "", nil
}

// segmentSize is the size of the segments of an archive, as one of its files says.
func segmentSize(ctx context.Context, s blob.Storage, stanza, file string, db repo.DB) (uint64, error) {
	w, ok := repo.ParseStoredWAL(file[strings.LastIndex(file, "/")+1:])
	if !ok {
		return 0, fmt.Errorf("%s is not the name of stored WAL", file)
	}
	r, err := s.Open(ctx, repo.ArchivePath(stanza, db.ArchiveID(), file), 0, -1)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	z, err := repo.NewDecompressor(w.Compress, r, false)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	head := make([]byte, SegmentHeader)
	if _, err := io.ReadFull(z, head); err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	size, err := CheckSegment(w.Name, head, db)
	return uint64(size), err
}

// readLine finds the line of timelines that ends in the newest; whole is false
// where its history file is not in the archive.
func (f *gapFinder) readLine(ctx context.Context, newest cluster.Timeline) (whole bool, err error) {
	f.Line = []Stretch{{Timeline: uint32(newest)}}
	if newest == 1 {
		return true, nil
	}
	b, err := blob.Get(ctx, f.Storage, repo.ArchivePath(f.Stanza, f.id, newest.HistoryFile()))
	if isNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	line, err := cluster.ParseHistory(b)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", newest.HistoryFile(), err)
	}
	for _, s := range slices.Backward(line) {
		f.Line = append(f.Line, Stretch{Timeline: uint32(s.Timeline), End: uint64(s.End)})
	}
	return true, nil
}

// choose keeps the backups of the cluster that are on the line.
func (f *gapFinder) choose(info *repo.BackupInfo, db repo.DB) error {
	for i := range info.Backups {
		e := &info.Backups[i]
		if e.DBID != db.ID || !e.Online || e.ArchiveStart == "" || !onLine(e, f.Line) {
			continue
		}
		first, err := segmentNumber(e.ArchiveStart, f.SegmentSize)
		if err != nil {
			return err
		}
		last, err := segmentNumber(e.ArchiveStop, f.SegmentSize)
		if err != nil {
			return err
		}
		f.backups = append(f.backups, reach{e.Label, first, last})
	}
	return nil
}

// withoutHistory: backups of older timelines do not reach the newest.
func (f *gapFinder) withoutHistory(info *repo.BackupInfo, db repo.DB, newest cluster.Timeline) []Gap {
	for i := range slices.Backward(info.Backups) {
		e := &info.Backups[i]
		if e.DBID == db.ID && e.Online && e.ArchiveStop != "" && e.ArchiveStop[:8] != newest.HistoryFile()[:8] {
			return []Gap{{First: newest.HistoryFile(), Last: newest.HistoryFile(), Backup: e.Label, Until: e.LSNStop, Covered: len(f.backups) > 0}}
		}
	}
	return nil
}

// holes are the gaps between first and last.
func (f *gapFinder) holes(have map[uint64]time.Time, first, last uint64, retained bool) []Gap {
	var out []Gap
	for n := first; n <= last; n++ {
		if !have[n].IsZero() {
			continue
		}
		from := n
		for n < last && have[n+1].IsZero() {
			n++
		}
		if g, ok := f.gap(from, n); ok && !(retained && f.expired(from, n)) {
			if at := have[from-1]; !at.IsZero() {
				g.Stored = at.UTC()
			}
			out = append(out, g)
		}
	}
	return out
}

// expired: older backups keep the WAL that makes them consistent, no more.
func (f *gapFinder) expired(from, to uint64) bool {
	return slices.ContainsFunc(f.backups, func(b reach) bool { return b.last+1 == from }) &&
		slices.ContainsFunc(f.backups, func(b reach) bool { return b.first == to+1 })
}

// gap says what the missing segments mean; ok is false when no backup is before them.
func (f *gapFinder) gap(from, to uint64) (g Gap, ok bool) {
	g = Gap{First: f.name(from), Last: f.name(to), Segments: int(to - from + 1), Until: cluster.LSN(from * f.SegmentSize).String()}
	for _, b := range f.backups {
		switch {
		case b.first > to:
			g.Covered = true
		case b.first <= from:
			g.Backup, g.Inside, ok = b.label, b.last >= from, true
		default: // it begins in the gap
			g.Backup, g.Inside, ok = b.label, true, true
		}
	}
	return g, ok
}

// name is that of a segment on the line: where a timeline is left, the segment is
// the next one's.
func (f *gapFinder) name(n uint64) string {
	for i, s := range f.Line {
		if i == len(f.Line)-1 || n >= f.Line[i+1].End/f.SegmentSize {
			return cluster.Timeline(s.Timeline).Segment(cluster.LSN(n*f.SegmentSize), f.SegmentSize)
		}
	}
	return ""
}
