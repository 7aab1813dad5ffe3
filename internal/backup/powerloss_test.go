package backup

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"manada/internal/blob"
	"manada/internal/durable/durabletest"
)

// TestArchivePushSurvivesPowerLoss: PostgreSQL recycles a segment as soon as its
// push has returned, so the archive has it, whole, or the push is repeated.
func TestArchivePushSurvivesPowerLoss(t *testing.T) {
	const name = "000000010000000000000005"
	open := func(dir string) ArchiveOptions {
		s, err := blob.NewPosix(dir, blob.PosixOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return ArchiveOptions{Storage: s, Stanza: "demo"}
	}
	dir, seg := t.TempDir(), walFile(t, name, 7, 1)
	want, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	stanza := Cluster{Version: "15", SystemID: 7, Catalog: 202209061, Control: 1300}
	durabletest.PowerLoss(t, dir, func() error { return StanzaCreate(t.Context(), open(dir).Storage, "demo", stanza, nil) }, func(l durabletest.Loss) string {
		// What it left is a stanza, or can be made one.
		if err := StanzaCreate(t.Context(), open(l.Dir).Storage, "demo", stanza, nil); err != nil {
			return err.Error()
		}
		return ""
	})
	durabletest.PowerLoss(t, dir, func() error { return ArchivePush(t.Context(), open(dir), seg) }, func(l durabletest.Loss) string {
		if !l.Returned {
			if err := ArchivePush(t.Context(), open(l.Dir), seg); err != nil {
				return "the push cannot be repeated: " + err.Error()
			}
		}
		dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
		if err := ArchiveGet(t.Context(), open(l.Dir), name, dest); err != nil {
			return err.Error()
		}
		if got, _ := os.ReadFile(dest); !bytes.Equal(got, want) {
			return "another content"
		}
		return ""
	})
}
