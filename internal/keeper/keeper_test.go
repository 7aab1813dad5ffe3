package keeper

import (
	"errors"
	"fmt"
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

// TestGapsAreTold: WAL that stays missing is told, not what is archived a moment
// later.
func TestGapsAreTold(t *testing.T) {
	h := newHouse(t)
	ctx, a := t.Context(), h.as("db1")
	must(t, h.keep.LookForGaps(ctx)) // nothing is there yet
	name := func(n int) string { return fmt.Sprintf("0000000100000000000000%02X", n) }
	label := h.backups("F")[0]
	info, err := repo.LoadBackupInfo(ctx, h.inner, stanza)
	must(t, err)
	e := info.Find(label)
	e.Online, e.ArchiveStart, e.ArchiveStop, e.LSNStop = true, name(1), name(1), "0/1000A0"
	must(t, repo.SaveBackupInfo(ctx, h.inner, stanza, info))
	archive := func(n int) {
		t.Helper()
		path, text := segment(t, name(n), 1)
		must(t, put(ctx, a, path, text))
	}
	told := func() []KnownGap {
		t.Helper()
		must(t, h.keep.LookForGaps(ctx))
		st, err := a.State(ctx)
		must(t, err)
		return st.Gaps
	}
	for _, n := range []int{1, 2, 4} {
		archive(n)
	}
	if g := told(); len(g) != 0 {
		t.Errorf("told at once: %+v", g)
	}
	h.now = h.now.Add(gapPatience)
	if g := told(); len(g) != 1 || g[0].First != name(3) || g[0].Backup != label || g[0].Covered {
		t.Errorf("told %+v", g)
	}
	archive(3)
	if g := told(); len(g) != 0 {
		t.Errorf("it is filled, and told: %+v", g)
	}
}
