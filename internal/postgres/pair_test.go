package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
)

// endpoint is where the node listens.
func (n *node) endpoint() Endpoint {
	return Endpoint{Node: n.cfg.Node, Addrs: []string{"127.0.0.1"}, Port: n.cfg.Port}
}

// source is the node as somebody else's source.
func (n *node) source(tl cluster.Timeline) Source {
	return Source{Endpoint: n.endpoint(), Timeline: tl}
}

// follow makes n a certified standby of up.
func (n *node) follow(up *node, epoch uint64) {
	n.t.Helper()
	must(n.t, n.Follow(deadline(n.t, 5*time.Second), Upstream{Endpoint: up.endpoint(),
		Name: cluster.CertifiedName(n.cfg.Node, epoch), Epoch: epoch}))
}

// forkedAt is the term of epoch 2, which left epoch 1 at fork.
func forkedAt(fork cluster.LSN) *cluster.Term {
	return &cluster.Term{Epoch: 2, History: []cluster.Branch{{Epoch: 1, Timeline: 1}, {Epoch: 2, Parent: 1, Timeline: 2, ForkLSN: fork}}}
}

// standby clones a new node from up and lets it follow.
func standby(t *testing.T, up *node, name string, epoch uint64, tl cluster.Timeline, change ...func(*Config)) *node {
	t.Helper()
	n := newNode(t, name, change...)
	ctx := deadline(t, 30*time.Second)
	begun := time.Now()
	must(t, n.Clone(ctx, up.source(tl), nil))
	t.Log("clone", time.Since(begun))
	n.follow(up, epoch)
	must(t, n.StartStandby(ctx))
	until(t, name+" streams", func() bool { return n.observe().Streaming })
	return n
}

// freeze cuts the upstream, ends the receiver and returns the WAL end.
func (n *node) freeze() (cluster.LSN, cluster.Timeline) {
	n.t.Helper()
	ctx := deadline(n.t, 10*time.Second)
	begun := time.Now()
	must(n.t, n.CutUpstream(ctx))
	must(n.t, n.EndReceiver(ctx))
	lsn, tl, err := n.WALEnd(ctx)
	must(n.t, err)
	n.t.Log("freeze", time.Since(begun), lsn, tl)
	return lsn, tl
}

// insert runs a statement of a client, with synchronous_commit=on.
func (n *node) insert(ctx context.Context, sql string) error {
	c, err := n.connect(ctx, "client", "on")
	if err != nil {
		return err
	}
	defer c.Conn().Close()
	_, err = run(ctx, c, sql)
	return err
}

// waits says whether a commit of n waits for a standby (true) or comes through.
func (n *node) waits(sql string) bool {
	n.t.Helper()
	ctx, cancel := context.WithCancel(deadline(n.t, 10*time.Second))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.insert(ctx, sql) }()
	var since time.Time
	for {
		select {
		case err := <-done:
			must(n.t, err)
			return false
		case <-time.After(5 * time.Millisecond):
		}
		// Every synchronous commit waits a moment; this one is seen for long.
		switch seen := n.sql("select count(*) from pg_stat_activity where wait_event = 'SyncRep' and application_name = 'client'") != "0"; {
		case !seen:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > 400*time.Millisecond:
			return true
		}
	}
}

func (n *node) kill9() {
	n.t.Helper()
	must(n.t, syscall.Kill(n.observe().PID, syscall.SIGKILL))
	until(n.t, "tree empty", func() bool { return n.observe().State == cluster.PostgresDown })
}

