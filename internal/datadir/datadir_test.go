package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestHolds: a new mount point is a folder in which nobody has put anything.
func TestHolds(t *testing.T) {
	dir := t.TempDir()
	want := func(name string) {
		t.Helper()
		if got, err := Holds(dir); got != name || err != nil {
			t.Errorf("%q, %v, want %q", got, err, name)
		}
	}
	want("")
	for _, name := range []string{"lost+found", "photo.jpg"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	want("photo.jpg")
	if err := os.Remove(filepath.Join(dir, "photo.jpg")); err != nil {
		t.Fatal(err)
	}
	want("")
	if _, err := Holds(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
