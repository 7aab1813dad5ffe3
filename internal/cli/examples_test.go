package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"manada/internal/backup"
)

// TestExamplesOfTimes: each time that a document, a script or a help shows as a
// target of a restore is one.
func TestExamplesOfTimes(t *testing.T) {
	var files []string
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/*/*.md", "deploy/*/*.md", "deploy/compose/scripts/*", "internal/cli/*.go", "internal/backup/*.go", "internal/compat/*/*.go"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	// --target-time TIME; --type=time ... --target=TIME; such as 'TIME'
	typed := regexp.MustCompile(`--target(?:-time)?[ =](?:'([^'\n]+)'|"([^"\n]+)")|(?:such as|Write it as|or) '(\d{4}-[^'\n]+)'`)
	n := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) || err != nil && strings.Contains(err.Error(), "is a directory") {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range typed.FindAllStringSubmatch(string(text), -1) {
			s := m[1] + m[2] + m[3]
			if strings.ContainsAny(s, "%$<{") || !strings.ContainsAny(s, "0123456789") {
				continue
			}
			n++
			if _, err := backup.ParseTarget(s, time.UTC); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if n < 12 {
		t.Errorf("only %d examples found", n)
	}
	t.Log(n, "examples")
}