func TestCloneFollowPromoteRewind_T10_RewindRightAfterPromotion(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	a.sql("create table public.t (i int)")
	_, err := a.SetSync(ctx, cluster.WaitFor(1, 1, "b"))
	must(t, err)
	must(t, a.insert(ctx, "insert into public.t values (1)"))
	o := b.observe()
	if o.State != cluster.PostgresStandby || o.Upstream != "b@e1" || o.ConnInfoOf != "b@e1" || len(o.Receivers) != 1 || o.FormerPrimary {
		t.Fatalf("standby: %+v", o)
	}
	o = a.observe()
	if len(o.Senders) != 1 || o.Senders[0].Name != "b@e1" || o.Senders[0].Sync != "quorum" || o.Senders[0].BackendStart.IsZero() {
		t.Fatalf("senders: %+v", o.Senders)
	}
	end, _ := b.freeze()
	if !a.waits("insert into public.t values (2)") {
		t.Fatal("acknowledged after the freeze")
	}
	a.kill9()
	begun := time.Now()
	fork, err := b.Promote(ctx, 2, 2)
	must(t, err)
	t.Log("promote", time.Since(begun))
	// What was received may end in the middle of a record, the fork does not.
	if fork > end || end-fork > 8192 {
		t.Errorf("fork %s, frozen at %s", fork, end)
	}
	if !b.waits("insert into public.t values (3)") {
		t.Fatal("the new primary acknowledged alone: the placeholder is not in force")
	}
	must(t, b.WriteControl(ctx, 2, "b", "nonce-2"))
	aEnd, tl, err := a.WALEnd(ctx)
	if err != nil || aEnd <= fork || tl != 1 {
		t.Fatalf("old primary's end %s on %d, fork %s: %v", aEnd, tl, fork, err)
	}
	if c, _ := ReadControl(b.cfg.DataDir); c.Timeline != 1 {
		t.Log("pg_control has the new timeline already; T10 is not exercised")
	}
	before := a.observe().Instance
	begun = time.Now()
	must(t, a.Rewind(ctx, b.source(2), forkedAt(fork), nil))
	t.Log("rewind", time.Since(begun))
	bundles, _ := filepath.Glob(a.statePath("lost-and-found/*/tail.json"))
	if len(bundles) != 1 {
		t.Fatalf("bundles: %v", bundles)
	}
	// Only what diverged is saved, not all the WAL of the directory: where a
	// crashed primary's WAL ends is not known before it is read.
	var note tailNote
	if b, err := os.ReadFile(bundles[0]); err != nil || json.Unmarshal(b, &note) != nil || note.From != fork || note.To != aEnd {
		t.Errorf("saved %s to %s, want %s to %s: %v", note.From, note.To, fork, aEnd, err)
	}
	o = a.observe()
	if o.Instance == "" || o.Instance == before || o.FormerPrimary || o.Poison != nil {
		t.Fatalf("after rewind: %+v", o)
	}
	a.follow(b, 2)
	must(t, a.StartStandby(ctx))
	_, err = b.SetSync(ctx, cluster.WaitFor(1, 2, "a"))
	must(t, err)
	must(t, b.insert(ctx, "insert into public.t values (4)"))
	until(t, "a replays the control row of epoch 2", func() bool {
		o := a.observe()
		return o.ControlRow != nil && o.ControlRow.Nonce == "nonce-2" && o.Timeline == 2
	})
	until(t, "a has 4 and not 2", func() bool {
		return a.sql("select count(*) filter (where i = 4) = 1 and count(*) filter (where i = 2) = 0 from public.t") == "t"
	})
}

func TestC4_ReceiverEndsOnlyWhenTold(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1, func(c *Config) {
		c.Params["max_standby_streaming_delay"] = "60s"
		c.Params["hot_standby_feedback"] = "off"
	})
	ctx := deadline(t, 60*time.Second)
	a.sql("create table public.t as select g i from generate_series(1, 1000) g")
	_, err := a.SetSync(ctx, cluster.WaitFor(1, 1, "b"))
	must(t, err)
	must(t, a.insert(ctx, "insert into public.t values (0)"))
	until(t, "b has the table", func() bool { o := b.observe(); return o.Replayed == o.Received && o.Replayed >= a.observe().Flushed })
	reader, err := b.connect(ctx, "reader", "on")
	must(t, err)
	defer reader.Conn().Close()
	_, err = run(ctx, reader, "begin isolation level repeatable read")
	must(t, err)
	_, err = run(ctx, reader, "select count(*) from public.t")
	must(t, err)
	a.sql("delete from public.t where i < 500")
	until(t, "replay is in conflict", func() bool {
		a.sql("vacuum public.t") // again: an old snapshot on the primary keeps the rows
		return b.sql("select count(*) from pg_stat_activity where backend_type = 'startup' and wait_event like 'RecoveryConflict%'") == "1"
	})
	must(t, b.CutUpstream(ctx))
	if _, _, err := b.WALEnd(ctx); !errors.Is(err, ErrReceiverRuns) {
		t.Fatalf("WALEnd with a receiver: %v", err)
	}
	// The finding: the configuration is empty and the receiver acknowledges.
	until(t, "primary_conninfo is empty", func() bool { return b.sql("show primary_conninfo") == "" })
	if a.waits("insert into public.t values (6001)") {
		if len(b.observe().Receivers) > 0 {
			t.Fatal("expected the living receiver to acknowledge")
		}
		t.Skip("the receiver ended by itself")
	}
	flushed := a.observe().Flushed
	must(t, b.EndReceiver(ctx))
	end, _, err := b.WALEnd(ctx)
	must(t, err)
	if end < flushed {
		t.Fatalf("WAL end %s is before the acknowledged %s", end, flushed)
	}
	if !a.waits("insert into public.t values (6002)") {
		t.Fatal("acknowledged after the receiver's end")
	}
	if n := len(b.observe().Receivers); n != 0 {
		t.Fatalf("%d receivers came back", n)
	}
	// M5: that reader would hold the promotion up for a minute.
	a.kill9()
	begun := time.Now()
	_, err = b.Promote(ctx, 2, 2)
	must(t, err)
	if d := time.Since(begun); d > 5*time.Second {
		t.Fatalf("promotion took %s", d)
	}
	if v := b.sql("select count(*) from public.t where i = 6001"); v != "1" {
		t.Fatal("the acknowledged row is gone")
	}
}

