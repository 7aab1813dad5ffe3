package sim

import (
	"flag"
	"strings"
	"testing"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "replay this seed with a trace")
	nodesFlag = flag.Int("sim.nodes", 3, "data nodes of the seed to replay")
	profFlag  = flag.String("sim.profile", "even", "profile of the seed to replay")
	kFlag     = flag.Int("sim.k", 1, "standbys to wait for")
	countFlag = flag.Int("sim.count", 700, "schedules per number of nodes")
)

func base() Profile {
	return Profile{
		Name: "even", WantK: 1, Steps: 240, Faults: 12, Weights: even(),
		reply: 800, beatLoss: 20, conflict: 4, slowReload: 40, slowAct: 40, flaky: 20, late: 300,
	}
}

func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("needs -sim.seed")
	}
	p := base()
	p.WantK = *kFlag
	p.Strict = *profFlag == "strict"
	r := Run(*seedFlag, *nodesFlag, &p, true)
	t.Log("\n" + strings.Join(r.Trace, "\n"))
	if r.Err != nil {
		t.Fatal(r.Err)
	}
}

func TestSchedules(t *testing.T) {
	var all Stats
	fails := 0
	for data := 2; data <= 4; data++ {
		p := base()
		for seed := uint64(1); seed <= uint64(*countFlag); seed++ {
			r := Run(seed, data, &p, false)
			all.add(&r.Stats)
			if r.Err != nil {
				fails++
				if fails < 30 {
					t.Errorf("nodes %d seed %d: %v", data, seed, r.Err)
				}
			}
		}
	}
	t.Logf("fails %d; %+v", fails, all)
}
