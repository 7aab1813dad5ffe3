package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]*)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} (.*)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```")
)

// TestLinksLead: every link of the documents to a file or a heading of ours finds
// it, and the contents of how-to.md name all its sections.
func TestLinksLead(t *testing.T) {
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs = append(append(docs, more...), "../../README.md", "../../ARCHITECTURE.md")
	links := 0
	for _, file := range docs {
		for _, m := range link.FindAllStringSubmatch(prose(t, file), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") || strings.HasPrefix(path, "mailto:") {
				continue
			}
			links++
			to := file
			if path != "" {
				to = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %s leads nowhere", file, m[1])
			} else if anchor != "" && !anchors(t, to)[anchor] {
				t.Errorf("%s: %s has no heading #%s", file, to, anchor)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were looked at", links)
	}
	howTo := prose(t, "../../docs/how-to.md")
	for _, h := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(howTo, -1) {
		if !strings.Contains(howTo, "- ["+h[1]+"](#"+slug(h[1])+")") {
			t.Errorf("docs/how-to.md: its contents lack %q", h[1])
		}
	}
}

// prose is a document without its blocks of code.
func prose(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fenced.ReplaceAllString(string(b), "")
}

func anchors(t *testing.T, file string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(prose(t, file), -1) {
		all[slug(h[1])] = true
	}
	return all
}

// slug is the anchor that a heading gets.
func slug(h string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(h) {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}
