package postgres

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"manada/internal/cluster"
	"manada/internal/durable/durabletest"
)

// disk is an instance whose PostgreSQL never runs: only its marks matter.
func disk(t *testing.T, state string) *Instance {
	t.Helper()
	dir := t.TempDir()
	i, err := New(Config{
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), StateDir: state, Port: 5432, Node: "a", Cluster: "test",
		Passwords: testPasswords, Logger: slog.New(slog.DiscardHandler),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// oneOf is what a mark may be after a power loss: the old or the new value, and
// the new one once the call returned.
func oneOf[V any](t *testing.T, read func(*Instance) (V, error), old, new V) func(durabletest.Loss) string {
	return func(l durabletest.Loss) string {
		v, err := read(disk(t, l.Dir))
		if err != nil {
			return err.Error()
		}
		got, o, n := fmt.Sprintf("%+v", v), fmt.Sprintf("%+v", old), fmt.Sprintf("%+v", new)
		if got != n && (got != o || l.Returned) {
			return "the mark is " + got
		}
		return ""
	}
}

// TestMarksSurvivePowerLoss: a promise, a led epoch and a poison mark are there
// when the call that wrote them has returned, and never half.
func TestMarksSurvivePowerLoss(t *testing.T) {
	promise := func(i *Instance) (cluster.Promise, error) {
		p, err := i.Promise()
		if p == nil {
			p = &cluster.Promise{}
		}
		return *p, err
	}
	first := cluster.Promise{Node: "a", Instance: "x", Epoch: 3, WALEpoch: 3, LSN: 100}
	second := cluster.Promise{Node: "a", Instance: "x", Epoch: 4, WALEpoch: 4, LSN: 200}

	t.Run("promise", func(t *testing.T) {
		state := t.TempDir()
		i := disk(t, state)
		durabletest.PowerLoss(t, state, func() error { return i.WritePromise(first) }, oneOf(t, promise, cluster.Promise{}, first))
		durabletest.PowerLoss(t, state, func() error { return i.WritePromise(second) }, oneOf(t, promise, first, second))
		durabletest.PowerLoss(t, state, i.RemovePromise, oneOf(t, promise, second, cluster.Promise{}))
	})
	t.Run("led epoch", func(t *testing.T) {
		state := t.TempDir()
		i := disk(t, state)
		durabletest.PowerLoss(t, state, func() error { return i.SetLedEpoch(5) }, oneOf(t, (*Instance).LedEpoch, 0, 5))
		durabletest.PowerLoss(t, state, func() error { return i.SetLedEpoch(6) }, oneOf(t, (*Instance).LedEpoch, 5, 6))
	})
	t.Run("poison", func(t *testing.T) {
		state := t.TempDir()
		i := disk(t, state)
		what := func(i *Instance) (string, error) {
			p, err := i.Poison()
			if p == nil {
				return "", err
			}
			return p.What, err
		}
		durabletest.PowerLoss(t, state, func() error { return i.setPoison(Poison{What: "rewind"}) }, oneOf(t, what, "", "rewind"))
		durabletest.PowerLoss(t, state, i.clearPoison, oneOf(t, what, "rewind", ""))
	})
}
