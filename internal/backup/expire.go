package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"manada/internal/blob"
	"manada/internal/repo"
)

// Retention says what to keep. Zero values keep everything of their kind.
type Retention struct {
	Full int // full backups, each with all that depends on it
	Diff int // differential backups; full ones count as such
	// Archive is how many full backups back WAL is kept for recovery to any
	// point; 0 means Full. Older backups keep the WAL that makes them consistent.
	Archive int
	// Counts says whether a backup is good enough to take the place of an older
	// one; nil: every one is. Those that it does not count expire nothing.
	Counts func(*repo.BackupEntry) bool
}

func (r Retention) counts(e *repo.BackupEntry) bool { return r.Counts == nil || r.Counts(e) }

// Expired is what an expiry removed.
type Expired struct {
	Backups []string // labels
	WAL     []WALRange
	Notices []string
}

// WALRange is WAL of one archive id that was removed: directories or segments.
type WALRange struct{ ArchiveID, First, Last string }

// Expire applies a retention to a stanza. It runs under the same lock as a
// backup. Killed at any moment, it leaves backups that are whole or invalid.
func Expire(ctx context.Context, s blob.Storage, stanza string, r Retention, log *slog.Logger) (*Expired, error) {
	e, err := keeperOf(s, log).ExpireBackups(ctx, stanza, r, false)
	if err != nil {
		return nil, fmt.Errorf("expire stanza %s: %w", stanza, err)
	}
	return e, nil
}

func expire(ctx context.Context, s blob.Storage, stanza string, r Retention, n *notices) (*Expired, error) {
	info, arch, err := loadStanza(ctx, s, stanza)
	if err != nil {
		return nil, err
	}
	changed, err := reconcile(ctx, s, stanza, info, n.add)
	if err != nil {
		return nil, err
	}
	out := &Expired{Backups: chooseExpired(info, r)}
	for _, l := range out.Backups {
		info.Remove(l)
	}
	if len(out.Backups) > 0 {
		// The manifest goes first, the newest backup's before those it depends on:
		// whatever happens then, no backup looks valid that is not.
		for _, l := range slices.Backward(out.Backups) {
			for _, f := range []string{repo.ManifestFile, repo.ManifestFile + repo.CopySuffix} {
				if err := s.Delete(ctx, repo.BackupPath(stanza, l, f)); err != nil {
					return nil, fmt.Errorf("expire backup %s: %w", l, err)
				}
			}
		}
	}
	if changed || len(out.Backups) > 0 {
		if err := repo.SaveBackupInfo(ctx, s, stanza, info); err != nil {
			return nil, err
		}
	}
	for _, l := range out.Backups {
		if err := s.DeleteAll(ctx, repo.BackupPath(stanza, l)); err != nil {
			return nil, fmt.Errorf("expire backup %s: %w", l, err)
		}
		n.log.Info("backup expired", "stanza", stanza, "label", l)
	}
	return out, expireArchive(ctx, s, stanza, info, arch, r, out, n)
}

// chooseExpired applies the rules for backups, ascending by label.
func chooseExpired(info *repo.BackupInfo, r Retention) []string {
	gone := map[string]bool{}
	// Newest first: what as many good ones follow as are to be kept goes, with
	// all that depends on it.
	fulls, diffs := 0, 0 // diffs counts the fulls, too
	for i := range slices.Backward(info.Backups) {
		e := &info.Backups[i]
		if e.Type == repo.Incr {
			continue
		}
		if e.Type == repo.Full && r.Full > 0 && fulls >= r.Full || e.Type == repo.Diff && r.Diff > 0 && diffs >= r.Diff {
			for _, d := range info.Dependents(e.Label) {
				gone[d] = true
			}
			continue
		}
		if r.counts(e) {
			diffs++
			if e.Type == repo.Full {
				fulls++
			}
		}
	}
	for _, l := range cleanSet(info) {
		delete(gone, l)
	}
	var out []string
	for i := range info.Backups {
		if gone[info.Backups[i].Label] {
			out = append(out, info.Backups[i].Label)
		}
	}
	return out
}

