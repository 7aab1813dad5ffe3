package backup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"manada/internal/blob"
	"manada/internal/repo"
)

// fakeStanza has backups "F1 D1 I1 F2" and so on: an hour apart, each with WAL of
// its own, and WAL between them. Segment n of backup n is its start and stop.
func fakeStanza(t *testing.T, spec string) (*blob.Mem, []string) {
	t.Helper()
	ctx, s := t.Context(), blob.NewMem()
	db := []repo.DB{{ID: 1, SystemID: 7, Version: "15", Catalog: 202209061, Control: 1300}}
	info := &repo.BackupInfo{Current: 1, History: db}
	var full, prior, diff string
	var labels []string
	for i, kind := range strings.Fields(spec) {
		stamp := fmt.Sprintf("20260101-%02d0000", i)
		e := repo.BackupEntry{Format: 5, DBID: 1, ArchiveStart: seg(2*i + 1), ArchiveStop: seg(2*i + 1), TimeStop: int64(i) * 3600}
		if bad := strings.ToLower(kind) == kind; bad {
			e.Error = &bad
		}
		switch strings.ToUpper(kind) {
		case "F":
			e.Label, e.Type = stamp+"F", repo.Full
			full, diff = e.Label, ""
		case "D":
			e.Label, e.Type, e.Prior, e.Reference = full+"_"+stamp+"D", repo.Diff, full, []string{full}
			diff = e.Label
		case "I":
			e.Label, e.Type, e.Prior, e.Reference = full+"_"+stamp+"I", repo.Incr, prior, []string{full}
			if diff != "" {
				e.Reference = append(e.Reference, diff)
			}
		}
		prior = e.Label
		info.Add(e)
		labels = append(labels, e.Label)
		for _, f := range []string{"backup.manifest", "backup.manifest.copy", "bundle/1"} {
			putText(t, s, repo.BackupPath("demo", e.Label, f), "x")
		}
		for _, n := range []int{2 * i, 2*i + 1} {
			putText(t, s, repo.ArchivePath("demo", "15-1", seg(n)[:16], seg(n)+"-"+strings.Repeat("a", 40)+".zst"), "x")
		}
	}
	if err := errors.Join(repo.SaveBackupInfo(ctx, s, "demo", info),
		repo.SaveArchiveInfo(ctx, s, "demo", &repo.ArchiveInfo{Current: 1, History: db})); err != nil {
		t.Fatal(err)
	}
	return s, labels
}

// seg spreads segments over directories, four in each.
func seg(n int) string { return fmt.Sprintf("00000001%08X%08X", n/4, n%4) }

