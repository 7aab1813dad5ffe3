package backup

import (
	"context"
	"log/slog"

	"manada/internal/blob"
	"manada/internal/repo"
)

// Keeper does what concerns a stanza as a whole. A [blob.Storage] that is one
// does it where the repository is, because whoever asks may only add to it;
// for any other storage the engine does it itself. The caller holds the lock of
// the stanza, but for Create and Expire, which take it.
type Keeper interface {
	// Create makes the stanza's info files, as StanzaCreate says.
	Create(ctx context.Context, stanza string, c Cluster) error
	// Begin removes what unfinished backups left and makes backup.info agree
	// with the directories, before a backup.
	Begin(ctx context.Context, stanza string) (notes []string, err error)
	// Finish makes a backup known whose manifest is stored: in backup.info, in
	// the history, and by the link to the latest.
	Finish(ctx context.Context, stanza, label string) (notes []string, err error)
	// Discard removes what a failed backup has stored; one with a manifest stays.
	Discard(ctx context.Context, stanza, label string) error
	// ExpireBackups applies a retention; a keeper may keep more. held says that
	// the caller holds the lock.
	ExpireBackups(ctx context.Context, stanza string, r Retention, held bool) (*Expired, error)
}

func keeperOf(s blob.Storage, log *slog.Logger) Keeper {
	if k, ok := s.(Keeper); ok {
		return k
	}
	return NewKeeper(s, log)
}

// NewKeeper makes the keeper that works on the storage itself.
func NewKeeper(s blob.Storage, log *slog.Logger) Keeper { return direct{s, log} }

type direct struct {
	s   blob.Storage
	log *slog.Logger
}

// Begin implements Keeper.
func (d direct) Begin(ctx context.Context, stanza string) ([]string, error) {
	n := newNotices(d.log)
	info, err := repo.LoadBackupInfo(ctx, d.s, stanza)
	if err != nil {
		return nil, missingStanza(stanza, err)
	}
	if err := removeLeftovers(ctx, d.s, stanza, n.add); err != nil {
		return n.list, err
	}
	changed, err := reconcile(ctx, d.s, stanza, info, n.add)
	if err == nil && changed {
		err = repo.SaveBackupInfo(ctx, d.s, stanza, info)
	}
	return n.list, err
}

// Finish implements Keeper.
func (d direct) Finish(ctx context.Context, stanza, label string) ([]string, error) {
	n := newNotices(d.log)
	m, err := repo.LoadManifest(ctx, d.s, stanza, label)
	if err != nil {
		return nil, err
	}
	info, err := repo.LoadBackupInfo(ctx, d.s, stanza)
	if err != nil {
		return nil, missingStanza(stanza, err)
	}
	if m.Prior != "" && info.Find(m.Prior) == nil || !knows(info, m.DB) {
		return nil, fail(CodeFormat, "", "backup %s builds on what the stanza does not have", label)
	}
	if err := repo.SaveHistory(ctx, d.s, stanza, m); err != nil {
		return nil, err
	}
	if err := d.s.Link(ctx, repo.BackupPath(stanza, repo.LatestLink), label); err != nil {
		n.add("the link to the latest backup was not made: " + err.Error())
	}
	if info.Find(label) == nil {
		info.Add(m.Entry())
	}
	return n.list, repo.SaveBackupInfo(ctx, d.s, stanza, info)
}

// Discard implements Keeper.
func (d direct) Discard(ctx context.Context, stanza, label string) error {
	if !repo.IsLabel(label) {
		return fail(CodeOption, "", "%q is not the label of a backup", label)
	}
	_, err := d.s.Stat(ctx, repo.BackupPath(stanza, label, repo.ManifestFile))
	if !isNotExist(err) {
		return err
	}
	return d.s.DeleteAll(ctx, repo.BackupPath(stanza, label))
}

// ExpireBackups implements Keeper.
func (d direct) ExpireBackups(ctx context.Context, stanza string, r Retention, held bool) (*Expired, error) {
	if !held {
		lock, locked, err := lockStanza(ctx, d.s, stanza)
		if err != nil {
			return nil, err
		}
		defer lock.unlock()
		ctx = locked
	}
	n := newNotices(d.log)
	e, err := expire(ctx, d.s, stanza, r, n)
	if err != nil {
		return nil, because(ctx, err)
	}
	e.Notices = n.list
	return e, nil
}

// addAll adds what a keeper said.
func (n *notices) addAll(notes []string) {
	for _, t := range notes {
		n.add(t)
	}
}

// Create implements Keeper.
func (d direct) Create(ctx context.Context, stanza string, c Cluster) error {
	if err := repo.CheckStanza(stanza); err != nil {
		return err
	}
	lock, ctx, err := lockStanza(ctx, d.s, stanza)
	if err != nil {
		return err
	}
	defer lock.unlock()
	return createStanza(ctx, d.s, stanza, c, newNotices(d.log).log)
}

// CheckStored says what is missing of the files that a backup itself stored, by
// name and size: a look that costs no reading.
func CheckStored(ctx context.Context, s blob.Storage, stanza, label string) error {
	m, err := repo.LoadManifest(ctx, s, stanza, label)
	if err == nil {
		err = m.Restorable()
	}
	if err != nil {
		return err
	}
	es, err := s.List(ctx, repo.BackupPath(stanza, label), true)
	if err != nil {
		return err
	}
	size := map[string]int64{}
	for _, e := range es {
		size[repo.BackupPath(stanza, label, e.Name)] = e.Size
	}
	for i := range m.Files {
		f := &m.Files[i]
		if f.Size == 0 || f.Reference != "" && f.Reference != label {
			continue
		}
		name, least := repo.FilePath(stanza, label, f.Name, m.Option.Compress), f.SizeRepo
		if f.BundleID != 0 {
			name, least = repo.BundlePath(stanza, label, f.BundleID), f.BundleOffset+f.SizeRepo
		}
		if got, ok := size[name]; !ok || got < least {
			return fail(CodeFileMissing, "", "backup %s: %s is not whole in the repository (%d of %d bytes)", label, f.Name, got, least)
		}
	}
	return nil
}
