package postgres

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
	"manada/internal/guardian"
)

// restorable is a primary of timeline 1 with an archive, and a backup of it: the
// directory as initdb left it, without WAL.
func restorable(t *testing.T) (n *node, archive string, put func()) {
	t.Helper()
	n = leader(t, "a", func(c *Config) {
		archive = filepath.Join(filepath.Dir(c.DataDir), "archive")
		c.ArchiveCommand = "cp %p " + archive + "/%f"
		c.RestoreCommand = "cp " + archive + "/%f %p"
	})
	must(t, os.MkdirAll(archive, 0o700))
	put = func() {
		t.Helper()
		must(t, exec.Command("sh", "-c", "rm -rf \"$2\"/* && cp -a \"$1\"/. \"$2\" && rm -f \"$2\"/pg_wal/0*", "sh", template.dir, n.cfg.DataDir).Run())
	}
	return n, archive, put
}

func pushTo(dir string) func(context.Context, string) error {
	return func(_ context.Context, path string) error {
		return durable.Copy(path, filepath.Join(dir, filepath.Base(path)), durable.Options{})
	}
}

// recover starts the restored directory and waits until it has replayed to at.
func (n *node) recoverTo(at cluster.LSN) Observation {
	n.t.Helper()
	must(n.t, n.StartStandby(deadline(n.t, 20*time.Second)))
	until(n.t, "replay of "+at.String(), func() bool { return n.observe().Replayed >= at })
	return n.observe()
}

// TestRestore goes through every step: the last WAL is archived to its very end,
// what was kept comes back with an undo, and without one everything is there on
// the new timeline.
func TestRestore(t *testing.T) {
	a, archive, put := restorable(t)
	ctx := deadline(t, 90*time.Second)
	a.sql("create table public.t (i int); insert into public.t values (1); select pg_switch_wal()")
	a.sql("insert into public.t values (2)") // in a segment that is not full
	before := a.observe()
	o := cluster.Restore{ID: "r1", Type: cluster.RestoreDefault, Timeline: 1, Set: "F1", KeepOld: true}
	if a.ArchiveTail(ctx, o, pushTo(archive)) == nil {
		t.Fatal("the tail was archived while WAL was written")
	}
	must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
	end, _, err := a.WALEnd(ctx)
	must(t, err)
	must(t, a.ArchiveTail(ctx, o, pushTo(archive)))
	m, err := a.RestoreMark()
	must(t, err)
	if m.Tail != end || m.TailTimeline != 1 {
		t.Errorf("the mark says %s on %d, the WAL ends at %s", m.Tail, m.TailTimeline, end)
	}
	if _, err := os.Stat(filepath.Join(archive, cluster.Timeline(1).Segment(end-1, 16<<20))); err != nil {
		t.Error("the last segment is not archived:", err)
	}

	must(t, a.BeginRestore(ctx, "r1"))
	must(t, a.BeginRestore(ctx, "r1")) // killed and begun again
	if o := a.observe(); o.Instance != "" || o.Poison == nil || !o.Restore.Touched {
		t.Errorf("half made: %+v", o)
	}
	if a.StartStandby(ctx) == nil {
		t.Fatal("a half-made directory was started")
	}
	put()
	must(t, a.FinishRestore(ctx, "r1"))
	ob := a.recoverTo(end)
	if ob.FormerPrimary || ob.Instance == before.Instance || ob.Instance == "" || ob.Paused || ob.RestoreDone {
		t.Errorf("restored: %+v", ob)
	}
	if v := a.sql("select count(*) from public.t"); v != "2" {
		t.Errorf("%s rows are restored", v)
	}

	// Undone: the old directory, as it was.
	must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
	must(t, a.UndoRestore(ctx))
	if ob = a.observe(); ob.Instance != before.Instance || !ob.FormerPrimary || ob.Restore != nil || ob.Poison != nil || !ob.CleanStop || a.HasKept() {
		t.Errorf("undone: %+v", ob)
	}

	// And for good.
	o.ID, o.KeepOld = "r2", false
	must(t, a.ArchiveTail(ctx, o, pushTo(archive)))
	must(t, a.BeginRestore(ctx, "r2"))
	put()
	must(t, a.FinishRestore(ctx, "r2"))
	a.recoverTo(end)
	w, err := a.WALTail(ctx)
	must(t, err)
	if w.End != end || w.Timeline != 1 {
		t.Errorf("recovered to %s on %d, not %s", w.End, w.Timeline, end)
	}
	fork, err := a.Promote(ctx, 2, 2)
	must(t, err)
	if fork != end {
		t.Errorf("the new timeline forks at %s, not %s", fork, end)
	}
	if v := a.sql("select pg_reload_conf(), string_agg(name, ' ') from pg_settings where pending_restart"); v != "t" || len(a.observe().PendingRestart) > 0 {
		t.Errorf("a restart is pending for %v", a.observe().PendingRestart)
	}
	must(t, a.renderRecovery()) // the next start
	if b, err := os.ReadFile(a.run(upstreamFile)); err != nil || strings.Contains(string(b), "recovery_target") || strings.Contains(string(b), "cp ") {
		t.Errorf("settings of the recovery are left: %v\n%s", err, b)
	}
	if ob = a.observe(); !ob.RestoreDone || ob.Timeline != 2 {
		t.Errorf("promoted: %+v", ob)
	}
	must(t, a.ForgetRestore())
	if m, err := a.RestoreMark(); m != nil || err != nil {
		t.Errorf("the mark is left: %+v, %v", m, err)
	}
}

