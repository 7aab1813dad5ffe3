package health

import (
	"manada/internal/cluster"
)

// row fills a node's line and remembers its state for the conditions.
func (b *builder) row(n *node) cluster.NodeStatus {
	n.state = b.state(n)
	r := cluster.NodeStatus{Name: n.name, Role: b.role(n), State: n.state, Sync: b.sync(n)}
	for _, e := range b.in.Expected {
		if e.Name == n.name {
			r.ID, r.Location, r.Address, r.Failover, r.Priority = e.ID, e.Location, e.Address, e.Failover, e.Priority
		}
	}
	r.Former = b.former(n, r.Sync)
	if n.heard {
		ms := n.age.Milliseconds()
		r.SeenMS = &ms
	}
	if n.beat == nil || n.kind != "data" {
		return r
	}
	r.Timeline, r.LSN, r.Op, r.Postgres = n.beat.Timeline, n.beat.WAL.LSN, n.beat.Op, n.beat.Postgres
	if r.Role == cluster.RoleStandby {
		r.LagBytes = b.lag(n)
		n.lagged = r.LagBytes
		if n.agent && n.beat.LagMS != nil && onHistory(n.state) {
			ms := *n.beat.LagMS
			r.LagMS = &ms
		}
	}
	return r
}

// role follows the record, not what a node says of itself; without a record it
// is unknown.
func (b *builder) role(n *node) cluster.Role {
	switch n.kind {
	case "witness":
		return cluster.RoleWitness
	case "proxy":
		return cluster.RoleOfProxy
	}
	switch {
	case b.term == nil:
		return ""
	case b.term.Open && b.term.Leader == n.name:
		return cluster.RolePrimary
	}
	return cluster.RoleStandby
}

func (b *builder) state(n *node) cluster.NodeState {
	switch {
	case n.stopped:
		return cluster.StateStopped
	case n.beat == nil:
		return cluster.StateUnreachable
	case !n.agent:
		return cluster.StateAgentDown
	case n.kind != "data":
		return cluster.StateRunning
	}
	beat := n.beat
	switch {
	case b.quarantined(n):
		return cluster.StateQuarantined
	case beat.Rejoin == "rewind":
		return cluster.StateRewinding
	case beat.Rejoin != "":
		return cluster.StateCloning
	}
	if b.term != nil && !b.term.Open && b.term.Leader == n.name && (beat.Postgres.Up() || beat.Leads == b.term.Epoch) {
		return cluster.StatePromoting
	}
	switch beat.Postgres {
	case cluster.PostgresDown, cluster.PostgresDying, cluster.PostgresNone, "":
		return cluster.StateDown
	case cluster.PostgresHung:
		return cluster.StateHung
	case cluster.PostgresStarting:
		return cluster.StateStarting
	case cluster.PostgresStopping:
		return cluster.StateStopping
	case cluster.PostgresPrimary:
		return b.primaryState(n)
	}
	switch {
	case b.term != nil && beat.Frozen >= b.term.Epoch && beat.Frozen != 0:
		return cluster.StateFrozen
	case beat.Streaming:
		return cluster.StateStreaming
	}
	return cluster.StateNotStreaming
}

// primaryState is the state of a PostgreSQL that is not in recovery.
func (b *builder) primaryState(n *node) cluster.NodeState {
	switch {
	case b.term == nil:
		return cluster.StateRunning
	case n.name != b.primary:
		return cluster.StateOldPrimary
	case n.beat.CannotCommit != "", n.beat.WritesWait != "":
		return cluster.StateCannotCommit
	}
	return cluster.StateRunning
}

// quarantined: the record says that this node's WAL past a point was given up,
// and the node does not show that it was made anew since (by streaming under
// the certificate of the current epoch).
func (b *builder) quarantined(n *node) bool {
	if b.term == nil || b.term.Lost == nil || b.term.Lost.Node != n.name || n.name == b.term.Leader {
		return false
	}
	return !(n.beat.Streaming && n.beat.Certified == b.term.Epoch)
}

// former says whether the node led before the present leader and, as far as is
// known, has not followed since: the last word of it counts, however old.
func (b *builder) former(n *node, sync string) bool {
	t := b.term
	if t == nil || n.kind != "data" || t.Leader == n.name || sync == cluster.SyncMember {
		return false
	}
	if beat := b.in.Nodes[n.name].Beat; beat != nil && beat.Certified == t.Epoch {
		return false
	}
	for i := len(t.History) - 1; i >= 0; i-- {
		if l := t.History[i].Leader; l != t.Leader {
			return l == n.name
		}
	}
	return false
}

// sync answers whether commits wait for the node. A fresh beat must show the
// very directory that the record names.
func (b *builder) sync(n *node) string {
	if b.term == nil || n.kind != "data" || b.role(n) != cluster.RoleStandby {
		return ""
	}
	m, ok := b.term.SyncNamed(n.name)
	if ok && (n.beat == nil || !n.agent || n.beat.Instance == m.Instance) {
		return cluster.SyncMember
	}
	return cluster.AsyncNode
}

// lag is how far the node's replay is behind the primary's WAL. Positions are
// only comparable while the node is on the primary's history, so it is unknown
// for a node that must be rewound, cloned or judged first. The two beats are
// of different moments: a negative difference is 0.
func (b *builder) lag(n *node) *int64 {
	p := b.node(b.primary)
	if p == nil || p.beat == nil || p.beat.WAL.LSN == 0 || !onHistory(n.state) {
		return nil
	}
	at := n.beat.Replay
	if at == 0 {
		at = n.beat.WAL.LSN
	}
	if at == 0 {
		return nil
	}
	d := int64(0)
	if p.beat.WAL.LSN > at {
		d = int64(p.beat.WAL.LSN - at)
	}
	return &d
}

// onHistory says whether a node in that state is on the primary's history.
func onHistory(s cluster.NodeState) bool {
	switch s {
	case cluster.StateStreaming, cluster.StateNotStreaming, cluster.StateFrozen:
		return true
	}
	return false
}
