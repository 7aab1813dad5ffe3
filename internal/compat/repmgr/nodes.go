package repmgr

import (
	"cmp"
	"slices"

	"manada/internal/cluster"
)

// node is what repmgr would have in its table of nodes and find out by
// connecting to them.
type node struct {
	id       int
	name     string
	primary  bool // registered as such; else a standby
	active   bool
	conn     connection
	recovery cluster.PostgresState // what it runs as; only when conn is up
	timeline cluster.Timeline
	attached bool // streams from its upstream
	upstream *node
	location string
	priority int
	conninfo string
	why      string // no connection
}

// connection is how an attempt to connect would end.
type connection int

const (
	unreachable connection = iota
	rejected               // it starts or stops
	up
)

// nodesOf puts the herd's status into repmgr's terms. Hosts without a database
// are none of its nodes. Who is registered as primary follows the herd's record;
// a primary that was taken over from stays registered as one, inactive, until it
// follows the new one.
func nodesOf(st cluster.Status) []*node {
	var ns []*node
	var leader *node
	for _, s := range st.Nodes {
		if s.Role != cluster.RolePrimary && s.Role != cluster.RoleStandby {
			continue
		}
		n := &node{
			id: s.ID, name: s.Name, primary: s.Role == cluster.RolePrimary, active: true, recovery: s.Postgres,
			attached: s.State == cluster.StateStreaming, location: cmp.Or(s.Location, "default"), priority: 100,
			conninfo: s.Conninfo(), why: "PostgreSQL is " + cmp.Or(string(s.Postgres), "out of reach: "+string(s.State)),
		}
		if s.Priority != nil {
			n.priority = *s.Priority
		}
		switch s.Postgres {
		case cluster.PostgresPrimary, cluster.PostgresStandby:
			n.conn, n.timeline = up, s.Timeline
		case cluster.PostgresStarting, cluster.PostgresStopping:
			n.conn = rejected
		}
		if s.Former && !(n.conn == up && n.recovery == cluster.PostgresStandby) {
			n.primary, n.active = true, false
		}
		if s.Role == cluster.RolePrimary {
			leader = n
		}
		ns = append(ns, n)
	}
	giveNumbers(ns)
	connect(ns, leader)
	return ns
}

// connect gives every standby its upstream. While a new epoch is not open the
// old primary is still registered.
func connect(ns []*node, leader *node) {
	for _, n := range ns {
		if leader == nil && n.primary {
			leader, n.active = n, true
		}
	}
	for _, n := range ns {
		if !n.primary {
			n.upstream = leader
		}
	}
}

// giveNumbers gives nodes that have none yet the first free numbers, and sorts.
func giveNumbers(ns []*node) {
	slices.SortFunc(ns, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	taken := map[int]bool{}
	for _, n := range ns {
		taken[n.id] = true
	}
	next := 1
	for _, n := range ns {
		for n.id == 0 && taken[next] {
			next++
		}
		if n.id == 0 {
			n.id, taken[next] = next, true
		}
	}
	slices.SortStableFunc(ns, func(a, b *node) int { return cmp.Compare(a.id, b.id) })
}