func TestC5_ProbeSeenWaiting(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 30*time.Second)
	if ok, err := a.ProbeInForce(ctx); err != nil || ok {
		t.Fatalf("committing alone, probe says %v, %v", ok, err)
	}
	pids := a.sql("select pid from pg_stat_activity where backend_type = 'checkpointer'")
	checkpointer := int(intOf([]byte(pids)))
	must(t, syscall.Kill(checkpointer, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(checkpointer, syscall.SIGCONT) })
	_, err := a.SetSync(ctx, cluster.HoldCommits()) // every view says it is in force
	must(t, err)
	if ok, err := a.ProbeInForce(ctx); err != nil || ok {
		t.Fatalf("with the checkpointer held, probe says %v, %v", ok, err)
	}
	must(t, syscall.Kill(checkpointer, syscall.SIGCONT))
	until(t, "in force", func() bool { ok, err := a.ProbeInForce(ctx); must(t, err); return ok })
	if !a.waits("select pg_logical_emit_message(true, 'test', 'x')") {
		t.Fatal("a commit came through")
	}
	until(t, "the wait is seen", func() bool { o := a.observe(); return o.Waiting >= 1 && o.OldestWait > 0 })
	_, err = a.SetSync(ctx, cluster.CommitAlone())
	must(t, err)
	until(t, "released", func() bool { return a.observe().Waiting == 0 })
	if ok, err := a.ProbeInForce(ctx); err != nil || ok {
		t.Fatalf("released, probe says %v, %v", ok, err)
	}
}

func TestM7_AllocatedTimeline(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	c := standby(t, a, "c", 1, 1)
	ctx := deadline(t, 60*time.Second)
	b.freeze()
	c.freeze()
	must(t, b.fillTimelines(5))
	// A candidate that prepared and did not win still starts as a standby.
	must(t, b.Stop(ctx, guardian.Fast, 5*time.Second))
	must(t, b.StartStandby(ctx))
	must(t, a.Stop(ctx, guardian.Fast, 5*time.Second))
	fork, err := b.Promote(ctx, 7, 5)
	must(t, err)
	if o := b.observe(); o.Timeline != 5 || o.LedEpoch != 7 || !o.FormerPrimary {
		t.Fatalf("%+v", o)
	}
	if again, err := b.Promote(ctx, 7, 5); err != nil || again != fork {
		t.Fatalf("again: %s, %v", again, err)
	}
	must(t, b.WriteControl(ctx, 7, "b", "seven"))
	// A standby of timeline 1 follows over the fillers, and survives a restart.
	c.follow(b, 7)
	until(t, "c follows on timeline 5", func() bool { o := c.observe(); return o.Streaming && o.Timeline == 5 })
	must(t, c.Stop(ctx, guardian.Fast, 5*time.Second))
	must(t, c.StartStandby(ctx))
	until(t, "c follows after a restart", func() bool {
		o := c.observe()
		return o.Streaming && o.ControlRow != nil && o.ControlRow.Nonce == "seven"
	})
	must(t, c.CutUpstream(ctx))
	must(t, c.EndReceiver(ctx))
	if _, err := c.Promote(ctx, 8, 5); err == nil {
		t.Fatal("promoted to a timeline in use")
	}
}

