package agent

import (
	"os"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
	"manada/internal/peer"
)

// What was known of the repository stays when it cannot be asked, and a backup that
// only the primary has told of is not forgotten with it.
func TestRepositoryThatCannotBeAsked(t *testing.T) {
	a := newTestAgent(t)
	label := func(name string, at int64) *cluster.BackupLabel {
		return &cluster.BackupLabel{Label: name, Stop: time.Unix(at, 0)}
	}
	a.SetBackups(&health.Backup{Host: "backup", Unreachable: "refused"})
	if b := a.backupStatus; b.UnknownSince == nil || b.Last != nil {
		t.Errorf("never asked: %+v", b)
	}
	a.SetBackups(&health.Backup{Host: "backup", BackupStatus: cluster.BackupStatus{Last: label("F1", 1)}})
	if b := a.backupStatus; b.UnknownSince != nil || b.Unreachable != "" {
		t.Errorf("asked: %+v", b)
	}
	a.noteBackups(map[string]peer.Heard{"slave": {Beat: cluster.Beat{Backup: label("F2", 2)}}, "old": {Beat: cluster.Beat{Backup: label("F0", 0)}}})
	a.SetBackups(&health.Backup{Host: "backup", Unreachable: "hangs"})
	first := a.backupStatus.UnknownSince
	if b := a.backupStatus; b.Unreachable != "hangs" || first == nil || b.Last == nil || b.Last.Label != "F2" {
		t.Errorf("gone: %+v", b)
	}
	a.SetBackups(&health.Backup{Host: "backup", Unreachable: "hangs"})
	if b := a.backupStatus; !b.UnknownSince.Equal(*first) {
		t.Errorf("unknown since %v, then since %v", first, b.UnknownSince)
	}
	a.SetBackups(&health.Backup{Host: "backup", BackupStatus: cluster.BackupStatus{Last: label("F2", 2)}})
	if b := a.backupStatus; b.UnknownSince != nil || b.Unreachable != "" || b.Last.Label != "F2" {
		t.Errorf("back: %+v", b)
	}
}

// What was known of the repository is known to the next agent of the host, too,
// with since when it may be otherwise.
func TestLastKnownSurvivesTheAgent(t *testing.T) {
	a := newTestAgent(t)
	again := func() *Agent { return New(a.cfg, a.parts) }
	if b := again().backupStatus; b != nil {
		t.Errorf("nothing was known: %+v", b)
	}
	begun := time.Now()
	a.SetBackups(&health.Backup{Host: "backup", Unreachable: "refused"})
	a = again()
	since := a.backupStatus.UnknownSince
	if b := a.backupStatus; since == nil || since.Before(begun) || b.Last != nil {
		t.Errorf("never answered: %+v", b)
	}
	from := time.Unix(50, 0).UTC()
	asked := time.Now()
	a.SetBackups(&health.Backup{Host: "backup", BackupStatus: cluster.BackupStatus{
		Last: &cluster.BackupLabel{Label: "F1", Stop: time.Unix(100, 0).UTC()}, RestorableFrom: &from}})
	a = again()
	check := func(when string) {
		t.Helper()
		b := a.backupStatus
		if b == nil || b.Last == nil || b.Last.Label != "F1" || b.RestorableFrom == nil || b.Host != "backup" || b.UnknownSince == nil || b.UnknownSince.Before(asked.Add(-time.Second)) {
			t.Fatalf("%s: %+v", when, b)
		}
	}
	check("not asked yet")
	since = a.backupStatus.UnknownSince
	a.SetBackups(&health.Backup{Host: "backup", Unreachable: "refused"})
	check("it does not answer")
	a = again()
	a.SetBackups(&health.Backup{Host: "backup", Unreachable: "refused"})
	check("it still does not answer the next agent")
	if !a.backupStatus.UnknownSince.Equal(*since) {
		t.Errorf("unknown since %v, then since %v", since, a.backupStatus.UnknownSince)
	}
	a.SetBackups(&health.Backup{Host: "backup"})
	if b := a.backupStatus; b.UnknownSince != nil || b.Last != nil {
		t.Errorf("it answers: %+v", b)
	}
	if err := os.WriteFile(a.lastKnownPath(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b := again().backupStatus; b != nil {
		t.Errorf("out of a file that is damaged: %+v", b)
	}
}
