package sim

import (
	"testing"
	"time"

	"manada/internal/decide"
)

var mutants = []struct {
	name string
	m    decide.Mutation
}{
	{"WithoutCertificate", decide.WithoutCertificate},
	{"WithoutNarrowingFlush", decide.WithoutNarrowingFlush},
	{"WithoutOpening", decide.WithoutOpening},
	{"WithoutReceiverGone", decide.WithoutReceiverGone},
	{"WithoutWALEpoch", decide.WithoutWALEpoch},
	{"WithoutSwapFirst", decide.WithoutSwapFirst},
	{"WithoutBothValues", decide.WithoutBothValues},
	{"forgetful", 0},
	{"hasty", 0},
	{"none", 0},
}

func TestMutants(t *testing.T) {
	for _, m := range mutants {
		for _, k := range []int{1, 2} {
			p := base()
			p.Without = m.m
			p.WantK = k
			p.forgetful = m.name == "forgetful"
			p.hasty = m.name == "hasty"
			start := time.Now()
			n, live := 0, 0
			var err error
			for seed := uint64(1); seed <= uint64(*countFlag) && err == nil; seed++ {
				for data := 2; data <= 4; data++ {
					r := Run(seed, data, &p, false)
					n++
					if r.Err != nil {
						if r.Err.Error()[10] == '5' {
							live++
							continue
						}
						err = r.Err
						t.Logf("%s k=%d: after %d schedules, %v (seed %d, %d nodes, live %d): %v", m.name, k, n, time.Since(start), seed, data, live, err)
						break
					}
				}
			}
			if err == nil {
				t.Logf("%s k=%d: NOT FOUND in %d schedules, %v, live %d", m.name, k, n, time.Since(start), live)
			}
		}
	}
}
