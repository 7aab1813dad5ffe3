package postgres

import (
	"os"
	"path/filepath"
	"testing"
)

// TestForeign: a data directory is found where images and packages keep it, and
// ours is none.
func TestForeign(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string
	}{
		{"nothing", []string{"lost+found/x"}, ""},
		{"bitnami's", []string{"data/PG_VERSION", "data/base/1/PG_VERSION"}, "data"},
		{"the folder itself", []string{"PG_VERSION"}, "."},
		{"Debian's", []string{"15/main/PG_VERSION"}, "15/main"},
		{"where ours goes", []string{"pgdata/PG_VERSION"}, "pgdata"},
		{"deeper", []string{"a/b/c/PG_VERSION"}, "a/b/c"},
		{"ours", []string{"pgdata/PG_VERSION", "pgdata/manada.instance", "pgdata/base/1/PG_VERSION"}, ""},
		{"known to its owner", []string{"data/PG_VERSION", "data/manada.ignored"}, ""},
		{"ours and another", []string{"data/PG_VERSION", "pgdata/PG_VERSION", "pgdata/manada.instance"}, "data"},
	} {
		root := t.TempDir()
		for _, f := range c.files {
			must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o700))
			must(t, os.WriteFile(filepath.Join(root, f), []byte("15\n"), 0o600))
		}
		dir, version, err := Foreign(root)
		must(t, err)
		if c.want == "" && dir != "" || c.want != "" && (dir != filepath.Join(root, c.want) || version != "15") {
			t.Errorf("%s: found %q, version %q, want %q", c.name, dir, version, c.want)
		}
	}
	if dir, _, err := Foreign(filepath.Join(t.TempDir(), "none")); dir != "" || err != nil {
		t.Errorf("in a folder that is not there: %q, %v", dir, err)
	}
}
