package postgres

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/guardian"
)

// tool runs one of PostgreSQL's programs and returns what it printed.
func (n *node) tool(name string, args ...string) string {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(n.cfg.BinDir, name), args...)
	cmd.Env = n.environ()
	out, err := cmd.CombinedOutput()
	if err != nil && name != "pg_waldump" { // which ends with an error at the end of WAL
		n.t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

func field(t *testing.T, text, label string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(label) + `:\s*(.*)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %q in %s", label, text)
	}
	return m[1]
}

func (n *node) checkControl() Control {
	n.t.Helper()
	text := n.tool("pg_controldata", "-D", n.cfg.DataDir)
	c, err := ReadControl(n.cfg.DataDir)
	must(n.t, err)
	for label, have := range map[string]string{
		"Database system identifier":         c.SystemID,
		"Database cluster state":             c.State.String(),
		"Latest checkpoint location":         c.Checkpoint.String(),
		"Latest checkpoint's REDO location":  c.Redo.String(),
		"Minimum recovery ending location":   c.MinRecovery.String(),
		"Bytes per WAL segment":              "16777216",
		"Data page checksum version":         "1",
		"Backup start location":              c.BackupStart.String(),
		"Latest checkpoint's TimeLineID":     strings.TrimLeft(c.Timeline.HistoryFile()[:8], "0"),
		"Min recovery ending loc's timeline": strings.TrimLeft(c.MinRecoveryTL.HistoryFile()[:7], "0") + c.MinRecoveryTL.HistoryFile()[7:8],
		"WAL block size":                     "8192",
	} {
		if want := field(n.t, text, label); want != have {
			n.t.Errorf("%s: %s, pg_controldata says %s", label, have, want)
		}
	}
	if c.SegmentSize != 16<<20 || c.WALBlockSize != 8192 || !c.ChecksumsEnabled {
		n.t.Errorf("%+v", c)
	}
	return c
}

// waldumpEnd is the end of WAL as pg_waldump finds it: where the record is
// missing that it wanted.
func (n *node) waldumpEnd(from cluster.LSN, tl cluster.Timeline) cluster.LSN {
	n.t.Helper()
	out := n.tool("pg_waldump", "-p", filepath.Join(n.cfg.DataDir, "pg_wal"), "-s", from.String(), "-t", string(rune('0'+tl)), "-q")
	m := regexp.MustCompile(`error in WAL record at ([0-9A-F/]+): .*? at ([0-9A-F/]+)`).FindStringSubmatch(n.tool("pg_waldump", "-p", filepath.Join(n.cfg.DataDir, "pg_wal"), "-s", from.String(), "-t", string(rune('0'+tl))))
	if m == nil {
		n.t.Fatalf("pg_waldump: %s", tail([]byte(out)))
	}
	l, err := cluster.ParseLSN(m[2])
	must(n.t, err)
	return l
}

func TestControlAndWALReaderAgreeWithPostgreSQL(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 30*time.Second)
	a.checkControl()
	// Records over page and segment borders, a segment switch, a large record.
	a.sql("create table public.t (v text); alter table public.t alter v set storage external")
	a.sql("insert into public.t select repeat(md5(g::text), 300) from generate_series(1, 3000) g")
	a.sql("select pg_switch_wal()")
	a.sql("select pg_logical_emit_message(false, 'x', repeat('y', 3000000))")
	for range 20 {
		a.sql("insert into public.t select repeat(md5(g::text), 30) from generate_series(1, 7) g")
		lsn, tl, err := a.WALEnd(ctx)
		must(t, err)
		if now := a.observe(); lsn < now.Flushed || tl != 1 {
			t.Fatalf("end %s on %d, flushed %s", lsn, tl, now.Flushed)
		}
	}
	flushed := a.observe().Flushed
	a.kill9()
	c := a.checkControl()
	begun := time.Now()
	w, err := a.WALTail(ctx)
	must(t, err)
	t.Log("read", w.Complete-c.Redo, "bytes in", time.Since(begun))
	if want := a.waldumpEnd(c.Redo, 1); w.Complete != want || w.End < flushed {
		t.Fatalf("end %s, pg_waldump says %s, flushed %s", w.Complete, want, flushed)
	}
}

// A restart sets the received position back to the start of a segment: what
// was acknowledged must be found in pg_wal.
func TestT2_RestartHidesNoWAL(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 30*time.Second)
	a.sql("create table public.t (i int)")
	_, err := a.SetSync(ctx, cluster.WaitFor(1, 1, "b"))
	must(t, err)
	must(t, a.insert(ctx, "insert into public.t values (1)"))
	acked := a.observe().Flushed
	a.kill9()
	must(t, b.CutUpstream(ctx))
	must(t, b.Stop(ctx, guardian.Immediate, time.Second))
	stopped, err := b.WALTail(ctx)
	must(t, err)
	must(t, b.StartStandby(ctx))
	running, err := b.WALTail(ctx)
	must(t, err)
	if stopped.End < acked || running.End < acked || running.Timeline != 1 {
		t.Fatalf("acknowledged %s, stopped %+v, running %+v", acked, stopped, running)
	}
	b.checkControl()
	if running.Received >= acked {
		t.Log("the received position survived; T2 is not exercised")
	}
}

// The state C1 is about: a former primary whose WAL goes beyond the fork.
func TestC1_DivergedNodeIsSaidToBe(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	until(t, "b is level", func() bool { return b.observe().Replayed >= a.observe().Flushed })
	b.freeze()
	a.sql("create table public.lost as select g from generate_series(1, 10000) g") // synchronous_commit=local
	a.kill9()
	fork, err := b.Promote(ctx, 2, 2)
	must(t, err)
	must(t, b.WriteControl(ctx, 2, "b", "two"))
	end, _, err := a.WALEnd(ctx)
	must(t, err)
	if o := a.observe(); end <= fork || !o.FormerPrimary || o.CleanStop {
		t.Fatalf("end %s, fork %s, %+v", end, fork, o)
	}
	// Against every rule it is started as a certified standby.
	a.follow(b, 2)
	must(t, a.StartStandby(ctx))
	if !b.waits("select pg_logical_emit_message(true, 'test', 'c1')") {
		t.Fatal("the placeholder let a commit through")
	}
	until(t, "a recovers its own history", func() bool { return a.observe().Replayed > fork })
	// In recovery pg_control no longer tells that it led; the mark does.
	if o := a.observe(); !o.FormerPrimary || o.ControlRow.Nonce == "two" || o.Timeline != 1 {
		t.Fatalf("%+v", o)
	}
}

// A receiver that is born after the cut, of a startup process that still believes
// the old primary_conninfo, cannot log in: the credential is gone, of every epoch.
func TestC4_CutUpstreamTakesTheLogin(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	believed := b.sql("show primary_conninfo")
	logIn := func() error {
		cmd := exec.CommandContext(ctx, filepath.Join(b.cfg.BinDir, "pg_receivewal"), "-w", "-d", believed, "--slot=born_late", "--create-slot", "--if-not-exists")
		out, err := cmd.CombinedOutput()
		t.Logf("%v: %s", err, out)
		return err
	}
	must(t, logIn())
	other := b.run("replication.e0.pgpass")
	must(t, os.WriteFile(other, []byte("x"), 0o600))
	must(t, b.CutUpstream(ctx))
	if logIn() == nil {
		t.Error("a receiver with the old connection string logged in")
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the credential of another epoch is still there: %v", err)
	}
}

// Two operations never run at once on a directory, whoever calls.
func TestOneOperationAtATime(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	must(t, b.Stop(ctx, guardian.Fast, 5*time.Second))
	var stop, start, again error
	err := b.Clone(ctx, a.source(1), func(_, _ int64) {
		stop, start, again = b.Stop(ctx, guardian.Immediate, 0), b.StartStandby(ctx), b.Clone(ctx, a.source(1), nil)
	})
	must(t, err)
	for _, err := range []error{stop, start, again} {
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "clone") {
			t.Errorf("beside a clone: %v", err)
		}
	}
	b.follow(a, 1)
	must(t, b.StartStandby(ctx))
}

func TestH3_InterruptedRemakeStaysPoisoned(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	must(t, b.Stop(ctx, guardian.Fast, 5*time.Second))
	must(t, b.setPoison(Poison{What: "rewind", From: "a", Touched: true}))
	if o := b.observe(); o.Poison == nil || o.Instance != "" {
		t.Fatalf("%+v", o)
	}
	if err := b.StartStandby(ctx); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
	if err := b.Rewind(ctx, a.source(1), forkedAt(1), nil); !errors.Is(err, ErrNeedClone) {
		t.Fatal(err)
	}
	// A clone that is interrupted leaves the mark; the next one completes.
	short, cancel := context.WithCancel(ctx)
	err := b.Clone(short, a.source(1), func(done, total int64) { cancel() })
	cancel()
	if p, _ := b.Poison(); err == nil || p == nil || p.What != "clone" {
		t.Fatalf("interrupted clone: %v, %v", err, p)
	}
	calls := 0
	must(t, b.Clone(ctx, a.source(1), func(done, total int64) { calls++ }))
	if calls == 0 {
		t.Error("no progress was told")
	}
	if err := b.Clone(ctx, a.source(9), nil); !errors.Is(err, ErrSource) {
		t.Fatalf("source on another timeline: %v", err)
	}
	b.follow(a, 1)
	must(t, b.StartStandby(ctx))
}

func TestFoundedRoles(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 30*time.Second)
	login := func(role, password string) (*pgconn.PgConn, error) {
		c, err := pgconn.ParseConfig("host=127.0.0.1 dbname=postgres sslmode=disable user=" + role)
		must(t, err)
		c.Port, c.Password = uint16(a.cfg.Port), password
		return pgconn.ConnectConfig(ctx, c)
	}
	a.sql("create role app login password 'app'; create role old login password 'x' valid until '2001-01-01'; create role nobody")
	proxy, err := login("manada_proxy", "proxy")
	must(t, err)
	defer proxy.Close(ctx)
	for role, want := range map[string]string{"app": "1", "old": "0", "nobody": "0"} {
		r, err := run(ctx, proxy, "select count(rolpassword) from manada.user_lookup("+literal(role)+") where rolpassword like 'SCRAM-SHA-256$%'")
		must(t, err)
		if string(r[0][0][0]) != want {
			t.Errorf("lookup of %s: %s", role, r[0][0][0])
		}
	}
	app, err := login("app", "app")
	must(t, err)
	defer app.Close(ctx)
	// H9: an ordinary role may not cancel even its own waiting commits.
	for _, sql := range []string{"select pg_cancel_backend(1)", "select pg_terminate_backend(1)", "select manada.user_lookup('app')"} {
		if _, err := run(ctx, app, sql); code(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	a.sql("create database other template template0")
	if v := a.sql("select datname from pg_database where datname = 'other'"); v != "other" {
		t.Fatal(v)
	}
	if _, err := login("app", "wrong"); err == nil {
		t.Error("a wrong password was accepted")
	}
	for _, f := range []string{confFile, hbaFile, syncFile, upstreamFile} {
		if st, err := os.Stat(a.run(f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st, err)
		}
	}
}

func TestSlotsOnBothSides(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 30*time.Second)
	must(t, a.EnsureSlots(ctx, []SlotWanted{{Name: cluster.SlotName("b")}, {Name: cluster.SlotName("gone")}}))
	must(t, b.Follow(ctx, Upstream{Endpoint: a.endpoint(), Name: "b@e1", Epoch: 1, Slot: cluster.SlotName("b")}))
	a.sql("select pg_create_physical_replication_slot('somebodys')")
	until(t, "slot in use", func() bool {
		for _, s := range a.observe().Slots {
			if s.Name == "manada_b" && s.Active {
				return true
			}
		}
		return false
	})
	must(t, a.EnsureSlots(ctx, []SlotWanted{{Name: cluster.SlotName("b")}}))
	if v := a.sql("select string_agg(slot_name, ' ' order by slot_name) from pg_replication_slots"); v != "manada_b somebodys" {
		t.Fatal(v)
	}
	must(t, b.EnsureSlots(ctx, []SlotWanted{{Name: "manada_a"}}))
	a.sql("create table public.t as select g from generate_series(1, 1000) g")
	end := a.observe().Flushed
	until(t, "b is level", func() bool { return b.observe().Replayed >= end })
	must(t, b.EnsureSlots(ctx, []SlotWanted{{Name: "manada_a", Advance: end}}))
	for _, s := range b.observe().Slots {
		if s.Name == "manada_a" && s.Restart < end {
			t.Fatalf("%+v, wanted %s", s, end)
		}
	}
}

func TestProtectedParametersAreRefusedByName(t *testing.T) {
	for name, value := range map[string]string{"fsync": "off", "Synchronous_Standby_Names": "", "synchronous_commit": "off", "wal_level": "minimal", "a b": "1"} {
		err := CheckParams(map[string]string{name: value})
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckParams(map[string]string{"work_mem": "1GB", "synchronous_commit": "remote_apply", "wal_level": "logical", "pg_stat_statements.max": "5"}); err != nil {
		t.Error(err)
	}
	kept, dropped := scrubAuto("# c\nwork_mem = '1GB'\nfsync = 'off'\n")
	if kept != "# c\nwork_mem = '1GB'\n" || len(dropped) != 1 {
		t.Errorf("%q %v", kept, dropped)
	}
}
