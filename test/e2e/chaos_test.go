package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestChaos repeats the failures in random order on one herd, each under load
// and each judged as in TestHerd.
//
//	go test ./test/e2e -run Chaos -long -timeout 3h -v
func TestChaos(t *testing.T) {
	if !*long || testing.Short() {
		t.Skip("only with -long")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	parts := []struct {
		name string
		run  func(*testing.T)
	}{
		{"PostmasterKilled", postmasterKilled}, {"PrimaryHostKilled", primaryHostKilled}, {"StandbyHostKilled", standbyHostKilled},
		{"PrimaryHostStopped", primaryHostStopped}, {"StandbyHostStopped", standbyHostStopped},
		{"Switchover", switchover}, {"PostmasterFrozen", postmasterFrozen}, {"ProcessesKilled", processesKilled},
		{"SupervisorKilled", supervisorKilled}, {"StoreFrozen", storeFrozen}, {"SettingPutBack", settingPutBack}, {"PowerLoss", powerLoss},
	}
	for i := range *rounds {
		p := parts[dice.IntN(len(parts))]
		if !t.Run(fmt.Sprintf("%03d-%s", i+1, p.name), p.run) && herds.shared == nil {
			t.Log("the next part gets a new herd")
		}
	}
}
