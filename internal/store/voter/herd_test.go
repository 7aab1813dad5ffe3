package voter_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/store"
	"manada/internal/store/storetest"
	"manada/internal/store/voter"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait (etcd wants its members healthy for 5 s before it
	// takes another one): more of them than processors can run at a time.
	_ = flag.Set("test.parallel", "4")
	os.Exit(storetest.Main(m))
}

func term(epoch uint64, leader string) *cluster.Term {
	return &cluster.Term{SystemID: "74", Epoch: epoch, Leader: leader, Open: true, Durability: cluster.Quorum}
}

// three builds a store of three voters, each in a process of its own.
func three(t *testing.T) *storetest.Herd {
	t.Helper()
	h := storetest.NewHerd(t, "master", "slave", "backup")
	h.Found(t, "master")
	c := h.Client(t, "herd", "master")
	h.Join(t, "slave", 30*time.Second, "master")
	h.Join(t, "backup", 30*time.Second, "master", "slave") // at the same time: it has to wait
	storetest.AwaitVoters(t, c, 3)
	return h
}

func leaderOf(t *testing.T, c store.Store) string {
	t.Helper()
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Leader
}

// swapEventually is what an agent does about unknown outcomes: read, settle,
// swap. It returns how long that took.
func swapEventually(t *testing.T, c store.Store, next *cluster.Term) time.Duration {
	t.Helper()
	start := time.Now()
	storetest.Eventually(t, "swap", func() error {
		s, err := c.Read(t.Context())
		if err != nil {
			return err
		}
		if s.Term.Epoch == next.Epoch {
			_, err = c.Touch(t.Context(), s.TermRev)
			return err
		}
		_, err = c.Swap(t.Context(), s.TermRev, next)
		return err
	})
	return time.Since(start)
}

