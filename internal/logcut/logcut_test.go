package logcut

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCutUnderItsWriter: a writer that appends goes on in the same file, and
// what it wrote is in the older ones, of which no more are kept than asked for.
func TestCutUnderItsWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postgresql.log")
	w, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, line := range []string{"a", "b", "c", "d"} {
		if _, err := w.WriteString(strings.Repeat(line, 100)); err != nil {
			t.Fatal(err)
		}
		if cut, err := Cut(path, 50, 2); !cut || err != nil {
			t.Fatalf("%v, %v", cut, err)
		}
	}
	if _, err := w.WriteString("e"); err != nil {
		t.Fatal(err)
	}
	if cut, err := Cut(path, 50, 2); cut || err != nil {
		t.Fatalf("of a short one: %v, %v", cut, err)
	}
	for name, want := range map[string]string{"": "e", ".1": strings.Repeat("d", 100), ".2": strings.Repeat("c", 100)} {
		if got, _ := os.ReadFile(path + name); string(got) != want {
			t.Errorf("%s holds %.10q ...", path+name, got)
		}
	}
	if all, _ := filepath.Glob(path + "*"); len(all) != 3 {
		t.Errorf("%q", all)
	}
	if cut, err := Cut(path+".none", 50, 2); cut || err != nil {
		t.Errorf("of none: %v, %v", cut, err)
	}
}
