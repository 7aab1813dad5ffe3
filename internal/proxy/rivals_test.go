package proxy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"manada/test/conversation"
)

// TestRivals: for each of the worst bugs of other poolers there is a test.
func TestRivals(t *testing.T) {
	table, err := os.ReadFile("testdata/rivals.txt")
	if err != nil {
		t.Fatal(err)
	}
	all, err := conversation.Corpus()
	if err != nil {
		t.Fatal(err)
	}
	var names strings.Builder
	for _, c := range all {
		names.WriteString(c.Name + "\n")
	}
	tests := testsBelow(t, ".")
	for line := range strings.Lines(string(table)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, " | ")
		if len(f) != 3 {
			t.Fatalf("no three fields: %s", line)
		}
		held := regexp.MustCompile(`"[^"]+"|\w+`).FindAllString(f[2], -1)
		if len(held) == 0 {
			t.Errorf("%s: nothing holds it off", f[0])
		}
		for _, h := range held {
			if name, isConversation := strings.CutPrefix(strings.TrimSuffix(h, `"`), `"`); !isConversation && !tests[h] || isConversation && !strings.Contains(names.String(), name) {
				t.Errorf("%s: there is no %s", f[0], h)
			}
		}
	}
}

// testsBelow are the names of the tests of a folder and those in it.
func testsBelow(t *testing.T, dir string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	name := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range name.FindAllStringSubmatch(string(b), -1) {
			out[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