// TestHerd is the life of a store: founded, grown, a leader lost, a vote moved.
func TestHerd(t *testing.T) {
	t.Parallel()
	start := time.Now()
	h := three(t)
	t.Logf("three voters after %s", time.Since(start))
	ctx := t.Context()
	c := h.Client(t, "herd", "backup", "slave", "master")
	if _, err := c.Create(ctx, term(1, "master")); err != nil {
		t.Fatal(err)
	}

	if err := c.MoveLeader(ctx, leaderOf(t, c)); err != nil {
		t.Fatal(err)
	}
	if err := c.MoveLeader(ctx, "master"); err != nil {
		t.Fatal(err)
	}
	if l := leaderOf(t, c); l == "master" {
		t.Fatal("the leadership is still on the primary's host")
	}

	// A follower's host dies: no election, no wait. It is the one that this
	// client prefers, so that the switch to another member is part of it.
	if err := c.MoveLeader(ctx, "backup"); err != nil {
		t.Fatal(err)
	}
	bell, err := store.Open(ctx, store.Config{
		Cluster: "herd", TLS: h.Certs.TLS, Reread: time.Minute,
		Endpoints: []string{h.Hosts["backup"].Client, h.Hosts["slave"].Client},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer bell.Close()
	watched := bell.Watch(ctx)
	<-watched
	h.Kill(t, "backup")
	took := swapEventually(t, c, term(2, "slave"))
	t.Logf("swap after a follower died: %s", took)
	if took > 500*time.Millisecond {
		t.Errorf("a swap took %s after a follower died", took)
	}
	start = time.Now()
	for s := range watched { // the watch was on the dead one, and nothing is re-read
		if s.Term.Epoch == 2 {
			break
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a watch on the dead member saw the swap after %s", took)
	}
	if st, err := c.Status(ctx); err != nil || st.Voters != 3 || st.Up != 2 || !st.Quorum {
		t.Errorf("status with one dead voter: %+v, %v", st, err)
	}
	// Two of three live: taking one of them away would end the quorum.
	if err := c.RemoveVoter(ctx, "slave"); !errors.Is(err, store.ErrNoQuorum) {
		t.Errorf("removing a living voter beside a dead one: %v", err)
	}
	h.Restart(t, "backup")
	h.AwaitReady(t, "backup")
	storetest.AwaitVoters(t, c, 3)

	// The leader's host dies: an election of at most two election time-outs.
	leader := leaderOf(t, c)
	h.Kill(t, leader)
	took = swapEventually(t, c, term(3, "slave"))
	t.Logf("swap after the leader died: %s", took)
	if took > 4*time.Second {
		t.Errorf("a swap took %s after the leader died", took)
	}

	// Gone for good: its vote goes. With two left nothing more may go unless
	// both live.
	if err := c.RemoveVoter(ctx, leader); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveVoter(ctx, leader); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removing it twice: %v", err)
	}
	storetest.AwaitVoters(t, c, 2)

	// It comes back with its old data: it is told so, and not let in.
	h.Restart(t, leader)
	if out := h.AwaitEnd(t, leader); !strings.Contains(out, voter.ErrRemoved.Error()) {
		t.Errorf("a removed voter ended with: %s", out)
	}
	if err := voter.Discard(h.Hosts[leader].Dir); err != nil {
		t.Fatal(err)
	}
	h.Join(t, leader, 30*time.Second, others(h, leader)...)
	h.AwaitReady(t, leader)
	storetest.AwaitVoters(t, c, 3)
	if s, err := h.Client(t, "herd", leader).Read(ctx); err != nil || s.Term.Epoch != 3 {
		t.Fatalf("through the voter that came back: %+v, %v", s.Term, err)
	}
}

func others(h *storetest.Herd, not string) (out []string) {
	for n := range h.Hosts {
		if n != not {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// TestC6_EmptyDiskCannotFormAQuorum replays the finding: n1 is cut off while n2
// and n3 commit the takeover; n3 loses its disk, n2 drops off, n1 returns. n1
// and an empty n3 together would serve the term from before the takeover.
func TestC6_EmptyDiskCannotFormAQuorum(t *testing.T) {
	t.Parallel()
	h := three(t)
	ctx := t.Context()
	c := h.Client(t, "herd", "master", "slave", "backup")
	if _, err := c.Create(ctx, term(7, "master")); err != nil {
		t.Fatal(err)
	}
	h.Kill(t, "master")
	swapEventually(t, c, term(8, "slave"))
	h.Kill(t, "slave")
	h.Kill(t, "backup")
	h.LoseDisk(t, "backup")

	h.Restart(t, "master") // waits for a quorum
	h.Join(t, "backup", 2*time.Second, "master", "slave")
	if out := h.AwaitEnd(t, "backup"); !strings.Contains(out, store.ErrNoQuorum.Error()) {
		t.Fatalf("an empty voter ended with: %s", out)
	}
	if s, err := h.Client(t, "herd", "master", "backup").Read(ctx); err == nil {
		t.Fatalf("a store of one old voter and an empty one serves epoch %d", s.Term.Epoch)
	}

	// With n2 back there is a quorum that knows the takeover, and it replaces n3.
	h.Restart(t, "slave")
	h.AwaitReady(t, "slave")
	h.Join(t, "backup", 30*time.Second, "master", "slave")
	h.AwaitReady(t, "backup")
	st := storetest.AwaitVoters(t, c, 3)
	if len(st.Members) != 3 {
		t.Fatalf("members %+v", st.Members)
	}
	h.Kill(t, "slave") // the new backup's vote counts and carries the takeover
	storetest.Eventually(t, "read after the replacement", func() error {
		s, err := c.Read(ctx)
		if err == nil && s.Term.Epoch != 8 {
			t.Fatalf("the store went back to epoch %d", s.Term.Epoch)
		}
		return err
	})

	// Last resort: two of three are gone for good.
	h.Kill(t, "backup")
	h.Kill(t, "master")
	h.Recover(t, "master")
	alone := h.Client(t, "herd", "master")
	storetest.AwaitVoters(t, alone, 1)
	if s, err := alone.Read(ctx); err != nil || s.Term.Epoch != 8 {
		t.Fatalf("recovered: %+v, %v", s.Term, err)
	}
}

// TestC6_NeverFoundsTwice: an order to found does not outlive the first store.
func TestC6_NeverFoundsTwice(t *testing.T) {
	h := storetest.NewHerd(t, "one")
	cfg := h.Config(t, "one")
	start := func(cfg voter.Config) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		v, err := voter.Start(ctx, cfg)
		if err != nil {
			return err
		}
		return v.Close()
	}
	if err := start(cfg); err == nil || !strings.Contains(err.Error(), "neither to found") {
		t.Fatalf("without an order: %v", err)
	}
	cfg.Found = true
	cfg.MayFound = nil
	if err := start(cfg); err == nil {
		t.Fatal("founded without the check for another store")
	}
	asked := errors.New("slave has a term on its disk")
	cfg.MayFound = func(context.Context) error { return asked }
	if err := start(cfg); !errors.Is(err, asked) {
		t.Fatalf("founded although %v: %v", asked, err)
	}
	cfg.MayFound = func(context.Context) error { return nil }
	if err := start(cfg); err != nil {
		t.Fatal(err)
	}
	cfg.MayFound = func(context.Context) error { t.Error("asked although there is data"); return nil }
	if err := start(cfg); err != nil { // the order is still in its configuration
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	if err := start(cfg); !errors.Is(err, voter.ErrDataLost) {
		t.Fatalf("founded anew over lost data: %v", err)
	}
	cfg.Name = "two"
	if err := start(cfg); err == nil || !strings.Contains(err.Error(), "belongs to one") {
		t.Fatalf("started in another's folder: %v", err)
	}
}

// TestNameClash: an empty host that bears a living member's name by mistake does
// not throw it out.
func TestNameClash(t *testing.T) {
	t.Parallel()
	h := storetest.NewHerd(t, "one", "other")
	h.Found(t, "one")
	cfg := h.Config(t, "other")
	cfg.Name, cfg.Join = "one", []string{h.Hosts["one"].Client}
	if _, err := voter.Start(t.Context(), cfg); !errors.Is(err, store.ErrExists) {
		t.Fatalf("got %v", err)
	}
	storetest.AwaitVoters(t, h.Client(t, "herd", "one"), 1)
	if err := h.Client(t, "herd", "one").RemoveVoter(t.Context(), "one"); !errors.Is(err, store.ErrNoQuorum) {
		t.Fatalf("removing the last voter: %v", err)
	}
	if err := h.Client(t, "herd", "one").MoveLeader(t.Context(), "one"); !errors.Is(err, store.ErrNoQuorum) {
		t.Fatalf("moving the leadership of the only voter: %v", err)
	}
}

// TestOneLearnerAtATime: a second one is refused before anything of it gets into
// the log, where a voter that starts again would take it for a member.
func TestOneLearnerAtATime(t *testing.T) {
	t.Parallel()
	h := storetest.NewHerd(t, "one")
	h.Found(t, "one")
	c := h.Client(t, "herd", "one")
	storetest.Eventually(t, "a learner", func() error {
		_, _, err := c.AddLearner(t.Context(), []string{"https://127.0.0.1:1"})
		return err
	})
	if _, _, err := c.AddLearner(t.Context(), []string{"https://127.0.0.1:2"}); !errors.Is(err, store.ErrBusy) {
		t.Errorf("a second learner: %v", err)
	}
	h.Kill(t, "one")
	if out := h.AwaitEnd(t, "one"); strings.Contains(out, "too many learner") {
		t.Errorf("the second learner is in the log:\n%s", out)
	}
}

// TestFrozenMember: a member that answers nothing any more, on connections that
// stand, costs a read no more than the hedge.
func TestFrozenMember(t *testing.T) {
	t.Parallel()
	h := three(t)
	ctx := t.Context()
	c := h.Client(t, "herd", "backup", "slave", "master")
	rev, err := c.Create(ctx, term(1, "master"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.MoveLeader(ctx, "backup"); err != nil {
		t.Fatal(err)
	}
	watched := c.Watch(ctx)
	<-watched
	// A call that was moved or was slow has put the others first until a probe.
	storetest.Eventually(t, "a client that prefers the member", func() error {
		if _, err := c.Read(ctx); err != nil || c.Preferred() != h.Hosts["backup"].Client {
			return fmt.Errorf("preferred is %s, %v", c.Preferred(), err)
		}
		return nil
	})
	h.Signal(t, "backup", syscall.SIGSTOP)
	start := time.Now()
	if _, err := c.Read(ctx); err != nil {
		t.Fatal(err)
	}
	read := time.Since(start)
	rev, err = c.Swap(ctx, rev, term(2, "slave"))
	if err != nil {
		t.Fatal(err)
	}
	swap := time.Since(start) - read
	t.Logf("read %s, swap %s", read, swap)
	if read > 400*time.Millisecond || swap > 400*time.Millisecond {
		t.Errorf("with a frozen member a read took %s, a swap after it %s", read, swap)
	}
	for s := range watched { // the watch was on the frozen one
		if s.TermRev == rev {
			break
		}
	}
	began := time.Now()
	if st, err := c.Status(ctx); err != nil || st.Up != 2 || time.Since(began) > 1200*time.Millisecond {
		t.Errorf("status %+v, %v after %s", st, err, time.Since(began))
	}
	h.Signal(t, "backup", syscall.SIGCONT)
	storetest.AwaitVoters(t, c, 3)
	storetest.Eventually(t, "the preferred member is preferred again", func() error {
		if _, err := c.Read(ctx); err != nil {
			return err
		}
		if p := c.Preferred(); p != h.Hosts["backup"].Client {
			return fmt.Errorf("preferred is %s", p)
		}
		return nil
	})
}
