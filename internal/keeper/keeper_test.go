package keeper

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/repo"
)

// TestNothingIsFoundedAnew: a repository that is gone is an error, on this host
// and for the others.
func TestNothingIsFoundedAnew(t *testing.T) {
	h := newHouse(t)
	c := backup.Cluster{Version: "15", SystemID: 7}
	must(t, h.as("db1").Create(t.Context(), stanza, c)) // it is there: fine
	for _, dir := range []string{"backup", "archive"} {
		must(t, h.inner.DeleteAll(t.Context(), dir))
	}
	err := h.as("db1").Create(t.Context(), stanza, c)
	if backup.Code(err) != backup.CodeFileMissing || !strings.Contains(err.Error(), "not begun anew") {
		t.Errorf("got %v", err)
	}
	must(t, h.keep.Look(t.Context()))
	m, err := h.as("db1").State(t.Context())
	must(t, err)
	if len(m.Lost) != 2 {
		t.Errorf("lost %v", m.Lost)
	}
	if _, err := h.inner.Stat(t.Context(), "backup/demo/backup.info"); !errors.Is(err, blob.ErrNotExist) {
		t.Error("it was begun anew")
	}
}

// TestWhatIsGoneIsTold: WAL and backups that were there.
func TestWhatIsGoneIsTold(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	seg, text := segment(t, first, 1)
	must(t, put(ctx, h.as("db1"), seg, text))
	label := h.backups("F")[0]
	must(t, h.keep.Look(ctx))
	if m, _ := h.keep.State(); len(m.Lost) != 0 || len(m.Backups) != 1 {
		t.Fatalf("%+v", m)
	}
	must(t, h.inner.Delete(ctx, seg))
	must(t, h.inner.DeleteAll(ctx, "backup/demo/"+label))
	must(t, h.keep.Look(ctx))
	want := []string{"WAL segment 000000010000000000000001", "backup " + label}
	if m, _ := h.keep.State(); !slices.Equal(m.Lost, want) {
		t.Errorf("lost %v, want %v", m.Lost, want)
	}
}

// backups writes down backups of these kinds, a minute apart, as finished ones.
func (h *house) backups(kinds ...string) []string {
	h.Helper()
	info, err := repo.LoadBackupInfo(h.Context(), h.inner, stanza)
	must(h, err)
	var labels []string
	for _, kind := range kinds {
		h.now = h.now.Add(time.Minute)
		l := h.label(kind)
		info.Add(repo.BackupEntry{Label: l, Type: repo.Full, Format: 5, DBID: 1, TimeStop: h.now.Unix()})
		must(h, put(h.Context(), h.inner, "backup/demo/"+l+"/"+repo.ManifestFile, "x"))
		labels = append(labels, l)
	}
	must(h, repo.SaveBackupInfo(h.Context(), h.inner, stanza, info))
	return labels
}

// TestOnlyReadAndOldBackupsPushOut: many in a short time, and those that cannot
// be read back, never do.
func TestOnlyReadAndOldBackupsPushOut(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	good := h.backups("F", "F")
	must(t, h.keep.Look(ctx))
	junk := h.backups("F", "F", "F") // their manifests are no manifests
	expire := func() []string {
		t.Helper()
		e, err := h.keep.ExpireBackups(ctx, stanza, backup.Retention{Full: 1}, false) // asks for less than is kept
		must(t, err)
		return e.Backups
	}
	if gone := expire(); len(gone) != 0 {
		t.Errorf("expired %v at once", gone)
	}
	h.now = h.now.Add(25 * time.Hour)
	if gone := expire(); len(gone) != 0 {
		t.Errorf("expired %v by backups that cannot be read", gone)
	}
	must(t, h.keep.memory.update(func(m *Memory) bool { // read and found whole
		for _, l := range junk {
			k := m.Backups[l]
			k.Bad = ""
			m.Backups[l] = k
		}
		return true
	}))
	if gone := expire(); !slices.Equal(gone, append(good, junk[0])) {
		t.Errorf("expired %v, want all but the newest two", gone)
	}
	if m, _ := h.keep.State(); len(m.Lost) != 0 || len(m.Backups) != 2 {
		t.Errorf("%+v", m)
	}
}