func putText(t *testing.T, s blob.Storage, name, text string) {
	t.Helper()
	if err := s.Put(t.Context(), name, strings.NewReader(text), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// left gives the indexes of the backups and segments that are still there.
func left(t *testing.T, s blob.Storage, labels []string) (backups string, wal string) {
	t.Helper()
	info, err := repo.LoadBackupInfo(t.Context(), s, "demo")
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range labels {
		_, err := s.Stat(t.Context(), repo.BackupPath("demo", l, "backup.manifest"))
		_, dir := s.Stat(t.Context(), repo.BackupPath("demo", l))
		in := info.Find(l) != nil
		if in != (err == nil) || in != (dir == nil) {
			t.Errorf("%s: in backup.info %v, manifest %v, directory %v", l, in, err, dir)
		}
		if in {
			backups += fmt.Sprintf("%d ", i)
		}
	}
	es, err := s.List(t.Context(), repo.ArchivePath("demo", "15-1"), true)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, e := range es {
		have[path.Base(e.Name)[:24]] = true
	}
	for n := range 2 * len(labels) {
		if have[seg(n)] {
			wal += fmt.Sprintf("%d ", n)
		}
	}
	return strings.TrimSpace(backups), strings.TrimSpace(wal)
}

func TestExpire(t *testing.T) {
	for _, c := range []struct {
		name, spec   string
		r            Retention
		backups, wal string
	}{
		{"nothing asked", "F F F", Retention{}, "0 1 2", "0 1 2 3 4 5"},
		{"two fulls of three", "F F F", Retention{Full: 2}, "1 2", "3 4 5"},
		{"fewer than asked", "F F", Retention{Full: 3}, "0 1", "0 1 2 3"},
		{"with dependents", "F D I F I", Retention{Full: 1}, "3 4", "7 8 9"},
		{"the example of the manual", "F D D F", Retention{Diff: 2}, "0 2 3", "0 1 2 3 4 5 6 7"},
		{"a full counts as a diff", "F D I D I", Retention{Diff: 2}, "0 1 2 3 4", "0 1 2 3 4 5 6 7 8 9"},
		{"diff with its incrs", "F D I D I", Retention{Diff: 1}, "0 3 4", "0 1 2 3 4 5 6 7 8 9"},
		{"less WAL than backups", "F D F F", Retention{Full: 3, Archive: 1}, "0 1 2 3", "1 3 5 7"},
		{"full and diff", "F D F D D", Retention{Full: 2, Diff: 1}, "0 2 4", "1 2 3 4 5 6 7 8 9"},
		{"an incr on a diff stays", "F D I", Retention{Full: 1, Diff: 1}, "0 1 2", "1 2 3 4 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, labels := fakeStanza(t, c.spec)
			e, err := Expire(t.Context(), s, "demo", c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			backups, wal := left(t, s, labels)
			if backups != c.backups || wal != c.wal {
				t.Errorf("left backups %q, WAL %q; want %q, %q (%+v)", backups, wal, c.backups, c.wal, e)
			}
		})
	}
}

// TestExpireKilled: killed before any of its deletions or writes, an expire
// leaves only whole backups to be found, and the next one completes it.
func TestExpireKilled(t *testing.T) {
	died := errors.New("killed")
	for n := 0; ; n++ {
		s, labels := fakeStanza(t, "F D I F I")
		ops := 0
		s.Fault = func(op blob.Op, _ string) error {
			if op == blob.OpDelete || op == blob.OpPut {
				if ops++; ops > n {
					return died
				}
			}
			return nil
		}
		_, err := Expire(t.Context(), s, "demo", Retention{Full: 1}, nil)
		if err == nil {
			if n < 6 {
				t.Fatalf("only %d operations", n)
			}
			return
		}
		if !errors.Is(err, died) {
			t.Fatal(err)
		}
		after := s.Snapshot()
		info, err := repo.LoadBackupInfo(t.Context(), after, "demo")
		if err != nil {
			t.Fatalf("killed at operation %d: %v", n, err)
		}
		if _, err := reconcile(t.Context(), after, "demo", info, func(string) {}); err != nil {
			t.Fatalf("killed at operation %d: %v", n, err)
		}
		for _, e := range info.Backups {
			if e.Prior != "" && info.Find(e.Prior) == nil {
				t.Errorf("killed at operation %d: %s is there without %s", n, e.Label, e.Prior)
			}
			if es, _ := after.List(t.Context(), repo.BackupPath("demo", e.Label), true); len(es) != 3 {
				if len(es) < 2 {
					t.Errorf("killed at operation %d: %s counts as a backup with %v", n, e.Label, es)
				}
			}
		}
		if _, err := Expire(t.Context(), after, "demo", Retention{Full: 1}, nil); err != nil {
			t.Fatal(err)
		}
		if err := removeLeftovers(t.Context(), after, "demo", func(string) {}); err != nil {
			t.Fatal(err)
		}
		if backups, wal := left(t, after, labels); backups != "3 4" || wal != "7 8 9" {
			t.Errorf("killed at operation %d, repeated: backups %q, WAL %q", n, backups, wal)
		}
	}
}

// TestExpireKeepsTheCleanOne: backups with damaged pages (in lower case) push no
// clean one out, nor the WAL from it on.
func TestExpireKeepsTheCleanOne(t *testing.T) {
	for _, c := range []struct {
		name, spec   string
		r            Retention
		backups, wal string
	}{
		{"the newest is damaged", "F F f", Retention{Full: 1}, "1 2", "3 4 5"},
		{"so are several", "F F f f f", Retention{Full: 2}, "1 3 4", "3 4 5 6 7 8 9"},
		{"a clean one again", "F f F", Retention{Full: 1}, "2", "5"},
		{"one that is clean with its set", "F I i f", Retention{Full: 1}, "0 1 3", "1 3 4 5 6 7"},
		{"a diff", "F D d F d", Retention{Full: 2, Diff: 1}, "0 3 4", "1 2 3 4 5 6 7 8 9"},
		{"none was ever clean", "f f", Retention{Full: 1}, "1", "3"},
		{"less WAL than backups", "F F f", Retention{Full: 3, Archive: 1}, "0 1 2", "1 3 4 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, labels := fakeStanza(t, c.spec)
			if _, err := Expire(t.Context(), s, "demo", c.r, nil); err != nil {
				t.Fatal(err)
			}
			if backups, wal := left(t, s, labels); backups != c.backups || wal != c.wal {
				t.Errorf("left backups %q, WAL %q; want %q, %q", backups, wal, c.backups, c.wal)
			}
		})
	}
}

// TestExpireOrder: a manifest and its copy go before what they describe, those of
// newer backups before those that they build on.
func TestExpireOrder(t *testing.T) {
	s, labels := fakeStanza(t, "F D I F")
	var ops []string
	s.Fault = func(op blob.Op, name string) error {
		if op == blob.OpDelete {
			ops = append(ops, name)
		}
		return nil
	}
	if _, err := Expire(t.Context(), s, "demo", Retention{Full: 1}, nil); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range []int{2, 1, 0} {
		want = append(want, repo.BackupPath("demo", labels[n], "backup.manifest"), repo.BackupPath("demo", labels[n], "backup.manifest.copy"))
	}
	for _, n := range []int{0, 1, 2} {
		want = append(want, repo.BackupPath("demo", labels[n]))
	}
	if len(ops) < len(want) {
		t.Fatal(ops)
	}
	if d := cmp.Diff(want, ops[:len(want)]); d != "" {
		t.Error(d)
	}
}

// TestExpireHistories: the history file of the oldest backup's own timeline
// stays, as recovery along it needs it; older ones go.
func TestExpireHistories(t *testing.T) {
	s, _ := fakeStanza(t, "F F")
	info, _ := repo.LoadBackupInfo(t.Context(), s, "demo")
	for i := range info.Backups {
		info.Backups[i].ArchiveStart = fmt.Sprintf("%08X%016X", i+3, 0x100+i)
		info.Backups[i].ArchiveStop = info.Backups[i].ArchiveStart
	}
	repo.SaveBackupInfo(t.Context(), s, "demo", info)
	for n := 2; n <= 5; n++ {
		putText(t, s, repo.ArchivePath("demo", "15-1", fmt.Sprintf("%08X.history", n)), "x")
	}
	if _, err := Expire(t.Context(), s, "demo", Retention{Full: 1}, nil); err != nil {
		t.Fatal(err)
	}
	es, err := s.List(t.Context(), repo.ArchivePath("demo", "15-1"), false)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range es {
		if strings.HasSuffix(e.Name, ".history") {
			left = append(left, e.Name)
		}
	}
	if d := cmp.Diff([]string{"00000004.history", "00000005.history"}, left); d != "" {
		t.Error(d)
	}
}

// TestExpireOlderCluster: of a cluster that the stanza had before, none of whose
// backups is among those with whole WAL, the newest full backup keeps its WAL.
func TestExpireOlderCluster(t *testing.T) {
	s, labels := fakeStanza(t, "F F I F")
	info, _ := repo.LoadBackupInfo(t.Context(), s, "demo")
	arch, _ := repo.LoadArchiveInfo(t.Context(), s, "demo")
	now := repo.DB{ID: 2, SystemID: 8, Version: "15", Catalog: 202209061, Control: 1300}
	info.History, arch.History = append(info.History, now), append(arch.History, now)
	info.Current, arch.Current = 2, 2
	info.Backups[3].DBID = 2
	repo.SaveArchiveInfo(t.Context(), s, "demo", arch)
	repo.SaveBackupInfo(t.Context(), s, "demo", info)
	if _, err := Expire(t.Context(), s, "demo", Retention{Full: 3, Archive: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if backups, wal := left(t, s, labels); backups != "0 1 2 3" || wal != "1 3 4 5 6 7" {
		t.Errorf("left backups %q, WAL %q", backups, wal)
	}
}

func TestExpireOldCluster(t *testing.T) {
	s, _ := fakeStanza(t, "F F")
	ctx := t.Context()
	info, _ := repo.LoadBackupInfo(ctx, s, "demo")
	arch, _ := repo.LoadArchiveInfo(ctx, s, "demo")
	older := repo.DB{ID: 0, SystemID: 3, Version: "14", Catalog: 1, Control: 1300}
	info.History, arch.History = append([]repo.DB{older}, info.History...), append([]repo.DB{older}, arch.History...)
	repo.SaveArchiveInfo(ctx, s, "demo", arch)
	putText(t, s, repo.ArchivePath("demo", "14-0", seg(1)[:16], seg(1)), "x")
	if _, err := Expire(ctx, s, "demo", Retention{Full: 1}, nil); err == nil || !strings.Contains(err.Error(), "history") {
		t.Errorf("with histories that differ: %v", err)
	}
	repo.SaveBackupInfo(ctx, s, "demo", info)
	if _, err := Expire(ctx, s, "demo", Retention{Full: 1}, nil); err != nil {
		t.Fatal(err)
	}
	es, err := s.List(context.Background(), repo.ArchivePath("demo"), false)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, e := range es {
		if e.Dir {
			dirs = append(dirs, e.Name)
		}
	}
	if d := cmp.Diff([]string{"15-1"}, dirs); d != "" {
		t.Error(d)
	}
}