// TestRestoreToTarget: replay pauses there, and the position is where it ended,
// not where the WAL does; also after a restart. A setting that is too low is
// told from a target.
func TestRestoreToTarget(t *testing.T) {
	a, archive, put := restorable(t)
	ctx := deadline(t, 90*time.Second)
	a.sql("create table public.t (i int); insert into public.t values (1)")
	at, err := cluster.ParseLSN(a.sql("select pg_create_restore_point('here')"))
	must(t, err)
	a.sql("insert into public.t values (2); select pg_switch_wal(); insert into public.t values (3)")
	must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
	o := cluster.Restore{ID: "r1", Type: "name", Target: "here", Timeline: 1, Set: "F1"}
	must(t, a.ArchiveTail(ctx, o, pushTo(archive)))
	must(t, a.BeginRestore(ctx, "r1"))
	put()
	must(t, a.FinishRestore(ctx, "r1"))
	for _, had := range []string{"100", "40"} { // the second time, pg_control has seen the change
		a.recoverTo(at)
		until(t, "pause at the target", func() bool { return a.observe().Paused })
		w, err := a.WALTail(ctx)
		must(t, err)
		if ob := a.observe(); w.End != at || w.Timeline != 1 || ob.Unfit != "" {
			t.Errorf("at %s on %d (%s), the target is %s", w.End, w.Timeline, ob.Unfit, at)
		}
		if v := a.sql("select string_agg(i::text, ',') from public.t"); v != "1" {
			t.Errorf("rows %s", v)
		}
		if v := a.sql("show max_connections"); v != had {
			t.Errorf("max_connections = %s, the primary had %s where recovery begins", v, had)
		}
		must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
	}
	c, err := ReadControl(a.cfg.DataDir)
	must(t, err)
	a.recoverTo(at)
	if c.Wants["max_connections"]++; !strings.HasPrefix(a.unfit(ctx, &c), "max_connections = ") {
		c.Wants["max_connections"] = 1000
		t.Errorf("a setting that is too low: %q of %v", a.unfit(ctx, &c), c.Wants)
	}
	fork, err := a.Promote(ctx, 2, 2)
	must(t, err)
	if fork != at {
		t.Errorf("the new timeline forks at %s, not %s", fork, at)
	}
}
