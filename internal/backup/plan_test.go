package backup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/blob"
	"manada/internal/repo"
)

// TestPlan: the backup is chosen on the line of the target, a hole in the
// archive is found, and what cannot be reached is refused with the window.
func TestPlan(t *testing.T) {
	b := newBench(t)
	c := b.initdb("pg", b.walCommandText("push %p"))
	c.stanzaCreate()
	c.start()
	first := c.backup(repo.Full)
	c.sql("create table t as select generate_series(1, 1000)")
	c.flush()
	b.until("the clock is past the second of the first backup", func() bool { return time.Now().Unix() > stopOf(t, b, 0)+1 })
	second := c.backup(repo.Incr)
	c.flush()
	info, err := repo.LoadBackupInfo(b.ctx, b.store, b.stanza)
	if err != nil {
		t.Fatal(err)
	}
	stop2, err := parseLSN(info.Find(second.Label).LSNStop)
	if err != nil {
		t.Fatal(err)
	}
	o := PlanOptions{Storage: b.store, Stanza: b.stanza, Type: RestoreDefault, Line: []Stretch{{Timeline: 1}}, SegmentSize: 16 << 20, Now: time.Now()}
	plan := func(change func(*PlanOptions)) (*Plan, error) {
		o := o
		change(&o)
		return PlanRestore(b.ctx, o)
	}
	want := func(what, label string, change func(*PlanOptions)) *Plan {
		t.Helper()
		p, err := plan(change)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if p.Label != label || p.Segments == 0 || p.Size == 0 {
			t.Errorf("%s: %+v, want backup %s", what, p, label)
		}
		return p
	}
	refused := func(what, says string, change func(*PlanOptions)) {
		t.Helper()
		if p, err := plan(change); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want %q", what, p, err, says)
		}
	}
	want("everything", second.Label, func(*PlanOptions) {})
	want("an older set", first.Label, func(o *PlanOptions) { o.Set = first.Label })
	want("a line that left before the second backup", first.Label, func(o *PlanOptions) {
		o.Line = []Stretch{{Timeline: 2}, {Timeline: 1, End: stop2 - 1}}
	})
	refused("the second backup on that line", "not on the line", func(o *PlanOptions) {
		o.Set, o.Line = second.Label, []Stretch{{Timeline: 2}, {Timeline: 1, End: stop2 - 1}}
	})
	refused("no backup at all", "there is no backup", func(o *PlanOptions) {
		m := blob.NewMem()
		if err := StanzaCreate(b.ctx, m, "demo", Cluster{Version: "15", SystemID: 7, Catalog: 202209061, Control: 1300}, nil); err != nil {
			t.Fatal(err)
		}
		o.Storage, o.Stanza = m, "demo"
	})
	refused("a line without a backup", "no backup is on the line", func(o *PlanOptions) { o.Line = []Stretch{{Timeline: 3}} })
	want("a time between", first.Label, func(o *PlanOptions) {
		o.Type, o.Target = RestoreTime, time.Unix(info.Find(second.Label).TimeStop, 0).UTC().Format(time.RFC3339)
	})
	refused("a time before", "Possible are targets from", func(o *PlanOptions) { o.Type, o.Target = RestoreTime, "2001-01-01 00:00:00Z" })
	refused("a set after the target", "ended only at", func(o *PlanOptions) { o.Set, o.Type, o.Target = first.Label, RestoreTime, "2001-01-01 00:00:00Z" })
	refused("an unknown set", "does not exist", func(o *PlanOptions) { o.Set = "20010101-000000F" })

	// A hole behind the first backup: everything cannot come back from there.
	name := info.Find(first.Label).ArchiveStop
	left, err := filepath.Glob(filepath.Join(b.store.Root(), "archive", b.stanza, "*", name[:16], name+"-*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("%v, %v", left, err)
	}
	if err := os.Remove(left[0]); err != nil {
		t.Fatal(err)
	}
	refused("a hole", "lacks WAL segment", func(o *PlanOptions) { o.Set = first.Label })
	p, err := plan(func(o *PlanOptions) { o.Set, o.Type, o.Target = first.Label, RestoreName, "here" })
	if err != nil || p.Gap != name[8:] {
		t.Errorf("a target that may lie before the hole: %+v, %v", p, err)
	}
	want("the backup behind the hole", second.Label, func(*PlanOptions) {})
}

func stopOf(t *testing.T, b *bench, i int) int64 {
	t.Helper()
	info, err := repo.LoadBackupInfo(b.ctx, b.store, b.stanza)
	if err != nil {
		t.Fatal(err)
	}
	return info.Backups[i].TimeStop
}
