package backup

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"manada/internal/blob"
	"manada/internal/repo"
)

// Stretch is a part of the line of timelines that a recovery follows: WAL of
// Timeline up to End, 0 for the newest, which has no end yet.
type Stretch struct {
	Timeline uint32
	End      uint64
}

// PlanOptions ask what a restore would do.
type PlanOptions struct {
	Storage     blob.Storage
	Stanza      string
	Set         string // a label; "" chooses
	Type        RestoreType
	Target      string
	Line        []Stretch // newest first; a backup of another line cannot reach the target
	SegmentSize uint64
	Now         time.Time
}

// Plan is what a restore would do.
type Plan struct {
	Label, Kind string
	Start, Stop time.Time // of the backup
	StopLSN     string
	Size        int64 // bytes of the database
	RepoSize    int64 // bytes to be read for that
	Took        time.Duration
	Segments    int    // archived WAL from the backup on, as far as the archive goes
	First       string // the first of them
	Gap         string // the first that the archive lacks; recovery to a target behind it fails
	Damaged     bool   // pages were damaged when the backup was made
	Oldest      time.Time
	OldestLSN   string
}

// PlanRestore chooses the backup, the newest on the line from which recovery
// reaches the target, and makes sure that the archive has no hole behind it.
func PlanRestore(ctx context.Context, o PlanOptions) (*Plan, error) {
	p, err := planRestore(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("plan the restore of stanza %s: %w", o.Stanza, err)
	}
	return p, nil
}

func planRestore(ctx context.Context, o PlanOptions) (*Plan, error) {
	info, err := repo.LoadBackupInfo(ctx, o.Storage, o.Stanza)
	if err != nil {
		return nil, missingStanza(o.Stanza, err)
	}
	r := &restore{RestoreOptions: RestoreOptions{Stanza: o.Stanza, Type: o.Type, Target: o.Target, Now: func() time.Time { return o.Now }}}
	reaches, err := r.reaches()
	if err != nil {
		return nil, err
	}
	var fit []*repo.BackupEntry // oldest first
	for i := range info.Backups {
		if e := &info.Backups[i]; e.Online && e.ArchiveStop != "" && onLine(e, o.Line) {
			fit = append(fit, e)
		}
	}
	if len(info.Backups) == 0 {
		return nil, fail(CodeBackupSet, "Make one: manada backup --type full.", "there is no backup")
	}
	if len(fit) == 0 {
		return nil, fail(CodeBackupSet, "Make one: manada backup --type full.", "no backup is on the line of timelines to the target")
	}
	e, err := o.choose(info, fit, reaches)
	if err != nil {
		return nil, err
	}
	p := &Plan{Label: e.Label, Kind: string(e.Type), Start: time.Unix(e.TimeStart, 0).UTC(), Stop: time.Unix(e.TimeStop, 0).UTC(), StopLSN: e.LSNStop,
		Size: e.Size, RepoSize: e.RepoSize, Took: time.Duration(max(1, e.TimeStop-e.TimeStart)) * time.Second, First: e.ArchiveStart,
		Damaged: e.Error != nil && *e.Error, Oldest: time.Unix(fit[0].TimeStop, 0).UTC(), OldestLSN: fit[0].LSNStop}
	return p, o.countWAL(ctx, p, e)
}

// onLine says whether a backup ended on the line, below the fork at which the
// line leaves the backup's timeline.
func onLine(e *repo.BackupEntry, line []Stretch) bool {
	tl, err := strconv.ParseUint(e.ArchiveStop[:8], 16, 32)
	stop, err2 := parseLSN(e.LSNStop)
	return err == nil && err2 == nil && slices.ContainsFunc(line, func(s Stretch) bool {
		return uint64(s.Timeline) == tl && (s.End == 0 || stop <= s.End)
	})
}

