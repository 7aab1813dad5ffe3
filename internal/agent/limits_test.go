package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/health"
	"manada/internal/store"
)

func codesOf(cs []cluster.Condition) map[string]bool {
	m := map[string]bool{}
	for _, c := range cs {
		m[c.Code] = true
	}
	return m
}

func TestLimitsAreTold(t *testing.T) {
	a := newTestAgent(t)
	a.storeUp = store.Status{DBBytes: 90 << 20, QuotaBytes: 100 << 20}
	a.mem.leads, a.seen.lostSlots = 2, []string{"manada_slave"}
	a.parts.CertNotAfter = func() time.Time { return time.Now().Add(time.Hour) }
	a.limits()
	for _, want := range []health.Code{health.StoreNearlyFull, health.SlotLostWAL, health.CertExpiring} {
		if !codesOf(a.careful)[string(want)] {
			t.Errorf("%s is not told: %v", want, a.careful)
		}
	}
	a.storeUp.DBBytes, a.seen.lostSlots = 1, nil
	a.parts.CertNotAfter = func() time.Time { return time.Now().AddDate(1, 0, 0) }
	a.limits()
	for _, gone := range []health.Code{health.StoreNearlyFull, health.SlotLostWAL, health.CertExpiring} {
		if codesOf(a.careful)[string(gone)] {
			t.Errorf("%s is still told", gone)
		}
	}
}

func TestAFailedStepIsToldUntilOneSucceeds(t *testing.T) {
	a := newTestAgent(t)
	act := decide.Action{Verb: decide.StartStandby}
	a.failed(act, errors.New("start postgres: could not bind\n\tIPv4 address \"127.0.0.1\": "+strings.Repeat("x", 1000)+" the end"))
	cs := a.conditions(&decide.View{})
	if len(cs) != 1 || cs[0].Code != string(health.StepFails) || len(cs[0].Text) > 400 || strings.ContainsAny(cs[0].Text, "\n\t") ||
		!strings.Contains(cs[0].Text, "could not bind IPv4") || !strings.Contains(cs[0].Text, "the end") {
		t.Errorf("%v", cs)
	}
	a.failed(act, nil)
	if cs := a.conditions(&decide.View{}); len(cs) != 0 {
		t.Errorf("still told: %v", cs)
	}
}
