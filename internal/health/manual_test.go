package health

import (
	"strings"
	"testing"

	"manada/internal/cluster"
)

// A standby that leads only by order is no safe failover.
func TestFailoverByOrder(t *testing.T) {
	zero := 0
	for _, c := range []struct {
		primary, failover string
		priority          *int
		want              string
	}{
		{"master", "automatic", nil, "safe: slave can take over"},
		{"master", "manual", nil, "not automatic: failover is manual on slave:  manada failover slave"},
		{"master", "automatic", &zero, "not automatic: slave has priority 0 and never leads"},
		{"", "manual", nil, "waits for an order: failover is manual on slave"},
		{"", "automatic", nil, "takes 1 of slave, 1 is able to"},
	} {
		s := cluster.Status{Epoch: 7, Primary: c.primary, Sync: []string{"slave"}, K: 1, Durability: cluster.Quorum, Store: &cluster.StoreStatus{Voters: 3, Up: 3}, Nodes: []cluster.NodeStatus{
			{Name: "slave", Role: cluster.RoleStandby, State: cluster.StateStreaming, SeenMS: ptr[int64](100), Sync: cluster.SyncMember, Failover: c.failover, Priority: c.priority}}}
		if got := Failover(s).Text; !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
