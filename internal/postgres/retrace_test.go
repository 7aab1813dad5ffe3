package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
)

// promoted stops the node and makes it primary of the next timeline.
func (n *node) promoted(t cluster.Timeline) {
	n.t.Helper()
	ctx := deadline(n.t, 30*time.Second)
	must(n.t, n.Stop(ctx, guardian.Fast, 10*time.Second))
	must(n.t, n.StartStandby(ctx))
	_, err := n.Promote(ctx, uint64(t), t)
	must(n.t, err)
}

// TestRestoreBeforeSwitchovers: the target lies on a timeline that the herd has
// left twice since. The history of the new timeline branches off that one, at the
// target, whether the segment is another one than that of the fork or the same,
// of which the archive has only the child's.
func TestRestoreBeforeSwitchovers(t *testing.T) {
	for _, where := range []string{"in an earlier segment", "in the segment of the fork"} {
		t.Run(where, func(t *testing.T) {
			a, archive, put := restorable(t)
			ctx := deadline(t, 90*time.Second)
			a.sql("create table public.t (i int); insert into public.t values (1)")
			at, err := cluster.ParseLSN(a.sql("select pg_create_restore_point('here')"))
			must(t, err)
			if where == "in an earlier segment" {
				a.sql("insert into public.t values (2); select pg_switch_wal()")
			}
			a.sql("insert into public.t values (3)")
			a.promoted(2)
			a.sql("insert into public.t values (4); select pg_switch_wal()")
			a.promoted(3)
			a.sql("insert into public.t values (5)")
			must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
			o := cluster.Restore{ID: "r1", Type: "name", Target: "here", Timeline: 3, Set: "F1"}
			must(t, a.ArchiveTail(ctx, o, pushTo(archive)))
			must(t, a.BeginRestore(ctx, "r1"))
			put()
			must(t, a.FinishRestore(ctx, "r1"))
			a.recoverTo(at)
			until(t, "pause at the target", func() bool { return a.observe().Paused })
			w, err := a.WALTail(ctx)
			must(t, err)
			if w.End != at || w.Timeline != 1 {
				t.Fatalf("at %s on %d, the target is %s", w.End, w.Timeline, at)
			}
			if _, err := a.Promote(ctx, 4, 4); !errors.Is(err, ErrHistory) {
				t.Fatalf("promoted along timeline 3: %v", err)
			}
			for range 2 { // killed and begun again
				must(t, a.Stop(ctx, guardian.Immediate, 0))
				must(t, a.RecoverAlong("r1", 1, at))
				if o := a.recoverTo(at); o.Replayed != at {
					t.Fatalf("recovered to %s, not %s", o.Replayed, at)
				}
			}
			w, err = a.WALTail(ctx)
			must(t, err)
			if w.End != at || w.Timeline != 1 {
				t.Fatalf("at %s on %d the second time, the target is %s", w.End, w.Timeline, at)
			}
			fork, err := a.Promote(ctx, 4, 4)
			must(t, err)
			h, err := a.history(4)
			must(t, err)
			if fork != at || len(h) != 1 || h[0] != (switchPoint{1, at}) {
				t.Errorf("forked at %s, history %+v, the target is %s", fork, h, at)
			}
			if v := a.sql("select string_agg(i::text, ',') from public.t"); v != "1" {
				t.Errorf("rows %s", v)
			}
			a.sql("insert into public.t values (6); select pg_switch_wal()")
			until(t, "history in the archive", func() bool {
				_, err := os.Stat(filepath.Join(archive, "00000004.history"))
				return err == nil
			})
			if o := a.observe(); o.HistoryFault != "" || !o.RestoreDone {
				t.Errorf("%+v", o)
			}
		})
	}
}

// A target on a timeline in the middle: its history is the beginning of that of
// the timeline along which it was found.
func TestRestoreBetweenSwitchovers(t *testing.T) {
	a, archive, put := restorable(t)
	ctx := deadline(t, 90*time.Second)
	a.sql("create table public.t (i int); insert into public.t values (1); select pg_switch_wal()")
	a.promoted(2)
	a.sql("insert into public.t values (2)")
	at, err := cluster.ParseLSN(a.sql("select pg_create_restore_point('here')"))
	must(t, err)
	a.sql("insert into public.t values (3)")
	a.promoted(3)
	must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
	o := cluster.Restore{ID: "r1", Type: "name", Target: "here", Timeline: 3, Set: "F1"}
	must(t, a.ArchiveTail(ctx, o, pushTo(archive)))
	must(t, a.BeginRestore(ctx, "r1"))
	put()
	must(t, a.FinishRestore(ctx, "r1"))
	a.recoverTo(at)
	must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
	must(t, a.RecoverAlong("r1", 2, at))
	a.recoverTo(at)
	fork, err := a.Promote(ctx, 4, 4)
	must(t, err)
	h, err := a.history(4)
	must(t, err)
	if fork != at || len(h) != 2 || h[0].parent != 1 || h[1] != (switchPoint{2, at}) || h[0].at >= at {
		t.Errorf("forked at %s, history %+v, the target is %s", fork, h, at)
	}
	if v := a.sql("select string_agg(i::text, ',' order by i) from public.t"); v != "1,2" {
		t.Errorf("rows %s", v)
	}
}

