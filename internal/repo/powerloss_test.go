package repo

import (
	"testing"

	"manada/internal/blob"
	"manada/internal/durable/durabletest"
)

func posix(t *testing.T, dir string) blob.Storage {
	t.Helper()
	s, err := blob.NewPosix(dir, blob.PosixOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestManifestSurvivesPowerLoss: a backup is there, whole, or it is not.
func TestManifestSurvivesPowerLoss(t *testing.T) {
	dir := t.TempDir()
	m := genManifest().Example(1)
	durabletest.PowerLoss(t, dir, func() error { return SaveManifest(t.Context(), posix(t, dir), "demo", m) }, func(l durabletest.Loss) string {
		s := posix(t, l.Dir)
		if _, err := s.Stat(t.Context(), BackupPath("demo", m.Label, ManifestFile)); err != nil {
			if l.Returned {
				return "it was saved and is gone"
			}
			return ""
		}
		if _, err := LoadManifest(t.Context(), s, "demo", m.Label); err != nil {
			return err.Error()
		}
		return ""
	})
}

// TestInfoSurvivesPowerLoss: backup.info names the backups of before or of after.
func TestInfoSurvivesPowerLoss(t *testing.T) {
	dir := t.TempDir()
	m := genManifest().Example(2)
	i := &BackupInfo{Current: m.DB.ID, History: []DB{m.DB}}
	if err := SaveBackupInfo(t.Context(), posix(t, dir), "demo", i); err != nil {
		t.Fatal(err)
	}
	i.Add(m.Entry())
	durabletest.PowerLoss(t, dir, func() error { return SaveBackupInfo(t.Context(), posix(t, dir), "demo", i) }, func(l durabletest.Loss) string {
		got, err := LoadBackupInfo(t.Context(), posix(t, l.Dir), "demo")
		if err != nil {
			return err.Error()
		}
		if got.Find(m.Label) == nil && l.Returned {
			return "the backup is not named"
		}
		return ""
	})
}