func (o *PlanOptions) choose(info *repo.BackupInfo, fit []*repo.BackupEntry, reaches func(*repo.BackupEntry) bool) (*repo.BackupEntry, error) {
	window := fmt.Sprintf("Possible are targets from %s (%s) on.", time.Unix(fit[0].TimeStop, 0).UTC().Format("2006-01-02 15:04:05Z"), fit[0].LSNStop)
	if o.Set != "" && o.Set != "latest" {
		e := info.Find(o.Set)
		switch {
		case e == nil:
			return nil, fail(CodeBackupSet, "manada backups lists them.", "backup %s does not exist", o.Set)
		case !slices.Contains(fit, e):
			return nil, fail(CodeBackupSet, "manada backups lists others.", "backup %s is not on the line of timelines to the target", o.Set)
		case !reaches(e):
			return nil, fail(CodeBackupSet, "Choose an older backup or a later target.", "backup %s ended only at %s, after %s %s", o.Set,
				time.Unix(e.TimeStop, 0).UTC().Format("2006-01-02 15:04:05Z"), o.Type, o.Target)
		}
		return e, nil
	}
	for _, e := range slices.Backward(fit) {
		if reaches(e) {
			return e, nil
		}
	}
	return nil, fail(CodeBackupSet, window, "no backup ended before %s %s", o.Type, o.Target)
}

// countWAL counts the archived segments that recovery may need, and objects to
// a hole when all is to come back: nothing behind it could be reached.
func (o *PlanOptions) countWAL(ctx context.Context, p *Plan, e *repo.BackupEntry) error {
	_, db, err := loadArchive(ctx, o.Storage, o.Stanza)
	if err != nil {
		return err
	}
	first, err := segmentNumber(e.ArchiveStart, o.SegmentSize)
	if err != nil {
		return err
	}
	have, last, err := o.archived(ctx, db.ArchiveID(), first)
	if err != nil {
		return err
	}
	for n := first; n <= last; n++ {
		if have[n].IsZero() {
			per := uint64(1<<32) / o.SegmentSize
			if o.Type != RestoreDefault {
				p.Gap = fmt.Sprintf("%08X%08X", n/per, n%per) // it may lie behind the target
				return nil
			}
			return fail(CodeFileMissing, "Choose a newer backup (manada backups) or an earlier target with --set.",
				"the archive lacks WAL segment %08X%08X behind backup %s", n/per, n%per, e.Label)
		}
		p.Segments++
	}
	return nil
}

// archived finds which segments from first on the line has in the archive, and
// when each was stored.
func (o *PlanOptions) archived(ctx context.Context, archiveID string, first uint64) (have map[uint64]time.Time, last uint64, err error) {
	dirs, err := o.Storage.List(ctx, repo.ArchivePath(o.Stanza, archiveID), false)
	if err != nil {
		return nil, 0, fmt.Errorf("list the archive: %w", err)
	}
	have = map[uint64]time.Time{}
	for _, d := range dirs {
		if !d.Dir || !repo.IsWALDir(d.Name) || !o.mayHold(d.Name, first) {
			continue
		}
		es, err := o.Storage.List(ctx, repo.ArchivePath(o.Stanza, archiveID, d.Name), false)
		if err != nil {
			return nil, 0, fmt.Errorf("list the archive: %w", err)
		}
		for _, e := range es {
			w, ok := repo.ParseStoredWAL(e.Name)
			if !ok || strings.HasSuffix(w.Name, ".partial") {
				continue
			}
			if n, err := segmentNumber(w.Name, o.SegmentSize); err == nil && n >= first && o.lineHas(w.Name, n) {
				have[n] = e.ModTime
				last = max(last, n)
			}
		}
	}
	return have, last, nil
}

// mayHold skips directories of the archive that are of no use.
func (o *PlanOptions) mayHold(dir string, first uint64) bool {
	hi, err := strconv.ParseUint(dir[8:], 16, 32)
	return err == nil && hi >= first/(uint64(1<<32)/o.SegmentSize)
}

// lineHas says whether recovery along the line may read the segment.
func (o *PlanOptions) lineHas(name string, n uint64) bool {
	return slices.ContainsFunc(o.Line, func(s Stretch) bool {
		return name[:8] == fmt.Sprintf("%08X", s.Timeline) && (s.End == 0 || n <= s.End/o.SegmentSize)
	})
}

func segmentNumber(name string, size uint64) (uint64, error) {
	if repo.KindOfWAL(name) != repo.WALSegment || size == 0 {
		return 0, fmt.Errorf("%q is no WAL segment", name)
	}
	hi, _ := strconv.ParseUint(name[8:16], 16, 32)
	lo, _ := strconv.ParseUint(name[16:], 16, 32)
	return hi*(uint64(1<<32)/size) + lo, nil
}
