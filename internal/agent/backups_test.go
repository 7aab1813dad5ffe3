package agent

import (
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
