package sim

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "replay this seed with a trace (TestSeed)")
	nodesFlag = flag.Int("sim.nodes", 3, "data nodes of the seed to replay")
	profFlag  = flag.String("sim.profile", "even1", "profile of the seed to replay")
	countFlag = flag.Int("sim.count", 0, "schedules per profile and number of nodes instead of the usual")
	fromFlag  = flag.Uint64("sim.from", 1, "first seed")
)

// TestSeed replays one schedule and shows what happened.
func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("needs -sim.seed")
	}
	p, ok := ProfileNamed(*profFlag)
	if !ok {
		t.Fatalf("no profile %q", *profFlag)
	}
	r := Run(*seedFlag, *nodesFlag, &p, true)
	t.Logf("%+v\n%s", r.Stats, strings.Join(r.Trace, "\n"))
	if r.Err != nil {
		t.Fatal(r.Err)
	}
}

// report shows the end of a failed schedule and how to see all of it.
func report(t *testing.T, seed uint64, data int, p *Profile) {
	t.Helper()
	r := Run(seed, data, p, true)
	tail := r.Trace[max(0, len(r.Trace)-60):]
	t.Errorf("%v\nreplay: go test ./test/sim -run Seed -sim.seed=%d -sim.nodes=%d -sim.profile=%s\n%s",
		r.Err, seed, data, p.Name, strings.Join(tail, "\n"))
}

// schedules per number of nodes: together well over 2,000 in an ordinary run.
func schedules(p *Profile) int {
	switch {
	case *countFlag > 0:
		return *countFlag
	case p.Name == "even1":
		return 250
	case p.Name == "even2":
		return 200
	}
	return 60
}

// TestSchedules: the protocol as it is keeps its invariants, whatever happens,
// and comes back when it ends.
func TestSchedules(t *testing.T) {
	var all Stats
	began := time.Now()
	t.Run("profiles", func(t *testing.T) {
		results := make(chan Stats, 64)
		for _, p := range Profiles() {
			for data := 2; data <= 4; data++ {
				t.Run(fmt.Sprintf("%s/%d", p.Name, data), func(t *testing.T) {
					t.Parallel()
					results <- survive(t, data, &p)
				})
			}
		}
		t.Cleanup(func() {
			close(results)
			for s := range results {
				all.add(&s)
			}
		})
	})
	took := time.Since(began)
	t.Logf("%.1f s, %.0f steps/s: %+v", took.Seconds(), float64(all.Steps)/took.Seconds(), all)
	if !t.Failed() {
		covered(t, &all)
	}
}

func survive(t *testing.T, data int, p *Profile) Stats {
	var all Stats
	for i := range schedules(p) {
		seed := *fromFlag + uint64(i)
		r := Run(seed, data, p, false)
		all.add(&r.Stats)
		if r.Err != nil {
			report(t, seed, data, p)
			break
		}
		if r.Stats.Steps < 200 || r.Stats.Faults < 10 {
			t.Errorf("seed %d: only %d steps and %d faults", seed, r.Stats.Steps, r.Stats.Faults)
		}
	}
	return all
}

// covered fails when so little happened that the test proves nothing.
func covered(t *testing.T, s *Stats) {
	t.Helper()
	n := s.Schedules
	if n < 2000 && *countFlag == 0 {
		t.Errorf("only %d schedules", n)
	}
	for _, c := range []struct {
		what      string
		got, want int
	}{
		{"acknowledged commits", s.Acks, 40 * n}, {"takeovers", s.Takeovers, n / 2},
		{"self-successions", s.SelfSuccessions, n / 4}, {"switchovers", s.Switchovers, n / 10},
		{"degradations", s.Degradations, n / 12}, {"restorations", s.Restorations, n},
		{"widened", s.Widened, n / 2}, {"narrowed", s.Narrowed, n / 12}, {"raised k", s.RaisedK, n / 20},
		{"rewinds", s.Rewinds, n / 2}, {"clones", s.Clones, n / 2}, {"unknown outcomes", s.Unknown, n / 2},
		{"late writes applied", s.LateApplied, n / 100}, {"lost disks", s.LostDisks, n / 10},
		{"drained before a stop", s.Drained, n / 5}, {"holds that lasted to their end", s.Late, n / 50}, {"switchovers given up", s.GivenUp, n / 50}, {"transactions cut by a hold", s.Cut, n / 50},
		{"last words", s.LastWords, n / 50}, {"WAL fetched by heirs", s.Fetched, n / 200}, {"promises", s.Promises, n / 2}, {"withdrawn promises", s.Withdrawn, n / 20},
	} {
		if c.got < c.want {
			t.Errorf("%s: %d in %d schedules, want at least %d: the schedules prove too little", c.what, c.got, n, c.want)
		}
	}
}

// TestSameSeedSameSchedule: a failure can always be replayed.
func TestSameSeedSameSchedule(t *testing.T) {
	p := Even(1)
	a, b, c := Run(42, 3, &p, true), Run(42, 3, &p, true), Run(42, 3, &p, false)
	if x, y := strings.Join(a.Trace, "\n"), strings.Join(b.Trace, "\n"); x != y {
		t.Fatal("two runs of one seed differ")
	}
	if a.Stats != c.Stats {
		t.Fatalf("tracing changes the schedule: %+v and %+v", a.Stats, c.Stats)
	}
}

// A mutant must be found within so many schedules over 2, 3 and 4 nodes.
const patience = 3000

// hunt plays schedules until the checker objects to something other than
// liveness.
func hunt(p *Profile) (schedules int, r Result) {
	for seed := uint64(1); schedules < patience; seed++ {
		for data := 2; data <= 4; data++ {
			schedules++
			r = Run(seed, data, p, false)
			if r.Err != nil && !strings.HasPrefix(r.Err.Error(), "invariant 5") {
				return schedules, r
			}
		}
	}
	return schedules, Result{}
}

func findAll(t *testing.T, mutants []Mutant) {
	for _, m := range mutants {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			n, r := hunt(&m.Profile)
			if r.Err == nil {
				t.Fatalf("%s: not found in %d schedules of profile %s", m.Finding, n, m.Profile.Name)
			}
			t.Logf("%s: found after %d schedules, %.2f s: %v", m.Finding, n, time.Since(began).Seconds(), r.Err)
		})
	}
}

// TestMutants: without any of seven rules the same checker objects.
func TestMutants(t *testing.T) { findAll(t, Mutants()) }

// TestAgentMutants: nor can the agent neglect what decide takes for granted.
func TestAgentMutants(t *testing.T) { findAll(t, AgentMutants()) }
