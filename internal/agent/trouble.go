package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
)

// roomMade is what it took to keep connections for the herd's own roles.
type roomMade struct {
	at     time.Time // the last time
	began  time.Time
	byRole map[string]int
}

// roomShown is how long `status` tells of sessions that were ended.
const roomShown = time.Minute

// makeRoom ends ordinary sessions where they have taken the connections without
// which nobody of the herd gets in.
func (a *Agent) makeRoom(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.db.Config().QueryTimeout)
	defer cancel()
	ended, err := a.db.MakeRoom(ctx)
	if err != nil || len(ended) == 0 {
		return // tried again at the next look
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := &a.room; now.Sub(m.at) > roomShown {
		*m = roomMade{began: now, byRole: map[string]int{}}
	}
	a.room.at = now
	for _, role := range ended {
		a.room.byRole[role]++
	}
}

// troubles are conditions of this node's PostgreSQL as the newest look found
// it. Called with mu held.
func (a *Agent) troubles(now time.Time) []cluster.Condition {
	var cs []cluster.Condition
	s, node := &a.seen, a.cfg.Node
	up := s.state == cluster.PostgresPrimary || s.state == cluster.PostgresStandby
	if up && s.refused != "" {
		cs = append(cs, health.Say(health.ConnectionsFail, node, "why", s.refused))
	}
	if m := a.room; now.Sub(m.at) < roomShown {
		n, who := 0, []string(nil)
		for _, role := range slices.SortedFunc(maps.Keys(m.byRole), func(x, y string) int { return cmp.Or(m.byRole[y]-m.byRole[x], strings.Compare(x, y)) }) {
			n += m.byRole[role]
			who = append(who, role)
		}
		cs = append(cs, health.Say(health.RoomMade, node, "sessions", fmt.Sprintf("%d sessions of %s", n, strings.Join(who[:min(3, len(who))], ", "))))
	}
	if s.state == cluster.PostgresStandby && len(s.logicalSlots) > 0 {
		cs = append(cs, health.Say(health.LogicalSlotsIdle, node, "slots", strings.Join(s.logicalSlots, ", "), "slot", s.logicalSlots[0]))
	}
	return cs
}
