package postgres

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"manada/internal/guardian"
)

// PostgreSQL archives the segment that ends at a stop before it has stopped; an
// archiver that rests does not, and the stop waits for nothing.
func TestRestArchiver(t *testing.T) {
	for _, rests := range []bool{false, true} {
		archive := filepath.Join(t.TempDir(), "a")
		a := leader(t, "a", func(c *Config) { c.ArchiveCommand = "echo %f >>" + archive })
		ctx := deadline(t, 30*time.Second)
		segment := a.sql("select pg_walfile_name(pg_current_wal_insert_lsn())")
		if rests {
			must(t, a.RestArchiver(ctx))
		}
		must(t, a.Stop(ctx, guardian.Fast, 20*time.Second))
		b, _ := os.ReadFile(archive)
		if got := string(b) == segment+"\n"; got == rests {
			t.Errorf("the archiver rests: %v; archived in the stop: %q, the last segment is %s", rests, b, segment)
		}
	}
}
