package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/decide"
	"manada/internal/guardian"
	"manada/internal/postgres"
)

// noGuardian answers nothing, so nothing is observed and nothing runs.
type noGuardian struct{}

var errNoGuardian = errors.New("no guardian")

func (noGuardian) Start(context.Context, guardian.StartSpec) (guardian.Status, error) {
	return guardian.Status{}, errNoGuardian
}
func (noGuardian) Status(context.Context) (guardian.Status, error) {
	return guardian.Status{}, errNoGuardian
}
func (noGuardian) Stop(context.Context, guardian.StopMode) error { return errNoGuardian }
func (noGuardian) KillTree(context.Context) error                { return errNoGuardian }
func (noGuardian) WaitEmpty(context.Context) error               { return errNoGuardian }

// withDisk gives the agent a directory of its own, without a PostgreSQL.
func withDisk(t *testing.T, a *Agent) *Agent {
	t.Helper()
	dir := t.TempDir()
	db, err := postgres.New(postgres.Config{DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
		Port: 5432, Node: a.cfg.Node, Cluster: "c", BinDir: dir, Logger: slog.New(slog.DiscardHandler)}, noGuardian{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	a.db, a.wal = db, filepath.Join(dir, "data", "pg_wal")
	return a
}

func (a *Agent) busyWith() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busy()
}

// An operation that fails is followed by a pause, and the loop begins the next
// one as soon as it may: never a second beside the first. The log is a file, for
// between the end of an operation and its pause lay the time that a line takes.
func TestOneOperationAtATime(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a.log = slog.New(slog.NewJSONHandler(log, nil))
	a.cfg.Spec.SuspectAfter = 5 * time.Millisecond
	var running, most, begun atomic.Int32
	op := func(ctx context.Context) error {
		n := running.Add(1)
		most.Store(max(most.Load(), n))
		defer running.Add(-1)
		if begun.Add(1)%2 == 0 {
			return errors.New("it failed")
		}
		time.Sleep(20 * time.Millisecond) // an operation takes its time
		return nil
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if a.busyWith() == "" { // as decide sees it
			_ = a.begin(t.Context(), decide.Action{Verb: decide.Clone}, op)
		}
	}
	for a.busyWith() != "" {
		time.Sleep(time.Millisecond)
	}
	if most.Load() != 1 || begun.Load() < 20 {
		t.Fatalf("%d operations begun, %d at once", begun.Load(), most.Load())
	}
}

func TestOnlyItsHolderGivesTheTurnBack(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	first := a.takeTurn("first")
	first.giveBack()
	second := a.takeTurn("second")
	if second == nil || a.takeTurn("third") != nil {
		t.Fatal("the turn was not given back, or given twice")
	}
	first.giveBack()
	first.say("first again")
	if a.busyWith() != "second" {
		t.Fatalf("busy with %q: a turn that was over ended another's", a.busyWith())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if a.awaitTurn(ctx, "the stop") != nil {
		t.Fatal("two operate at once")
	}
	if err := a.begin(t.Context(), decide.Action{Verb: decide.Clone}, nil); err == nil {
		t.Fatal("began beside another")
	}
}

// What was decided before the host began to stop is not begun after.
func TestNothingIsBegunWhileTheHostStops(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	a.ending.Store(true)
	err := a.begin(t.Context(), decide.Action{Verb: decide.StartStandby}, func(context.Context) error {
		t.Error("begun")
		return nil
	})
	if err == nil || a.busyWith() != "" {
		t.Fatalf("%v, busy with %q", err, a.busyWith())
	}
}

// A failure is followed by a pause, in which nothing else begins.
func TestPauseAfterFailure(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	a.cfg.Spec.SuspectAfter = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	act := decide.Action{Verb: decide.Clone}
	if err := a.begin(ctx, act, func(context.Context) error { return errors.New("it failed") }); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(a.busyWith(), "pause") {
		if a.busyWith() == "" {
			t.Fatal("no pause")
		}
		time.Sleep(time.Millisecond)
	}
	if err := a.begin(ctx, act, nil); err == nil {
		t.Fatal("begun in the pause")
	}
	cancel()
	for a.busyWith() != "" {
		time.Sleep(time.Millisecond)
	}
}
