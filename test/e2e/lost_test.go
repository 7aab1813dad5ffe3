package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
)

// says waits until `status` prints all of these, and gives what it prints.
func (e *env) says(within time.Duration, texts ...string) string {
	e.Helper()
	var out string
	e.eventually(within, "status that says "+strings.Join(texts, ", "), func() string {
		r := e.manada("status")
		out = strings.Join(strings.Fields(r.out), " ") // however the lines are broken
		for _, t := range texts {
			if !strings.Contains(out, t) {
				return fmt.Sprintf("%q is not in\n%s%s", t, r.out, r.err)
			}
		}
		return ""
	})
	return out
}

// archiveGap: a segment in the middle of the archive is gone. The status says
// which backup reaches how far, and the command that it names ends that.
func archiveGap(t *testing.T) {
	e := shared(t, 5*time.Minute)
	e.ok(e.manada("backup", "--type", "full"))
	labels := e.labels()
	label := labels[len(labels)-1]
	s := e.healthy()
	dsn := e.NodeDSN(s.Primary)
	var gone string
	for range 3 {
		e.value(dsn, "select pg_logical_emit_message(true, 'test', 'something to archive')")
		name := e.value(dsn, "select pg_walfile_name(pg_current_wal_lsn())")
		e.archiveAll(s.Primary)
		if gone == "" {
			gone = name
		}
	}
	found, err := filepath.Glob(filepath.Join(e.Data, "backup", "repo", "archive", "herd", "*", gone[:16], gone+"-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("segment %s is stored as %v, %v", gone, found, err)
	}
	aside := filepath.Join(e.Data, "segment-that-is-gone")
	if err := os.Rename(found[0], aside); err != nil {
		t.Fatal(err)
	}
	out := e.says(2*time.Minute, "the archive lacks WAL segment "+gone, "restores from backup "+label+", and from older ones, end at ", "archive has a gap", "manada backup")
	if !strings.Contains(out, "DEGRADED") {
		t.Errorf("it is all the same to status:\n%s", out)
	}
	e.ok(e.manada("backup", "--type", "incr"))
	e.await("status with a backup behind the gap", func(s cluster.Status) bool {
		_, err := os.Stat(found[0]) // who takes over meanwhile fills the gap
		return !told(s, "M-B08") && (told(s, "M-B16") || err == nil)
	})
	if err := os.Rename(aside, found[0]); err != nil {
		t.Fatal(err)
	}
	e.await("status without a gap", func(s cluster.Status) bool { return !told(s, "M-B08") && !told(s, "M-B16") })
}

// repositoryEmptied: who can write the repository's folder has emptied it. That is
// told on every host, nothing is begun anew, and with its files back all goes on.
func repositoryEmptied(t *testing.T) {
	e := shared(t, 4*time.Minute)
	e.backedUp()
	s := e.healthy()
	e.await("status without a word of loss", func(s cluster.Status) bool { return !told(s, "M-B13") })
	labels := len(e.labels())
	repo := filepath.Join(e.Data, "backup", "repo")
	for _, dir := range []string{"archive", "backup"} {
		if err := os.Rename(filepath.Join(repo, dir), filepath.Join(repo, dir+".away")); err != nil {
			t.Fatal(err)
		}
	}
	e.says(time.Minute, "the repository on backup has lost what it had: archive/herd/archive.info and 1 more",
		"take a new backup now: manada backup --type full", "remove state/repository.json in the data_dir of backup")
	for _, host := range hosts[:3] {
		e.eventually(20*time.Second, host+" to say what was lost", func() string {
			if s := e.statusOf(host); !told(s, "M-B13") || s.Health != cluster.HealthDegraded {
				return fmt.Sprintf("%s %+v", s.Health, s.Conditions)
			}
			return ""
		})
	}
	e.refused(e.manada("backup"), 1, "not begun anew")
	e.value(e.NodeDSN(s.Primary), "select pg_logical_emit_message(true, 'test', 'something to archive')")
	e.value(e.NodeDSN(s.Primary), "select pg_switch_wal()")
	e.says(time.Minute, "archiving fails: ", "not begun anew")
	for _, dir := range []string{"archive", "backup"} {
		if _, err := os.Stat(filepath.Join(repo, dir, "herd")); err == nil {
			t.Errorf("%s was begun anew", dir)
		}
		_ = os.Remove(filepath.Join(repo, dir))
		if err := os.Rename(filepath.Join(repo, dir+".away"), filepath.Join(repo, dir)); err != nil {
			t.Fatal(err)
		}
	}
	e.await("status without a word of loss", func(s cluster.Status) bool {
		return !told(s, "M-B13") && s.Backup != nil && s.Backup.UnknownSince == nil && s.Backup.Last != nil
	})
	e.archiveAll(s.Primary)
	if n := len(e.labels()); n != labels {
		t.Errorf("%d backups of %d", n, labels)
	}
}
