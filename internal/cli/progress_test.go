package cli

import (
	"strings"
	"testing"
	"time"
)

// TestBarFills: the bar shows what is said, whoever counts.
func TestBarFills(t *testing.T) {
	var b strings.Builder
	p := &progress{what: "restore", w: &b, bar: true, began: time.Now()}
	for text, want := range map[string]string{
		"restoring 20261128-000000F 50%": "[##########..........] restore: restoring 20261128-000000F 50%",
		"recovering 100%":                "[####################] restore: recovering 100%",
		"stopping PostgreSQL":            "[....................] restore: stopping PostgreSQL",
	} {
		b.Reset()
		p.said(text)
		if got := strings.TrimPrefix(b.String(), "\r\x1b[K"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	b.Reset()
	p.show("copy", 5, 20)
	if got := b.String(); !strings.Contains(got, "[#####...............] restore: copy  25 %  5 B of 20 B") {
		t.Errorf("%q", got)
	}
}
