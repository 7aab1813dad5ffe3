package pgbackrest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/backup"
)

// Options stand before the command or behind it, with = or without.
func TestParseArgs(t *testing.T) {
	for _, text := range []string{
		"--stanza=demo --type=full backup --no-delta --annotation=a=b --annotation=c=d",
		"backup --stanza demo --type full --annotation a=b --annotation c=d --delta=n",
		"--delta=n --annotation=a=b --stanza demo backup --annotation c=d --type=full",
	} {
		l, err := parseArgs(strings.Fields(text))
		if err != nil {
			t.Fatal(err)
		}
		f := &face{line: l}
		if err := f.complete(); err != nil {
			t.Fatal(err)
		}
		notes, err := l.pairs("annotation")
		if err != nil || l.command.name != "backup" || l.text("stanza") != "demo" || l.text("type") != "full" || l.text("delta") != "n" || notes["a"] != "b" || notes["c"] != "d" {
			t.Errorf("%s: %+v, %v", text, l, err)
		}
		if got := l.said(); got != " --annotation=a=b --annotation=c=d --no-delta --stanza=demo --type=full" {
			t.Errorf("said %q", got)
		}
	}
	l, err := parseArgs([]string{"archive-get", "--stanza=demo", "000000010000000000000001", "pg_wal/RECOVERYXLOG"})
	if err != nil || len(l.params) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

// What was typed wins over the environment, that over the file, and in the file
// what is said for the command.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.conf")
	text := "[global]\nprocess-max=2\nstart-fast=y\ncompress-level=1\ncompress-type=gz\n[global:backup]\ncompress-level=2\n[demo]\npg1-path=/d\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := parseArgs([]string{"backup", "--stanza=demo", "--config=" + file, "--process-max=4"})
	if err != nil {
		t.Fatal(err)
	}
	f := &face{line: l, log: newLogger(&bytes.Buffer{}, &bytes.Buffer{})}
	f.fromEnvironment([]string{"PGBACKREST_PROCESS_MAX=3", "PGBACKREST_COMPRESS_TYPE=lz4", "OTHER=x"})
	if err := f.fromFile(); err != nil {
		t.Fatal(err)
	}
	if err := f.complete(); err != nil {
		t.Fatal(err)
	}
	q, err := f.request()
	if err != nil {
		t.Fatal(err)
	}
	if o := q.Options; q.Type != "incr" || o.Processes != 4 || o.Compress != "lz4" || o.CompressLevel != 2 || o.StartFast == nil || !*o.StartFast {
		t.Errorf("%+v", o)
	}
	if v := f.values["pg-path"]; v == nil || v.typed {
		t.Errorf("pg1-path %+v", v)
	}
}

func TestLog(t *testing.T) {
	var out, errw bytes.Buffer
	l := newLogger(&out, &errw)
	l.now = func() time.Time { return time.Date(2026, 11, 27, 1, 2, 3, 4e6, time.UTC) }
	l.info("not shown")
	l.set("info", "", true)
	l.info("backup command end: completed successfully (1234ms)")
	l.detail("not shown")
	l.failure(&backup.Error{Code: 55, Text: "gone", Hint: "look\nagain"})
	if got := out.String(); got != "2026-11-27 01:02:03.004 P00   INFO: backup command end: completed successfully (1234ms)\n" {
		t.Errorf("%q", got)
	}
	if got := errw.String(); got != "ERROR: [055]: gone\n       HINT: look\n       HINT: again\n" {
		t.Errorf("%q", got)
	}
	out.Reset()
	l.set("", "off", false)
	l.failure(&backup.Error{Code: 55, Text: "gone", Hint: "look"})
	if got := out.String(); got != "P00  ERROR: [055]: gone\n            HINT: look\n" {
		t.Errorf("%q", got)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for args, want := range map[string]string{
		"version":     "pgBackRest 2.45",
		"":            "Use 'pgbackrest help [command]' for more information.",
		"help":        "    stanza-create   Create the required stanza data.\n",
		"help backup": "  --repo1-retention-full\n",
	} {
		var out, errw bytes.Buffer
		if code := Main(strings.Fields(args), nil, &out, &errw); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%q: exit %d\n%s%s", args, code, out.String(), errw.String())
		}
	}
}