// newestClean is the newest backup without page checksum errors, nil when none
// is. Damaged ones may follow it in any number: no retention removes it, nor the
// WAL from it on, as that is what the damaged pages can be repaired from.
func newestClean(info *repo.BackupInfo) *repo.BackupEntry {
	for i := range slices.Backward(info.Backups) {
		if e := &info.Backups[i]; e.Error == nil || !*e.Error {
			return e
		}
	}
	return nil
}

// cleanSet is the newest clean backup and all that it builds on.
func cleanSet(info *repo.BackupInfo) []string {
	e := newestClean(info)
	if e == nil {
		return nil
	}
	out := append(slices.Clone(e.Reference), e.Label, repo.LabelFull(e.Label))
	for at := e; at != nil && at.Prior != ""; at = info.Find(at.Prior) {
		out = append(out, at.Prior)
	}
	return out
}

// walKeep is a range of segments to keep; to is "" for all that follow.
type walKeep struct{ from, to string }

func expireArchive(ctx context.Context, s blob.Storage, stanza string, info *repo.BackupInfo, arch *repo.ArchiveInfo, r Retention, out *Expired, n *notices) error {
	keepFulls := r.Archive
	if keepFulls == 0 {
		keepFulls = r.Full
	}
	if keepFulls == 0 {
		return nil
	}
	if err := sameHistory(info, arch); err != nil {
		return err
	}
	var fulls []string
	for i := range info.Backups {
		if e := &info.Backups[i]; e.Type == repo.Full && r.counts(e) {
			fulls = append(fulls, e.Label)
		}
	}
	if len(fulls) < keepFulls {
		return nil
	}
	kept := fulls[len(fulls)-keepFulls:]
	for _, db := range arch.History {
		if err := expireArchiveID(ctx, s, stanza, info, arch, db, kept, out, n); err != nil {
			return err
		}
	}
	return nil
}

// sameHistory refuses to delete WAL by a backup.info that is of something else.
func sameHistory(info *repo.BackupInfo, arch *repo.ArchiveInfo) error {
	for _, a := range arch.History {
		if !slices.ContainsFunc(info.History, func(b repo.DB) bool {
			return a.ID == b.ID && a.SystemID == b.SystemID && a.Version == b.Version
		}) {
			return fail(CodeFormat, "Compare archive.info and backup.info of the stanza.",
				"WAL is not expired: archive.info and backup.info do not have the same history")
		}
	}
	return nil
}

func expireArchiveID(ctx context.Context, s blob.Storage, stanza string, info *repo.BackupInfo, arch *repo.ArchiveInfo, db repo.DB, kept []string, out *Expired, n *notices) error {
	var local []repo.BackupEntry
	for _, e := range info.Backups {
		if e.DBID == db.ID {
			local = append(local, e)
		}
	}
	if len(local) == 0 {
		if db.ID == arch.Current {
			return nil // WAL is arriving there
		}
		es, err := s.List(ctx, repo.ArchivePath(stanza, db.ArchiveID()), false)
		if err != nil || len(es) == 0 {
			return err
		}
		out.WAL = append(out.WAL, WALRange{db.ArchiveID(), es[0].Name, es[len(es)-1].Name})
		return s.DeleteAll(ctx, repo.ArchivePath(stanza, db.ArchiveID()))
	}
	oldest := retentionBackup(local, kept)
	if e := newestClean(info); e != nil && e.DBID == db.ID && e.ArchiveStart != "" && e.Label < oldest.Label {
		oldest = *e
	}
	if oldest.ArchiveStart == "" {
		return nil // made with the database stopped: it says nothing about WAL
	}
	keep := keepRanges(local, oldest)
	if err := removeWAL(ctx, s, stanza, db.ArchiveID(), keep, oldest.ArchiveStart, out); err != nil {
		return err
	}
	return removeHistories(ctx, s, stanza, db.ArchiveID(), local)
}

