package pgbackrest

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"manada/internal/config"
)

func translate(text string) (Settings, []config.Problem, error) {
	return Translate(strings.NewReader(text), "pgbackrest.conf")
}

// The file of the guide: nothing in it is lost, and what is not needed is said.
func TestTranslateGuide(t *testing.T) {
	s, warnings, err := translate("[global]\nrepo1-path=/var/lib/pgbackrest\nrepo1-retention-full=2\n\n[demo]\npg1-path=/bitnami/postgresql/data\npg1-host=postgresql-slave\npg1-user=postgres\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (Settings{Stanza: "demo", RepoPath: "/var/lib/pgbackrest", RetentionFull: 2, PGPath: "/bitnami/postgresql/data"}); !reflect.DeepEqual(s, want) {
		t.Errorf("%+v", s)
	}
	if want := []Key{{"backup.stanza", "demo"}, {"backup.repo_path", "/var/lib/pgbackrest"}, {"backup.retention_full", "2"}}; !reflect.DeepEqual(s.Keys(), want) {
		t.Errorf("%v", s.Keys())
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0].String(), "pgbackrest.conf:7: pg1-host: not needed") || !strings.Contains(warnings[1].String(), ":8: pg1-user") {
		t.Errorf("%v", warnings)
	}
}

func TestTranslateSections(t *testing.T) {
	s, warnings, err := translate(`# a comment
[global]
process-max=4
compress-type=lz4
start-fast=n
[global:backup]
process-max = 3
[global:archive-push]
compress-level=1
[demo:expire]
repo1-retention-diff=7
[demo:backup]
repo1-retention-full=9
[demo]
repo1-retention-full=3
compress-type=gz
compress-level=9
`)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := Settings{Stanza: "demo", RetentionFull: 3, RetentionDiff: 7, Compress: "gz", CompressLevel: 9, Processes: 3, StartFast: &no}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v", s)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0].String(), ":9: compress-level: the command line alone") {
		t.Errorf("%v", warnings)
	}
	if s, _, err = translate("[global]\ncompress=n\ncompress-type=zst\n"); err != nil || s.Compress != "none" || s.Stanza != "" {
		t.Errorf("%+v, %v", s, err)
	}
}

// What Manada does not do is refused with its place, not passed over.
func TestTranslateRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"[global]\nrepo1-cipher-type=aes-256-cbc":            "pgbackrest.conf:2: repo1-cipher-type=aes-256-cbc: not supported: the repository is not encrypted",
		"[global]\nrepo1-cipher-pass=sesame":                 ":2: repo1-cipher-pass: not supported",
		"[global]\n\nrepo1-type=s3":                          ":3: repo1-type=s3: not supported: the repository is a folder",
		"[global]\nrepo1-s3-bucket=b":                        ":2: repo1-s3-bucket=b: not supported",
		"[global]\nrepo2-path=/r":                            ":2: repo2-path=/r: not supported: the herd has one repository",
		"[global]\nrepo1-retention-full-type=time":           "full backups are counted",
		"[global]\nbackup-standby=y":                         "backups are made on the primary",
		"[global]\nrepo1-retention-fall=2":                   "did you mean repo1-retention-full?",
		"[global]\nrepo1-retention-full=two":                 `"two" is no whole number`,
		"[global]\nrepo1-retention-full=0":                   "0 is out of range",
		"[global]\ncompress-type=bz2":                        "bz2 is read, but not written",
		"[global]\nstart-fast=yes":                           "neither y nor n",
		"[global]\nrepo1-path=repo":                          "not absolute",
		"[global]\npg1-path=/d":                              "belongs to a stanza",
		"[global]\ntype=full":                                "belongs on the command line",
		"[global]\nrepo1-path=/a\nrepo1-path=/b":             ":3: repo1-path: given twice, first in line 2",
		"[global]\nrepo1-path=":                              "has no value",
		"[global]\nrepo1-path":                               "neither a section nor key=value",
		"repo1-path=/a":                                      "stands before the first section",
		"[a]\npg1-path=/a\n[b]\npg1-path=/b":                 ":3: [b]: a second stanza",
		"[global:bakup]\nstart-fast=y":                       "did you mean [global:backup]?",
		"[Demo]\npg1-path=/a":                                "cannot be the stanza of a herd",
		"[global]\nrepo1-cipher-type=none\nrepo1-type=posix": "",
	} {
		_, _, err := translate(text)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		var ps config.Problems
		if !errors.As(err, &ps) || len(ps) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("a secret in a message: %v", err)
		}
	}
}
