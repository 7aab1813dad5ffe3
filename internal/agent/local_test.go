package agent

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/guardian"
	"manada/internal/peer"
	"manada/internal/postgres"
	"manada/internal/store"
)

// newTestAgent has no hub, no store and no PostgreSQL: what is observed is set
// by the test.
func newTestAgent(t *testing.T) *Agent {
	t.Helper()
	high, err := store.OpenHighWater(filepath.Join(t.TempDir(), "high.json"))
	if err != nil {
		t.Fatal(err)
	}
	hub := peer.NewHub(peer.Config{Cluster: "c", Node: "master"})
	t.Cleanup(hub.Close)
	return New(Config{
		Cluster: "c", Node: "master", Kind: "data", Beat: 100 * time.Millisecond, StateDir: t.TempDir(),
		Spec: decide.Spec{SuspectAfter: time.Second, Durability: cluster.Quorum, WantK: 1},
	}, Parts{High: high, Hub: hub, Database: &postgres.Instance{}, Log: slog.New(slog.DiscardHandler)})
}

func twoEpochs() *cluster.Term {
	return &cluster.Term{
		SystemID: "1", Epoch: 2, Leader: "master", Open: true, K: 1,
		Sync: []cluster.Member{{Name: "slave", Instance: "s"}},
		History: []cluster.Branch{
			{Epoch: 1, Leader: "slave", Timeline: 1, Nonce: "n1"},
			{Epoch: 2, Parent: 1, Leader: "master", Timeline: 2, ForkLSN: 0x1000, Nonce: "n2"},
		},
	}
}

func snapshot(t *cluster.Term, rev int64) store.Snapshot {
	return store.Snapshot{Term: t, TermRev: rev, StoreRev: rev, StoreID: 7, Sent: time.Now(), Received: time.Now()}
}

// An agent that is started again beside a running primary observes it before
// it has read the record: it must not take it for the primary of no epoch, and
// stop it.
func TestAdoptedPrimaryLeadsItsEpoch(t *testing.T) {
	a := newTestAgent(t)
	a.seen = observed{state: cluster.PostgresPrimary, timeline: 2, postmaster: 11, instance: "m"}
	a.take(snapshot(twoEpochs(), 5))
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.localView(time.Now(), a.rec.snap.Term); l.Leads != 2 {
		t.Fatalf("leads epoch %d, want 2", l.Leads)
	}
}

func TestPrimaryOfSomebodyElsesEpochLeadsNothing(t *testing.T) {
	a := newTestAgent(t)
	a.seen = observed{state: cluster.PostgresPrimary, timeline: 1, postmaster: 11}
	a.take(snapshot(twoEpochs(), 5))
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.localView(time.Now(), a.rec.snap.Term); l.Leads != 0 {
		t.Fatalf("leads epoch %d, but timeline 1 was allocated to slave", l.Leads)
	}
}

// The position read before a promotion is not where the WAL of the running
// primary ends: with it every standby seemed to lie about its flush position.
func TestC1_PositionOfARunningPrimaryIsItsOwn(t *testing.T) {
	a := newTestAgent(t)
	a.take(snapshot(twoEpochs(), 5))
	a.mem.position = decidePosition{final: true, timeline: 1, lsn: 0x1000}
	a.seen = observed{state: cluster.PostgresPrimary, timeline: 2, wal: 0x5000, postmaster: 11}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.localView(time.Now(), a.rec.snap.Term)
	if want := (cluster.Position{Epoch: 2, LSN: 0x5000}); l.WAL != want || l.Final {
		t.Fatalf("position %+v final %v, want %+v", l.WAL, l.Final, want)
	}
}