// retentionBackup is the oldest of this cluster's backups from which recovery to
// any point stays possible: the first one kept, or at least the newest.
func retentionBackup(local []repo.BackupEntry, kept []string) repo.BackupEntry {
	for _, e := range local {
		if slices.Contains(kept, e.Label) {
			return e
		}
	}
	fulls := slices.DeleteFunc(slices.Clone(local), func(e repo.BackupEntry) bool { return e.Type != repo.Full })
	if len(fulls) == 0 {
		return local[0]
	}
	return fulls[len(fulls)-1]
}

// keepRanges: older backups keep what makes them consistent, the retention
// backup all that follows its start.
func keepRanges(local []repo.BackupEntry, oldest repo.BackupEntry) []walKeep {
	var keep []walKeep
	for _, e := range local {
		switch {
		case e.ArchiveStart == "" || e.Label > oldest.Label:
		case e.Label == oldest.Label:
			keep = append(keep, walKeep{from: e.ArchiveStart})
		default:
			keep = append(keep, walKeep{from: e.ArchiveStart, to: e.ArchiveStop})
		}
	}
	return keep
}

func (k walKeep) segment(s string) bool { return s >= k.from && (k.to == "" || s <= k.to) }
func (k walKeep) dir(d string) bool {
	return d >= k.from[:16] && (k.to == "" || d <= k.to[:16])
}

// removeWAL removes what no range keeps: whole directories, and single files in
// the directories up to the one where the retention backup begins.
func removeWAL(ctx context.Context, s blob.Storage, stanza, id string, keep []walKeep, limit string, out *Expired) error {
	dirs, err := s.List(ctx, repo.ArchivePath(stanza, id), false)
	if err != nil {
		return fmt.Errorf("expire WAL: %w", err)
	}
	var gone *WALRange
	removed := func(name string) {
		if gone == nil {
			out.WAL = append(out.WAL, WALRange{ArchiveID: id, First: name})
			gone = &out.WAL[len(out.WAL)-1]
		}
		gone.Last = name
	}
	for _, d := range dirs {
		if !d.Dir || !repo.IsWALDir(d.Name) {
			continue
		}
		path := repo.ArchivePath(stanza, id, d.Name)
		if !slices.ContainsFunc(keep, func(k walKeep) bool { return k.dir(d.Name) }) {
			if err := s.DeleteAll(ctx, path); err != nil {
				return fmt.Errorf("expire WAL: %w", err)
			}
			removed(d.Name)
			continue
		}
		gone = nil
		if d.Name > limit[:16] {
			continue
		}
		fs, err := s.List(ctx, path, false)
		if err != nil {
			return fmt.Errorf("expire WAL: %w", err)
		}
		for _, f := range fs {
			if len(f.Name) < 24 || repo.KindOfWAL(f.Name[:24]) != repo.WALSegment {
				continue
			}
			seg := f.Name[:24]
			if slices.ContainsFunc(keep, func(k walKeep) bool { return k.segment(seg) }) {
				gone = nil
				continue
			}
			if err := s.Delete(ctx, path+"/"+f.Name); err != nil {
				return fmt.Errorf("expire WAL: %w", err)
			}
			removed(seg)
		}
	}
	return nil
}

// removeHistories removes the history files of timelines older than any backup's.
func removeHistories(ctx context.Context, s blob.Storage, stanza, id string, local []repo.BackupEntry) error {
	first := ""
	for _, e := range local {
		if e.ArchiveStart != "" && (first == "" || e.ArchiveStart[:8] < first) {
			first = e.ArchiveStart[:8]
		}
	}
	es, err := s.List(ctx, repo.ArchivePath(stanza, id), false)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range es {
		if tli, ok := strings.CutSuffix(e.Name, ".history"); ok && repo.KindOfWAL(e.Name) == repo.WALHistory && tli < first {
			errs = append(errs, s.Delete(ctx, repo.ArchivePath(stanza, id, e.Name)))
		}
	}
	return errors.Join(errs...)
}
