package pgbackrest

import (
	"bytes"
	"errors"
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

// warned gives what a command line and a configuration file are warned of.
func warned(t *testing.T, conf string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := parseArgs(append(args, "--config="+file))
	if err != nil {
		t.Fatal(err)
	}
	var out, errw bytes.Buffer
	f := &face{line: l, log: newLogger(&out, &errw)}
	if err := errors.Join(f.fromFile(), f.complete()); err != nil {
		t.Fatal(err)
	}
	f.tellIdle()
	return out.String() + errw.String()
}

// TestIdleOptionsAreTold: each option of which something was expected, and that
// does nothing here, is one warning, typed or in the file; what asks for what is
// done anyway is none.
func TestIdleOptionsAreTold(t *testing.T) {
	const head = "[global]\nrepo1-path=/r\n"
	told := []string{"repo1-host=elsewhere", "archive-push-queue-max=1GB", "repo1-retention-history=7", "repo1-bundle=n", "checksum-page=n",
		"lock-path=/l", "resume=y", "log-path=/l", "log-level-file=info"}
	for _, o := range told {
		name, _, _ := strings.Cut(o, "=")
		want := "WARN: option '" + name + "' has no effect in Manada: "
		for _, got := range []string{warned(t, head+o+"\n", "backup", "--stanza=demo"), warned(t, head, "backup", "--stanza=demo", "--"+o)} {
			if !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 {
				t.Errorf("%s: %q", o, got)
			}
		}
	}
	if got := warned(t, head+strings.Join(told, "\n")+"\n", "backup", "--stanza=demo"); strings.Count(got, "WARN: ") != len(told) {
		t.Errorf("all together: %s", got)
	}
	quiet := head + "repo1-bundle=y\nchecksum-page=y\nresume=n\nlog-level-file=off\narchive-async=y\nspool-path=/s\n[demo]\npg1-path=/d\npg1-host=x\npg1-port=5432\n"
	for _, command := range []string{"backup", "restore", "expire", "check", "stanza-create", "verify", "info"} {
		if got := warned(t, quiet, command, "--stanza=demo"); got != "" {
			t.Errorf("%s: %q", command, got)
		}
	}
}

// TestTheOriginalsScriptsStaySilent: what the scripts of deploy/compose type,
// with its configuration, is warned of nothing.
func TestTheOriginalsScriptsStaySilent(t *testing.T) {
	const dir = "../../../deploy/compose/"
	conf, err := os.ReadFile(dir + "configs/pgbackrest/pgbackrest.conf")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob(dir + "scripts/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "exec pgbackrest "); ok {
				n++
				if got := warned(t, string(conf), strings.Fields(strings.TrimSuffix(strings.TrimSpace(rest), ` "$@"`))...); got != "" {
					t.Errorf("%s: %q", script, got)
				}
			}
		}
	}
	if n < 4 {
		t.Errorf("only %d scripts call pgbackrest", n)
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
