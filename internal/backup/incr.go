package backup

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"manada/internal/blob"
	"manada/internal/repo"
)

// findPrior chooses the backup that a diff or incr continues: of this cluster,
// the newest full for a diff, the newest of any type for an incr. When there is
// none that can be continued it says why and gives nil: the backup becomes full.
func findPrior(ctx context.Context, s blob.Storage, stanza string, info *repo.BackupInfo, t repo.BackupType, note func(string)) (*repo.Manifest, error) {
	for _, e := range slices.Backward(info.Backups) {
		if e.DBID != info.Current || (t == repo.Diff && e.Type != repo.Full) {
			continue
		}
		m, err := repo.LoadManifest(ctx, s, stanza, e.Label)
		if err != nil {
			return nil, fmt.Errorf("load the prior backup: %w", err)
		}
		if err := m.Restorable(); err != nil {
			note(fmt.Sprintf("the %s backup will be a full one: %v", t, err))
			return nil, nil
		}
		if !m.Option.Compress.Writable() {
			note(fmt.Sprintf("the %s backup will be a full one: backup %s is compressed with %s, which this version does not write",
				t, m.Label, m.Option.Compress))
			return nil, nil
		}
		return m, nil
	}
	note(fmt.Sprintf("no prior backup exists, the %s backup will be a full one", t))
	return nil, nil
}

// adoptPrior takes over what may not change within a set of backups.
func adoptPrior(m, prior *repo.Manifest, note func(string)) {
	m.Prior = prior.Label
	m.BundleRaw = prior.BundleRaw
	m.References = slices.Clone(prior.References)
	if m.Option.Compress != prior.Option.Compress {
		note(fmt.Sprintf("compress-type is %s as in backup %s, not %s: it cannot change within a set of backups",
			prior.Option.Compress, prior.Label, m.Option.Compress))
		m.Option.Compress = prior.Option.Compress
		level := m.Option.Compress.DefaultLevel()
		m.Option.CompressLevel = &level
	}
	if p := prior.Option.ChecksumPage; p != nil && m.Option.ChecksumPage != nil && *p != *m.Option.ChecksumPage {
		note(fmt.Sprintf("checksum-page is %v as in backup %s", *p, prior.Label))
		m.Option.ChecksumPage = p
	}
}

// needsDelta says why sizes and times are not enough to tell what has changed,
// "" when they are.
func needsDelta(m, prior *repo.Manifest) string {
	for i := range m.Files {
		if f := &m.Files[i]; f.Timestamp > m.CopyStart-1 {
			return fmt.Sprintf("%s has a time in the future", f.Name)
		}
	}
	if prior == nil {
		return ""
	}
	if m.ArchiveStart != "" && prior.ArchiveStop != "" && m.ArchiveStart[:8] != prior.ArchiveStop[:8] {
		return fmt.Sprintf("the timeline has changed since backup %s, as after a promotion or a restore", prior.Label)
	}
	if m.Option.Online != prior.Option.Online {
		return fmt.Sprintf("backup %s was made with the database stopped", prior.Label)
	}
	for i := range m.Files {
		f := &m.Files[i]
		p := prior.Find(f.Name)
		switch {
		case p == nil:
		case f.Timestamp < p.Timestamp:
			return fmt.Sprintf("%s is older than in backup %s", f.Name, prior.Label)
		case f.Timestamp == p.Timestamp && f.SizeOriginal != p.SizeOriginal:
			return fmt.Sprintf("%s has another size but the same time as in backup %s", f.Name, prior.Label)
		}
	}
	return ""
}

// plan decides for every file whether it is copied, compared or just referred
// to, and gives those that have to be looked at.
func plan(m, prior *repo.Manifest, delta bool) []*item {
	var items []*item
	for i := range m.Files {
		f := &m.Files[i]
		if f.Size == 0 {
			continue // stored nowhere, as m.Bundle says
		}
		it := &item{file: f}
		if prior != nil {
			if p := prior.Find(f.Name); p != nil && p.Size == f.Size && p.Size != 0 {
				c := *p
				if c.Reference == "" {
					c.Reference = prior.Label
				}
				it.prior, it.delta = &c, delta
				if !delta && p.Timestamp == f.Timestamp && f.Name != controlName {
					it.useInstead()
					continue
				}
			}
		}
		items = append(items, it)
	}
	return items
}

