package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/durable"
	"manada/internal/durable/durabletest"
)

// oldOrNew is what every durable write of one file must leave.
func oldOrNew(name, old, new string) func(durabletest.Loss) string {
	return func(l durabletest.Loss) string {
		b, err := os.ReadFile(filepath.Join(l.Dir, name))
		got := string(b)
		if errors.Is(err, fs.ErrNotExist) {
			got, err = "gone", nil
		}
		switch {
		case err != nil:
			return err.Error()
		case got == new, got == old && !l.Returned:
			return ""
		}
		return "there is " + got
	}
}

func TestWriteSurvivesPowerLoss(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		write          func(path string) error
	}{
		{"replace", "old", "new", func(p string) error { return durable.Write(p, []byte("new"), durable.Options{}) }},
		{"first", "gone", "new", func(p string) error { return durable.Write(p, []byte("new"), durable.Options{}) }},
		{"new", "gone", "new", func(p string) error { return durable.WriteNew(p, []byte("new"), durable.Options{}) }},
		{"remove", "old", "gone", durable.Remove},
		{"remove all", "old", "gone", durable.RemoveAll},
		{"stream", "old", "new", func(p string) error {
			f, err := durable.Create(p, durable.Options{})
			if err != nil {
				return err
			}
			defer f.Abort()
			_, err1 := f.Write([]byte("n"))
			_, err2 := f.Write([]byte("ew"))
			return errors.Join(err1, err2, f.Commit())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state")
			if c.old != "gone" {
				if err := os.WriteFile(path, []byte(c.old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			durabletest.PowerLoss(t, dir, func() error { return c.write(path) }, oldOrNew("state", c.old, c.new))
		})
	}
}

func TestRenameSurvivesPowerLoss(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700), os.Mkdir(filepath.Join(dir, "c"), 0o700),
		os.WriteFile(filepath.Join(dir, "a", "b", "f"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	durabletest.PowerLoss(t, dir, func() error { return durable.Rename(filepath.Join(dir, "a", "b"), filepath.Join(dir, "c", "d")) },
		func(l durabletest.Loss) string {
			if !l.Returned {
				return ""
			}
			return oldOrNew("c/d/f", "x", "x")(l)
		})
}

func TestMkdirAllSurvivesPowerLoss(t *testing.T) {
	dir := t.TempDir()
	durabletest.PowerLoss(t, dir, func() error {
		if err := durable.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
			return err
		}
		return durable.Write(filepath.Join(dir, "a", "b", "f"), []byte("new"), durable.Options{})
	}, oldOrNew("a/b/f", "gone", "new"))
}

func TestPlaceWritesContentFirst(t *testing.T) {
	dir := t.TempDir()
	part, path := filepath.Join(dir, "part"), filepath.Join(dir, "state")
	if err := errors.Join(os.WriteFile(part, []byte("new"), 0o600), os.WriteFile(path, []byte("old"), 0o600)); err != nil {
		t.Fatal(err)
	}
	durabletest.PowerLoss(t, dir, func() error { return durable.Place(part, path) }, oldOrNew("state", "old", "new"))
}

func TestSymlinkSurvivesPowerLoss(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "latest")
	if err := os.Symlink("old", path); err != nil {
		t.Fatal(err)
	}
	durabletest.PowerLoss(t, dir, func() error { return durable.Symlink("new", path) }, func(l durabletest.Loss) string {
		to, err := os.Readlink(filepath.Join(l.Dir, "latest"))
		if err != nil || to != "new" && (to != "old" || l.Returned) {
			return "the link leads to " + to
		}
		return ""
	})
}

// The twin must find what is written the wrong way, or its silence says nothing.
func TestTwinFindsMistakes(t *testing.T) {
	for name, write := range map[string]func(dir string) []durable.Op{
		"no sync": func(dir string) []durable.Op {
			return []durable.Op{
				{Kind: durable.OpCreate, Path: dir + "/t"}, {Kind: durable.OpWrite, Path: dir + "/t", Data: []byte("new")},
				{Kind: durable.OpRename, Path: dir + "/t", To: dir + "/state"}, {Kind: durable.OpSyncDir, Path: dir},
			}
		},
		"no sync of the folder": func(dir string) []durable.Op {
			return []durable.Op{
				{Kind: durable.OpCreate, Path: dir + "/t"}, {Kind: durable.OpWrite, Path: dir + "/t", Data: []byte("new")}, {Kind: durable.OpSync, Path: dir + "/t"},
				{Kind: durable.OpRename, Path: dir + "/t", To: dir + "/state"},
			}
		},
		"in place": func(dir string) []durable.Op {
			return []durable.Op{
				{Kind: durable.OpRemove, Path: dir + "/state"}, {Kind: durable.OpCreate, Path: dir + "/state"},
				{Kind: durable.OpWrite, Path: dir + "/state", Data: []byte("new")}, {Kind: durable.OpSync, Path: dir + "/state"}, {Kind: durable.OpSyncDir, Path: dir},
			}
		},
		"sync after the name": func(dir string) []durable.Op {
			return []durable.Op{
				{Kind: durable.OpCreate, Path: dir + "/t"}, {Kind: durable.OpWrite, Path: dir + "/t", Data: []byte("new")},
				{Kind: durable.OpRename, Path: dir + "/t", To: dir + "/state"}, {Kind: durable.OpSync, Path: dir + "/state"}, {Kind: durable.OpSyncDir, Path: dir},
			}
		},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state"), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if found := durabletest.Losses(t, dir, write(dir), oldOrNew("state", "old", "new")); len(found) == 0 {
			t.Errorf("%s: the twin found nothing", name)
		}
	}
}

func TestNewDoesNotReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := durable.WriteNew(path, []byte("a"), durable.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteNew(path, []byte("b"), durable.Options{}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("got %v, want that it exists", err)
	}
	b, _ := os.ReadFile(path)
	if left, _ := os.ReadDir(filepath.Dir(path)); string(b) != "a" || len(left) != 1 {
		t.Fatalf("it holds %q beside %d files", b, len(left)-1)
	}
}

func TestModeAndOwner(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "f")
	o := durable.Options{Mode: 0o644}
	if os.Geteuid() == 0 {
		o.Owner = &durable.Owner{UID: 7, GID: 8}
	}
	if err := durable.Write(path, nil, o); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o644 {
		t.Errorf("mode %o", st.Mode().Perm())
	}
	if s := st.Sys().(*syscall.Stat_t); o.Owner != nil && (s.Uid != 7 || s.Gid != 8) {
		t.Errorf("owner %d:%d", s.Uid, s.Gid)
	}
	if o.Owner == nil {
		return
	}
	if got, err := durable.OwnerOf(path); err != nil || *got != *o.Owner {
		t.Errorf("owner of it: %v, %v", got, err)
	}
}

// A name of 255 bytes leaves no room for a mark behind it.
func TestLongName(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
	if err := durable.Write(path, []byte("x"), durable.Options{}); err != nil {
		t.Fatal(err)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * time.Hour)
	for name, at := range map[string]time.Time{
		"d/f.0a1b2c3d" + durable.TempMark: long, // left over
		"g.0a1b2c3d" + durable.TempMark:   time.Now(),
		"state":                           long,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	below, _ := filepath.Glob(filepath.Join(dir, "d", "*"))
	if len(left) != 3 || len(below) != 0 {
		t.Fatalf("left: %q %q", left, below)
	}
}