// WAL that ends at the fork belongs to the epoch before, whatever timeline the
// control file names (C7).
func TestC7_EpochOfTheWAL(t *testing.T) {
	for _, c := range []struct {
		lsn  cluster.LSN
		want uint64
	}{{0x0fff, 1}, {0x1000, 1}, {0x1001, 2}} {
		a := newTestAgent(t)
		a.take(snapshot(twoEpochs(), 5))
		a.mem.position = decidePosition{final: true, timeline: 2, lsn: c.lsn}
		a.seen = observed{state: cluster.PostgresStandby}
		if p, _ := a.position(a.rec.snap.Term); p.Epoch != c.want {
			t.Errorf("WAL up to %s is of epoch %d, want %d", c.lsn, p.Epoch, c.want)
		}
	}
}

// A write of the run before may still arrive: a leader's agent starts as if its
// last write had an unknown outcome (H2).
func TestH2_StartsUnsettled(t *testing.T) {
	a := newTestAgent(t)
	a.take(snapshot(twoEpochs(), 5))
	if !a.rec.unsettled {
		t.Error("the agent of the leader takes its last write for settled")
	}
	follower := newTestAgent(t)
	term := twoEpochs()
	term.Leader = "slave"
	follower.take(snapshot(term, 5))
	if follower.rec.unsettled {
		t.Error("a follower needs no settling")
	}
}

// An answer from the past changes nothing but the mark (C6).
func TestC6_OlderAnswerIsNotObeyed(t *testing.T) {
	a := newTestAgent(t)
	a.take(snapshot(twoEpochs(), 50))
	old := twoEpochs()
	old.Epoch, old.Leader, old.History = 1, "slave", old.History[:1]
	a.take(snapshot(old, 10))
	if !a.rec.rolledBack {
		t.Error("the store went back and nobody noticed")
	}
	if a.rec.snap.Term.Epoch != 2 {
		t.Errorf("obeys epoch %d out of the past", a.rec.snap.Term.Epoch)
	}
}

// A setting that somebody made by hand equals none of ours, so it is set again.
func TestForeignSyncSettingIsNoSettingOfOurs(t *testing.T) {
	s := translate(postgres.Observation{State: cluster.PostgresPrimary, Sync: "*"})
	for _, ours := range []cluster.SyncSetting{cluster.CommitAlone(), cluster.HoldCommits(), cluster.WaitFor(1, 2, "slave")} {
		if s.sync.Equal(ours) {
			t.Errorf("%q passes for %q", "*", ours)
		}
	}
	for _, ours := range []cluster.SyncSetting{cluster.CommitAlone(), cluster.HoldCommits(), cluster.WaitFor(2, 3, "b", "a")} {
		if got := translate(postgres.Observation{Sync: ours.String()}); !got.sync.Equal(ours) {
			t.Errorf("%q is read as %q", ours, got.sync)
		}
	}
}

// An untouched rewind can be begun again; what was altered needs a clone.
func TestPoisonedOnlyWhenAltered(t *testing.T) {
	for _, c := range []struct {
		p    postgres.Poison
		want bool
	}{
		{postgres.Poison{What: "rewind"}, false},
		{postgres.Poison{What: "rewind", Touched: true}, true},
		{postgres.Poison{What: "clone"}, true},
	} {
		if got := translate(postgres.Observation{Poison: &c.p}).poisoned; got != c.want {
			t.Errorf("%+v: poisoned %v, want %v", c.p, got, c.want)
		}
	}
}

// The guardian's word of a dead postmaster counts at once, and only for the
// postmaster that was observed.
func TestGuardiansWord(t *testing.T) {
	a := newTestAgent(t)
	a.take(snapshot(twoEpochs(), 5))
	a.seen = observed{state: cluster.PostgresPrimary, timeline: 2, postmaster: 11}
	a.postmasterGone(guardian.Status{PID: 12})
	if a.seen.state != cluster.PostgresPrimary {
		t.Error("another postmaster's end was taken for this one's")
	}
	a.postmasterGone(guardian.Status{PID: 11})
	if a.seen.state != cluster.PostgresDying {
		t.Errorf("state %s, want dying", a.seen.state)
	}
}
