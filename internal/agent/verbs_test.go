package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/store"
)

// A failover is for a primary that is gone: one that is well is named, with what
// hands over in order.
func TestFailoverFromAPrimaryThatIsWell(t *testing.T) {
	ms := int64(100)
	herd := func() cluster.Status {
		seen := ms
		return cluster.Status{Primary: "master", Nodes: []cluster.NodeStatus{
			{Name: "master", Role: cluster.RolePrimary, State: cluster.StateRunning, SeenMS: &seen},
			{Name: "slave", Role: cluster.RoleStandby, State: cluster.StateStreaming, Sync: cluster.SyncMember},
		}}
	}
	for _, c := range []struct {
		name    string
		change  func(*cluster.Status, *RequestVerb)
		refused bool
	}{
		{"well", func(*cluster.Status, *RequestVerb) {}, true},
		{"forced", func(_ *cluster.Status, q *RequestVerb) { q.Force = true }, false},
		{"accepting a loss is not forcing", func(_ *cluster.Status, q *RequestVerb) { q.AcceptDataLoss, q.OldPrimaryOff = true, true }, true},
		{"nobody leads", func(s *cluster.Status, _ *RequestVerb) { s.Primary = "" }, false},
		{"it cannot write", func(s *cluster.Status, _ *RequestVerb) { s.Nodes[0].State = cluster.StateCannotCommit }, false},
		{"silent for a moment", func(s *cluster.Status, _ *RequestVerb) { *s.Nodes[0].SeenMS = 1000 }, false},
	} {
		st, q := herd(), RequestVerb{To: "slave"}
		c.change(&st, &q)
		err := checkRequest(st, store.RequestFailover, q, time.Second)
		var p *peer.Error
		if (err != nil) != c.refused || err != nil && (!errors.As(err, &p) || p.Code != "primary_is_well" || !strings.Contains(p.Hint, "manada switchover slave")) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := checkRequest(herd(), store.RequestSwitchover, RequestVerb{To: "slave"}, time.Second); err != nil {
		t.Errorf("switchover: %v", err)
	}
}
