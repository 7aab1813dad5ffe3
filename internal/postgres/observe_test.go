package postgres

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"manada/internal/cluster"
	"manada/internal/guardian"
)

// A look that was under way when the stop was asked for loses its session before the
// guardian's word of the stop can be heard: the primary is stopping all the same, so
// that the last WAL of its epoch is archived and the stop does not wait for it.
func TestAStopBehindTheLook(t *testing.T) {
	i := &Instance{cfg: Config{DataDir: t.TempDir()}}
	before := guardian.Status{Running: true, PID: 4711}
	for status, want := range map[string]cluster.PostgresState{
		"ready": cluster.PostgresStarting, "starting": cluster.PostgresStarting, "stopping": cluster.PostgresStopping,
	} {
		lines := "4711\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  1 2\n" + status + "  \n"
		must(t, os.WriteFile(filepath.Join(i.cfg.DataDir, "postmaster.pid"), []byte(lines), 0o600))
		if got := i.stateOfError(t.Context(), io.ErrUnexpectedEOF, before); got != want {
			t.Errorf("postmaster.pid says %q: %q, want %q", status, got, want)
		}
	}
}
