package agent

import (
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
)

func TestTroublesAreTold(t *testing.T) {
	a, now := newTestAgent(t), time.Now()
	if cs := a.troubles(now); len(cs) > 0 {
		t.Errorf("nothing is wrong: %v", cs)
	}
	a.seen.state, a.seen.refused, a.seen.logicalSlots = cluster.PostgresStandby, `FATAL: could not access file "x" (SQLSTATE 58P01)`, []string{"sub1", "sub2"}
	a.room = roomMade{at: now, byRole: map[string]int{"app": 3, "report": 7}}
	got := map[string]string{}
	for _, c := range a.troubles(now) {
		got[c.Code] = c.Text + " " + c.Hint
	}
	for code, want := range map[health.Code]string{
		health.ConnectionsFail: `could not access file "x"`, health.LogicalSlotsIdle: "sub1, sub2", health.RoomMade: "10 sessions of report, app",
	} {
		if !strings.Contains(got[string(code)], want) {
			t.Errorf("%s: %q", code, got[string(code)])
		}
	}
	a.seen.state, a.seen.refused = cluster.PostgresPrimary, ""
	if cs := a.troubles(now.Add(2 * roomShown)); len(cs) > 0 {
		t.Errorf("a primary uses its slots, and the rest is over: %v", cs)
	}
}
