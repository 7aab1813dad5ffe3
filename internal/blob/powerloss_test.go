package blob

import (
	"io"
	"strings"
	"testing"

	"manada/internal/durable/durabletest"
)

// TestPutSurvivesPowerLoss: "durable when Put returns nil", in folders that are
// made by it, in place of an older file, and where nothing may be replaced.
func TestPutSurvivesPowerLoss(t *testing.T) {
	root := t.TempDir()
	p, err := NewPosix(root, PosixOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, old, new string
		o              PutOptions
	}{
		{"archive/x/15-1/0000000100000000/a", "", "first", PutOptions{}},
		{"archive/x/15-1/0000000100000000/a", "first", "second", PutOptions{}},
		{"archive/x/15-1/0000000100000000/b", "", "new", PutOptions{NoOverwrite: true}},
	} {
		durabletest.PowerLoss(t, root, func() error { return p.Put(t.Context(), c.name, strings.NewReader(c.new), c.o) }, func(l durabletest.Loss) string {
			left, err := NewPosix(l.Dir, PosixOptions{})
			if err != nil {
				return err.Error()
			}
			got := ""
			if r, err := left.Open(t.Context(), c.name, 0, -1); err == nil {
				b, _ := io.ReadAll(r)
				r.Close()
				got = string(b) + "|"
			}
			if got != c.new+"|" && (l.Returned || got != "" && got != c.old+"|" || got == "" && c.old != "") {
				return "it holds " + got
			}
			return ""
		})
	}
	durabletest.PowerLoss(t, root, func() error { return p.Delete(t.Context(), "archive/x/15-1/0000000100000000/a") }, func(l durabletest.Loss) string {
		left, _ := NewPosix(l.Dir, PosixOptions{})
		if _, err := left.Stat(t.Context(), "archive/x/15-1/0000000100000000/a"); err == nil && l.Returned {
			return "what was deleted is back"
		}
		return ""
	})
}
