package guardian_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
	"manada/internal/guardian/procfs"
	"manada/internal/postgres"
	"manada/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

type herd struct {
	t   *testing.T
	cfg guardian.Config
	g   *guardian.Client
	i   *postgres.Instance
}

// running starts a primary under a guardian.
func running(t *testing.T) *herd {
	t.Helper()
	dir := pgtest.Dir(t)
	c := postgres.Config{DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), Port: pgtest.Port(t), Node: "n",
		Params: map[string]string{"shared_buffers": "16MB"}, QueryTimeout: 5 * time.Second}
	h := &herd{t: t, cfg: guardian.Config{DataDir: c.DataDir, RunDir: c.RunDir}}
	h.g = pgtest.Guardian(t, c.DataDir, c.RunDir)
	var err error
	if h.i, err = postgres.New(c, h.g); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.i.Close)
	ctx := h.ctx()
	if err := h.i.Found(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.i.StartFounding(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *herd) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *herd) status() guardian.Status {
	h.t.Helper()
	st, err := h.g.Status(h.ctx())
	if err != nil {
		h.t.Fatal(err)
	}
	return st
}

// busyBackend starts a backend that computes for minutes and looks at nothing
// meanwhile, and returns its pid.
func (h *herd) busyBackend(postmaster int) int {
	h.t.Helper()
	cfg := h.i.Config()
	// One long call of a C function: no check for interrupts in between.
	cmd := exec.Command(filepath.Join(cfg.BinDir, "psql"), "-X", "-h", h.i.SocketDir(), "-p", fmt.Sprint(cfg.Port), "-U", "postgres",
		"-c", "do $$ begin for i in 1..1000000000 loop perform 1; end loop; end $$")
	cmd.Env = append(os.Environ(), "PGAPPNAME=busy")
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	pid := 0
	h.until("a busy backend", func() bool {
		children, _ := procfs.Children(postmaster)
		for _, c := range children {
			if strings.Contains(procfs.Title(c), "[local] DO") {
				pid = c
			}
		}
		return pid != 0
	})
	return pid
}