// dropGone takes the files out of the manifest that PostgreSQL removed before
// they could be copied: replay removes them again.
func dropGone(m *repo.Manifest, items []*item) {
	gone := map[string]bool{}
	for _, it := range items {
		if it.gone {
			gone[it.file.Name] = true
		}
	}
	if len(gone) > 0 {
		m.Files = slices.DeleteFunc(m.Files, func(f repo.File) bool { return gone[f.Name] })
	}
}

// reconcile makes backup.info agree with the directories: a finished backup that
// it does not know is added, one whose manifest is gone is forgotten with all
// that depend on it. It reports what it changed.
func reconcile(ctx context.Context, s blob.Storage, stanza string, info *repo.BackupInfo, note func(string)) (changed bool, err error) {
	labels, err := labelDirs(ctx, s, stanza)
	if err != nil {
		return false, err
	}
	finished := map[string]bool{}
	for _, l := range labels {
		_, err := s.Stat(ctx, repo.BackupPath(stanza, l, repo.ManifestFile))
		if err != nil && !isNotExist(err) {
			return false, err
		}
		finished[l] = err == nil
	}
	for _, e := range slices.Clone(info.Backups) {
		if finished[e.Label] || info.Find(e.Label) == nil {
			continue
		}
		for _, d := range info.Dependents(e.Label) {
			note(fmt.Sprintf("backup %s has lost its manifest (or one that it needs has) and is removed from backup.info", d))
			info.Remove(d)
			changed = true
		}
	}
	for _, l := range labels {
		if !finished[l] || info.Find(l) != nil {
			continue
		}
		m, err := repo.LoadManifest(ctx, s, stanza, l)
		if err != nil {
			note(fmt.Sprintf("backup %s is not in backup.info and cannot be added: %v", l, err))
			continue
		}
		if m.Prior != "" && info.Find(m.Prior) == nil || !knows(info, m.DB) {
			note(fmt.Sprintf("backup %s is not in backup.info and cannot be added: what it depends on is missing", l))
			continue
		}
		note(fmt.Sprintf("backup %s found in the repository is added to backup.info", l))
		if err := repo.SaveHistory(ctx, s, stanza, m); err != nil {
			return false, err
		}
		info.Add(m.Entry())
		changed = true
	}
	return changed, nil
}

func knows(info *repo.BackupInfo, db repo.DB) bool {
	return slices.ContainsFunc(info.History, func(d repo.DB) bool {
		return d.ID == db.ID && d.SystemID == db.SystemID && d.Version == db.Version
	})
}

// labelDirs lists the directories of backups, finished or not, ascending.
func labelDirs(ctx context.Context, s blob.Storage, stanza string) ([]string, error) {
	es, err := s.List(ctx, repo.BackupPath(stanza), false)
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	var out []string
	for _, e := range es {
		if e.Dir && repo.IsLabel(e.Name) {
			out = append(out, e.Name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// removeLeftovers removes what interrupted backups have left: directories
// without a manifest. The caller holds the stanza's lock.
func removeLeftovers(ctx context.Context, s blob.Storage, stanza string, note func(string)) error {
	labels, err := labelDirs(ctx, s, stanza)
	if err != nil {
		return err
	}
	for _, l := range labels {
		if _, err := s.Stat(ctx, repo.BackupPath(stanza, l, repo.ManifestFile)); !isNotExist(err) {
			if err != nil {
				return err
			}
			continue
		}
		note(fmt.Sprintf("the unfinished backup %s is removed", l))
		if err := s.DeleteAll(ctx, repo.BackupPath(stanza, l)); err != nil {
			return fmt.Errorf("remove the unfinished backup %s: %w", l, err)
		}
	}
	return nil
}

// allLabels lists the labels that a new one must sort after, expired ones that
// are still in the history included.
func allLabels(ctx context.Context, s blob.Storage, stanza string) ([]string, error) {
	out, err := labelDirs(ctx, s, stanza)
	if err != nil {
		return nil, err
	}
	es, err := s.List(ctx, repo.HistoryDir(stanza), true)
	if err != nil {
		return nil, fmt.Errorf("list the history of backups: %w", err)
	}
	for _, e := range es {
		if l, ok := strings.CutSuffix(path.Base(e.Name), ".manifest.gz"); ok && repo.IsLabel(l) {
			out = append(out, l)
		}
	}
	return out, nil
}