func TestH3_PromiseBarsEpochAcrossRestart(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 30*time.Second)
	must(t, b.WritePromise(cluster.Promise{Node: "b", Epoch: 1, LSN: 42}))
	// The agent died between promise and freeze: the upstream is still rendered.
	must(t, b.Stop(ctx, guardian.Fast, 5*time.Second))
	again, err := New(b.cfg, b.g)
	must(t, err)
	t.Cleanup(again.Close)
	b.Instance = again
	must(t, b.StartStandby(ctx))
	o := b.observe()
	if o.Upstream != "" || o.Promise == nil || o.Promise.LSN != 42 {
		t.Fatalf("%+v", o)
	}
	up := Upstream{Endpoint: a.endpoint(), Name: "b@e1", Epoch: 1}
	if err := b.Follow(ctx, up); !errors.Is(err, ErrBarred) {
		t.Fatalf("follow in a barred epoch: %v", err)
	}
	up.Name, up.Epoch = "b@e2", 2
	must(t, b.Follow(ctx, up))
	until(t, "b streams", func() bool { return b.observe().Streaming })
	must(t, b.RemovePromise())
	// A directory that somebody replaced promises nothing.
	must(t, os.WriteFile(filepath.Join(b.cfg.DataDir, instanceFile), []byte("other\n"), 0o600))
	if o := b.observe(); o.Instance != "" {
		t.Fatalf("instance %q of a foreign directory", o.Instance)
	}
}

func TestH8_RestartAfterCrashOff(t *testing.T) {
	a := leader(t, "a")
	_, err := a.SetSync(deadline(t, 10*time.Second), cluster.HoldCommits())
	must(t, err)
	c, err := a.connect(deadline(t, 10*time.Second), "victim", "on")
	must(t, err)
	must(t, syscall.Kill(int(c.PID()), syscall.SIGKILL))
	until(t, "postgres is down", func() bool { return a.observe().State == cluster.PostgresDown })
	if o := a.observe(); !o.TreeEmpty || o.CleanStop || !o.FormerPrimary {
		t.Fatalf("%+v", o)
	}
}

func TestALTERSYSTEM_IsPutBack(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 20*time.Second)
	_, err := a.SetSync(ctx, cluster.HoldCommits())
	must(t, err)
	a.sql("alter system set synchronous_standby_names = ''")
	a.sql("alter system set restart_after_crash = on")
	a.sql("alter system set work_mem = '5MB'")
	a.sql("alter role manada_monitor set synchronous_commit = off")
	a.sql("select pg_reload_conf()")
	until(t, "alter system took effect", func() bool { return a.sql("show synchronous_standby_names") == "" })
	if v := a.sql("show restart_after_crash"); v != "off" {
		t.Fatalf("restart_after_crash = %s", v)
	}
	e, err := a.Enforce(ctx)
	must(t, err)
	if len(e.Reset) != 2 || len(e.Loose) != 1 || len(e.Beaten) != 0 {
		t.Fatalf("%+v", e)
	}
	until(t, "put back", func() bool {
		return strings.Contains(a.sql("show synchronous_standby_names"), cluster.Placeholder) && a.sql("show work_mem") == "5MB"
	})
}

func TestHungIsSaidInTime(t *testing.T) {
	a := leader(t, "a", func(c *Config) { c.QueryTimeout, c.ProbeEvery = 300*time.Millisecond, 10*time.Millisecond })
	o := a.observe()
	must(t, syscall.Kill(o.PID, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(o.PID, syscall.SIGCONT) })
	until(t, "hung", func() bool {
		begun := time.Now()
		o := a.observe()
		if d := time.Since(begun); d > 3*time.Second {
			t.Fatalf("observation took %s", d)
		}
		return o.State == cluster.PostgresHung
	})
	// A halted postmaster cannot be asked; the tree is empty all the same.
	must(t, a.Stop(deadline(t, 20*time.Second), guardian.Immediate, 200*time.Millisecond))
	if o := a.observe(); o.State != cluster.PostgresDown || !o.TreeEmpty {
		t.Fatalf("%+v", o)
	}
}
