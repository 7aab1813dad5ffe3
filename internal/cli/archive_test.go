package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRestoreCommandText: whatever the program is called and wherever it and the
// file are, the shell runs it as itself.
func TestRestoreCommandText(t *testing.T) {
	for _, name := range []string{"manada", "pgbackrest", "it's 100% me"} {
		dir := filepath.Join(t.TempDir(), "a b")
		exe, file := filepath.Join(dir, name), filepath.Join(dir, "host's $HOME.yaml")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(exe, []byte("#!/bin/sh\nprintf '%s|' \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		// As PostgreSQL does with the setting.
		text := strings.NewReplacer("%%", "%", "%f", "SEG", "%p", "pg_wal/X").Replace(restoreCommandText(exe, file, name == "pgbackrest"))
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", text).CombinedOutput()
		want := "archive-get|-c|" + file + "|SEG|pg_wal/X|"
		if name != "manada" {
			want = "manada|" + want
		}
		if name == "pgbackrest" {
			want = strings.Replace(want, "archive-get|", "archive-get|--standby|", 1)
		}
		if err != nil || string(out) != want {
			t.Errorf("%s: %q, %v; want %q", text, out, err, want)
		}
	}
}
