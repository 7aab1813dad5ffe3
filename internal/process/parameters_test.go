package process

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"manada/internal/config"
)

func TestMergeParameters(t *testing.T) {
	got := mergeParameters(map[string]string{"work_mem": "8MB", "log_min_messages": "info"}, map[string]string{"Work_Mem": "4MB", "max_connections": "50"})
	want := map[string]string{"Work_Mem": "4MB", "log_min_messages": "info", "max_connections": "50"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What another version of the program stored and this one refuses is left out:
// PostgreSQL must start.
func TestCachedParameters(t *testing.T) {
	c := &config.Config{DataDir: t.TempDir()}
	if p, err := cachedParameters(c); p != nil || err != nil {
		t.Errorf("without a file: %v, %v", p, err)
	}
	write := func(text string) {
		if err := os.MkdirAll(c.StateDir(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.StateDir(), "parameters.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"schema":1,"parameters":{"work_mem":"8MB","fsync":"off","synchronous_standby_names":""}}`)
	if p, err := cachedParameters(c); err != nil || !maps.Equal(p, map[string]string{"work_mem": "8MB"}) {
		t.Errorf("%v, %v", p, err)
	}
	write(`{"schema":1,"parame`)
	if p, err := cachedParameters(c); err == nil {
		t.Errorf("a torn file: %v", p)
	}
}