func TestHistoryOnlyGrows(t *testing.T) {
	for text, good := range map[string]bool{
		"": true, "# a comment\n": true, "1\t0/5000620\tbefore\n": true,
		"1\t0/60000A0\tx\n\n2\t0/70000A0\tx\n":                      true,
		"1\t0/60000A0\tx\n2\t0/60000A0\tx\n":                        true,
		"1\t0/60000A0\tx\n\n2\t0/70000A0\tx\n3\t0/5000620\tbefore":  false,
		"3\t0/60000A0\tx\n2\t0/70000A0\tx\n":                        false,
		"1\t0/6\tx\n2\t0/7\tx\n3\t0/5\tan earlier fault\n5\t0/9\tx": true,
	} {
		path := filepath.Join(t.TempDir(), "00000004.history")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if err := CheckHistory(path); (err == nil) != good || err != nil && !errors.Is(err, ErrHistory) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What PostgreSQL wrote of a copy that stopped before the timeline along which it
// recovered began is put right: the branch leaves the timeline on which it lies.
func TestMendHistory(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"1\t0/5000620\tbefore 1\n", ""},
		{"1\t0/60000A0\tx\n\n2\t0/70000A0\ty\n\n3\t0/5000620\tbefore 2\n", "1\t0/5000620\tbefore 2\n"},
		{"1\t0/60000A0\tx\n\n2\t0/70000A0\ty\n\n3\t0/6500620\tat restore point\n", "1\t0/60000A0\tx\n2\t0/6500620\tat restore point\n"},
		{"1\t0/60000A0\tx\n\n2\t0/70000A0\ty\n3\t0/80000A0\tz\n", ""},
		{"# a comment\n1\t0/60000A0\tx\n4\t0/70000A0\ty\n7\t0/60000A0\tthe fork itself\n", "1\t0/60000A0\tx\n4\t0/60000A0\tthe fork itself\n"},
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "00000003.history"), []byte("2\t0/9\tolder\n1\t0/8\tand wrong\n"), 0o600))
		path := filepath.Join(dir, "0000000A.history")
		must(t, os.WriteFile(path, []byte(c.text), 0o600))
		was, err := MendHistory(dir)
		must(t, err)
		b, err := os.ReadFile(path)
		must(t, err)
		if (was == "") != (c.want == "") || c.want != "" && string(b) != c.want || c.want == "" && string(b) != c.text {
			t.Errorf("%q became %q (%s), want %q", c.text, b, was, c.want)
		}
	}
	if was, err := MendHistory(t.TempDir()); was != "" || err != nil {
		t.Errorf("a folder without histories: %q, %v", was, err)
	}
}

// lost-and-found is bounded in number and in bytes; the newest bundle stays.
func TestLostAndFoundIsBounded(t *testing.T) {
	n := newNode(t, "a")
	dir := filepath.Join(n.cfg.StateDir, "lost-and-found")
	bundle := func(k int, size int64) {
		d := filepath.Join(dir, fmt.Sprintf("20260101T0000%02d", k))
		must(t, os.MkdirAll(d, 0o700))
		f, err := os.Create(filepath.Join(d, "wal"))
		must(t, err)
		must(t, errors.Join(f.Truncate(size), f.Close())) // a hole
	}
	left := func() string {
		e, err := os.ReadDir(dir)
		must(t, err)
		var names []string
		for _, f := range e {
			names = append(names, strings.TrimPrefix(f.Name(), "20260101T0000"))
		}
		return strings.Join(names, " ")
	}
	for k := range 13 {
		bundle(k, 1<<20)
	}
	must(t, n.pruneTails())
	if got := left(); got != "03 04 05 06 07 08 09 10 11 12" {
		t.Errorf("of 13 bundles: %s", got)
	}
	bundle(20, 600<<20)
	bundle(21, 600<<20)
	must(t, n.pruneTails())
	if got := left(); got != "21" {
		t.Errorf("of two large ones: %s", got)
	}
	bundle(22, 5<<30)
	must(t, n.pruneTails())
	if got := left(); got != "22" {
		t.Errorf("of a huge one: %s", got)
	}
}

// Rewinds are counted by the epoch in which they were made.
func TestRewindsAreCounted(t *testing.T) {
	var m marks
	for _, c := range []struct {
		epoch uint64
		want  int
	}{{2, 1}, {2, 2}, {3, 1}, {3, 2}, {3, 3}} {
		if m.countRewind(c.epoch); m.Rewound != c.want || m.RewoundIn != c.epoch {
			t.Errorf("epoch %d: %+v", c.epoch, m)
		}
	}
}
