package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPromotionFetchesNothing: PostgreSQL asks the archive the moment its
// upstream dies, and goes on with the restore_command of that moment until after
// its promotion, whatever it is told meanwhile. Once the upstream is cut that
// command fetches nothing and costs nothing.
func TestPromotionFetchesNothing(t *testing.T) {
	a := leader(t, "a")
	calls := filepath.Join(filepath.Dir(a.cfg.RunDir), "calls")
	must(t, os.WriteFile(calls, nil, 0o666))
	must(t, os.Chmod(calls, 0o666))
	asked := func() []string {
		b, err := os.ReadFile(calls)
		must(t, err)
		return strings.Fields(string(b))
	}
	b := standby(t, a, "b", 1, 1, func(c *Config) {
		c.RestoreCommand = "sh -c 'echo %f >> " + calls + "; sleep 0.3; exit 1'"
	})
	until(t, "b asks the archive while it follows", func() bool { return len(asked()) > 0 })
	must(t, os.Truncate(calls, 0))
	a.kill9()
	until(t, "b asks the archive", func() bool { return len(asked()) > 0 })
	b.freeze()
	before := asked()
	begun := time.Now()
	_, err := b.Promote(deadline(t, 30*time.Second), 2, 2)
	must(t, err)
	t.Log("promote", time.Since(begun))
	if after := asked(); len(after) != len(before) {
		t.Errorf("asked the archive for %v after the upstream was cut", after[len(before):])
	}
}
