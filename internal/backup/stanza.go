package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"manada/internal/blob"
	"manada/internal/repo"
)

// Cluster identifies a PostgreSQL cluster to a stanza.
type Cluster struct {
	Version  string // major, "15"
	SystemID uint64
	Catalog  uint32
	Control  uint32
}

// ReadCluster reads a cluster's identity from its data directory.
func ReadCluster(ctx context.Context, pgdata string) (Cluster, error) {
	v, err := ReadVersion(pgdata)
	if err != nil {
		return Cluster{}, fmt.Errorf("identify cluster: %w", err)
	}
	c, err := ReadControl(ctx, pgdata)
	if err != nil {
		return Cluster{}, fmt.Errorf("identify cluster in %s: %w", pgdata, err)
	}
	return Cluster{Version: v, SystemID: c.SystemID, Catalog: c.CatalogVersion, Control: c.ControlVersion}, nil
}

// StanzaCreate makes the stanza's info files. It does nothing when they are
// there and fit the cluster, writes the one that is missing when the other is
// there, and fails when they are of another cluster or when there is data
// without them.
func StanzaCreate(ctx context.Context, s blob.Storage, stanza string, c Cluster, log *slog.Logger) error {
	return keeperOf(s, log).Create(ctx, stanza, c)
}

func createStanza(ctx context.Context, s blob.Storage, stanza string, c Cluster, log *slog.Logger) error {
	a, err := repo.LoadArchiveInfo(ctx, s, stanza)
	if err != nil && !errors.Is(err, blob.ErrNotExist) {
		return err
	}
	b, err := repo.LoadBackupInfo(ctx, s, stanza)
	if err != nil && !errors.Is(err, blob.ErrNotExist) {
		return err
	}
	if a == nil && b == nil {
		if err := checkStanzaEmpty(ctx, s, stanza); err != nil {
			return err
		}
	}
	return completeStanza(ctx, s, stanza, c, a, b, log)
}

func completeStanza(ctx context.Context, s blob.Storage, stanza string, c Cluster, a *repo.ArchiveInfo, b *repo.BackupInfo, log *slog.Logger) error {
	history := []repo.DB{{ID: 1, SystemID: c.SystemID, Version: c.Version, Catalog: c.Catalog, Control: c.Control}}
	current := 1
	if b != nil {
		if err := checkCluster(stanza, c, b.DB); err != nil {
			return err
		}
		history, current = b.History, b.Current
	}
	if a != nil {
		if err := checkCluster(stanza, c, a.DB); err != nil {
			return err
		}
		if b == nil {
			if len(a.History) > 1 {
				return fail(CodeFileMissing, "Restore backup.info from backup.info.copy or another copy of the repository.",
					"stanza %q has a history but no backup.info", stanza)
			}
			current = a.Current
			history[0].ID = current
		}
	}
	if a == nil {
		if err := repo.SaveArchiveInfo(ctx, s, stanza, &repo.ArchiveInfo{Current: current, History: history}); err != nil {
			return err
		}
		log.Info("stanza archive.info written", "stanza", stanza)
	}
	if b == nil {
		if err := repo.SaveBackupInfo(ctx, s, stanza, &repo.BackupInfo{Current: current, History: history}); err != nil {
			return err
		}
		log.Info("stanza backup.info written", "stanza", stanza)
	}
	return nil
}

// checkStanzaEmpty refuses to begin a stanza over somebody's data.
func checkStanzaEmpty(ctx context.Context, s blob.Storage, stanza string) error {
	for _, dir := range []string{repo.ArchivePath(stanza), repo.BackupPath(stanza)} {
		es, err := s.List(ctx, dir, false)
		if err != nil {
			return err
		}
		if len(es) > 0 {
			return fail(CodePathNotEmpty, "Is this the right repository? Remove what is there, or restore its info files.",
				"stanza %q has data in %s but neither archive.info nor backup.info", stanza, dir)
		}
	}
	return nil
}

// checkCluster compares a cluster with the one that a stanza is for.
func checkCluster(stanza string, c Cluster, current func() (repo.DB, error)) error {
	db, err := current()
	if err != nil {
		return err
	}
	if db.SystemID != c.SystemID || db.Version != c.Version {
		return fail(CodeBackupMismatch, "Use another stanza name for another cluster; after pg_upgrade run stanza-upgrade.",
			"stanza %q belongs to another cluster: it has version %s, system identifier %d; this cluster has version %s, system identifier %d",
			stanza, db.Version, db.SystemID, c.Version, c.SystemID)
	}
	return nil
}

// missingStanza explains why a stanza's info file could not be loaded.
func missingStanza(stanza string, err error) error {
	if errors.Is(err, blob.ErrNotExist) {
		return &Error{Code: CodeFileMissing, Text: fmt.Sprintf("stanza %q has not been created", stanza), Err: err,
			Hint: "Run stanza-create for it."}
	}
	return err
}
