package rules

import (
	"fmt"
	"testing"
)

// TestRulesHold tries random histories. A failure prints the seed.
func TestRulesHold(t *testing.T) {
	handed, denied := 0, map[string]int{}
	for seed := range uint64(400) {
		s := newSim(seeded{t, seed}, seed)
		s.run(1500)
		handed += s.handed
		for k, n := range s.denied {
			denied[k] += n
		}
	}
	t.Logf("%d servers handed out, denied %v", handed, denied)
	if handed < 10000 || denied[tooMany] == 0 || denied["57P03"] == 0 {
		t.Error("the histories are too narrow")
	}
}

type seeded struct {
	*testing.T
	seed uint64
}

func (s seeded) Fatalf(format string, a ...any) {
	s.Helper()
	s.T.Fatalf("seed %d: "+format, append([]any{s.seed}, a...)...)
}

// catcher notices that a test would have failed.
type catcher struct{ why string }

type caught struct{}

func (c *catcher) Helper() {}
func (c *catcher) Fatalf(format string, a ...any) {
	c.why = fmt.Sprintf(format, a...)
	panic(caught{})
}

// TestRulesNoticeMutants: without a rule the histories fail.
func TestRulesNoticeMutants(t *testing.T) {
	for m, name := range map[mutation]string{fifo: "fifo", eviction: "eviction", nodeLimit: "node's limit", poolLimit: "pool's limit", pauses: "pause", epochs: "epochs", generations: "generations", clientLimit: "limit of clients", holds: "hold"} {
		why := ""
		for seed := uint64(0); seed < 100 && why == ""; seed++ {
			why = mutant(m, seed)
		}
		if why == "" {
			t.Errorf("%s: nothing noticed", name)
		}
		t.Logf("%s: %s", name, why)
	}
}

func mutant(m mutation, seed uint64) (why string) {
	c := &catcher{}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(caught); !ok {
				panic(r)
			}
			why = c.why
		}
	}()
	s := newSim(c, seed)
	s.b.without = m
	s.run(1500)
	return ""
}
