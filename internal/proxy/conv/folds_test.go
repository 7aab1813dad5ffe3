package conv

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The table of package proxy, which is tried with PostgreSQL, has what is in the key of a
// shared statement.
func TestFolds(t *testing.T) {
	b, err := os.ReadFile("../testdata/folds.txt")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for line := range strings.Lines(string(b)) {
		if name, rest, ok := strings.Cut(line, " | "); ok && line[0] != '#' && strings.HasPrefix(rest, "key | ") {
			keys = append(keys, strings.ToLower(name))
		}
	}
	want := slices.Sorted(slices.Values(folds))
	if slices.Sort(keys); !slices.Equal(keys, want) {
		t.Errorf("the table has %q, the key %q", keys, want)
	}
}