func (h *herd) until(what string, f func() bool) {
	h.t.Helper()
	for ctx := h.ctx(); !f(); {
		select {
		case <-ctx.Done():
			h.t.Fatal("never came: " + what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func gone(pid int) bool { p, err := procfs.Read(pid); return err != nil || p.Dead() }

func TestT14_DeadPostmasterLeavesNothing(t *testing.T) {
	h := running(t)
	st := h.status()
	busy := h.busyBackend(st.PID)
	events := h.g.Watch(h.ctx())
	<-events // the status of now
	begun := time.Now()
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := <-events
	told := time.Since(begun)
	if e.Err != nil || e.Status.Running || !strings.Contains(e.Status.Exit, "killed") {
		t.Fatalf("%+v", e)
	}
	if told > time.Second {
		t.Errorf("told after %s", told)
	}
	for !e.Status.TreeEmpty {
		e = <-events
	}
	t.Log("told", told, "empty", time.Since(begun))
	if time.Since(begun) > 2*time.Second {
		t.Error("the tree was emptied late")
	}
	// A process that is past its memory counts as ended a moment before it is gone.
	h.until("the busy backend's end", func() bool { return gone(busy) })
	if _, err := os.Stat(filepath.Join(h.cfg.DataDir, "postmaster.pid")); err == nil {
		t.Error("postmaster.pid is left")
	}
	if err := h.i.StartStandby(h.ctx()); err != nil {
		t.Fatal("start again:", err)
	}
}

func TestM9_NewGuardianAdopts(t *testing.T) {
	h := running(t)
	st := h.status()
	busy := h.busyBackend(st.PID)
	if err := syscall.Kill(st.Guardian, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.until("guardian's end", func() bool { return gone(st.Guardian) })
	if gone(st.PID) {
		t.Fatal("the postmaster died with its guardian")
	}
	g, err := guardian.Ensure(h.ctx(), h.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.g = g
	now := h.status()
	if !now.Running || !now.Adopted || now.PID != st.PID || now.Guardian == st.Guardian || now.TreeEmpty {
		t.Fatalf("%+v", now)
	}
	// The agent's old client finds the new guardian, and the adopted postmaster's
	// end is told and swept like any other.
	if o, err := h.i.Observe(h.ctx()); err != nil || o.State != cluster.PostgresPrimary {
		t.Fatalf("%+v %v", o, err)
	}
	begun := time.Now()
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitEmpty(h.ctx()); err != nil {
		t.Fatal(err)
	}
	t.Log("empty", time.Since(begun))
	// A process that is past its memory counts as ended a moment before it is gone.
	h.until("the busy backend's end", func() bool { return gone(busy) })
}

func TestAgentRestartFindsTheSameGuardian(t *testing.T) {
	h := running(t)
	st := h.status()
	again, err := guardian.Ensure(h.ctx(), h.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if now, err := again.Status(h.ctx()); err != nil || now.Guardian != st.Guardian || now.PID != st.PID {
		t.Fatalf("%+v %v", now, err)
	}
	if err := again.Quit(h.ctx()); err == nil {
		t.Fatal("quit with a running postmaster")
	}
	// A second guardian for the same volume, from another container, gets no lock.
	other := h.cfg
	other.RunDir = pgtest.Dir(t)
	g2, err := guardian.Ensure(h.ctx(), other, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if st, err := g2.Status(context.WithoutCancel(t.Context())); err == nil {
			_ = syscall.Kill(st.Guardian, syscall.SIGKILL)
		}
	})
	if _, err := g2.Start(h.ctx(), guardian.StartSpec{Argv: []string{"/bin/true"}, Log: os.DevNull, Dir: "/"}); err == nil {
		t.Fatal("two guardians on one directory")
	}
}

func TestSIGTERMStopsPostgreSQLFirst(t *testing.T) {
	h := running(t)
	st := h.status()
	if err := syscall.Kill(st.Guardian, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.until("guardian's end", func() bool { return gone(st.Guardian) })
	if !gone(st.PID) {
		t.Fatal("the guardian left a postmaster behind")
	}
	if c, err := postgres.ReadControl(h.cfg.DataDir); err != nil || c.State != postgres.ControlShutDown {
		t.Fatalf("%v %v", c.State, err)
	}
}

// The guardian runs in this process here: it has no postmaster.
func TestBeatsRepeatTheAgent(t *testing.T) {
	awaitChildless(t) // what an earlier test started would count as PostgreSQL's
	dir := pgtest.Dir(t)
	beats := make(chan cluster.Beat, 100)
	cfg := guardian.Config{DataDir: filepath.Join(dir, "data"), RunDir: dir, Beater: func(ctx context.Context, to guardian.BeatConfig, in <-chan cluster.Beat) {
		if to.Peers[0] != "peer:7400" {
			t.Errorf("%+v", to)
		}
		for {
			select {
			case b := <-in:
				beats <- b
			case <-ctx.Done():
				return
			}
		}
	}}
	path, err := guardian.SocketPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- guardian.Run(t.Context(), cfg) }()
	for {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	g := guardian.NewClient(path)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = g.SetBeats(ctx, guardian.BeatConfig{Peers: []string{"peer:7400"}, IntervalMS: 5,
		Template: cluster.Beat{Node: "n", Cluster: "c", Leads: 3, Postgres: cluster.PostgresPrimary}})
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(0); n < 3; {
		select {
		case b := <-beats:
			if b.From != "guardian" || b.Node != "n" || b.Seq <= n || b.Postgres != cluster.PostgresDown || b.CannotCommit == "" {
				s, _ := json.Marshal(b)
				t.Fatalf("%s", s)
			}
			n = b.Seq
		case <-ctx.Done():
			t.Fatal("no beats")
		}
	}
	if err := g.Quit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// awaitChildless waits until this process, which a guardian in it makes the
// reaper of orphans, has no children any more.
func awaitChildless(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.ECHILD {
			return
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("children are left: %d, %v", pid, err)
		}
	}
}
