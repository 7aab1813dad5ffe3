package health

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"manada/internal/cluster"
)

var update = flag.Bool("update", false, "rewrite golden files and the generated reference")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update to make it)", err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is stale (-want +got), run with -update if that is meant:\n%s", path, d)
	}
}

func screen(t *testing.T, s cluster.Status, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, s, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextGolden(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		t.Run(name, func(t *testing.T) {
			golden(t, filepath.Join("testdata", name+".txt"), []byte(screen(t, Build(scenarios[name]()), Options{})))
		})
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestTextFits: at no width does a line get wider than the terminal, except
// where it ends in a single word that does not fit.
func TestTextFits(t *testing.T) {
	for name, make := range scenarios {
		st := Build(make())
		for _, width := range []int{40, 60, 80, 100} {
			for _, line := range strings.Split(screen(t, st, Options{Width: width, Unicode: true}), "\n") {
				words := strings.Fields(line)
				if len(words) == 0 || len(words[len(words)-1])+9 > width {
					continue // a name that stays whole
				}
				if utf8.RuneCountInString(line) > width {
					t.Errorf("%s at width %d: %d columns: %q", name, width, utf8.RuneCountInString(line), line)
				}
			}
		}
	}
}

// TestColorIsNeverTheOnlySignal: without the colours the same characters stand.
func TestColorIsNeverTheOnlySignal(t *testing.T) {
	for name, make := range scenarios {
		st := Build(make())
		plain := screen(t, st, Options{})
		colored := screen(t, st, Options{Color: true})
		if !strings.Contains(colored, "\x1b[") {
			t.Errorf("%s: no colour", name)
		}
		if d := cmp.Diff(plain, sgr.ReplaceAllString(colored, "")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestTextASCII(t *testing.T) {
	for name, make := range scenarios {
		for _, r := range screen(t, Build(make()), Options{Width: 50}) {
			if r > 126 {
				t.Fatalf("%s: %q in the ASCII form", name, r)
			}
		}
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 kB", 10 << 20: "10.0 MB", 1 << 40: "1.0 TB", 1<<30 - 1: "1.0 GB"} {
		if got := bytesOf(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestWrapKeepsCommandsWhole(t *testing.T) {
	got := wrap("until then a failover may lose commits:  manada explain master", 48)
	want := []string{"until then a failover may lose commits:", "manada explain master"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
