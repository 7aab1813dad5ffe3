package session

import (
	"cmp"
	"net"
	"strconv"

	"manada/internal/proxy/conv"
)

// poolNodes are pgpool's columns of SHOW POOL_NODES (version 4), with its words.
var poolNodes = []string{"node_id", "hostname", "port", "status", "pg_status", "lb_weight", "role", "pg_role", "select_cnt",
	"load_balance_node", "replication_delay", "replication_state", "replication_sync_state", "last_status_change"}

// poolNodes is the table as the client's session sees it.
func (s *session) poolNodes() conv.Table {
	v := s.Topology.Current()
	up := 0
	for _, m := range v.Members {
		if m.Up {
			up++
		}
	}
	t := conv.Table{Columns: poolNodes}
	for i, m := range v.Members {
		host, port, err := net.SplitHostPort(m.Addr)
		if err != nil {
			host = m.Addr // a unix socket
		}
		status, weight, role, delay := "down", 0.0, "standby", "0"
		if m.Up {
			status, weight = "up", 1/float64(up)
			if !s.conf.Split { // all reads are the primary's
				weight = 0
				if m.Primary {
					weight = 1
				}
			}
		}
		if m.Primary {
			role = "primary"
		}
		if m.LagBytes > 0 {
			delay = strconv.FormatInt(m.LagBytes, 10)
		}
		t.Rows = append(t.Rows, []string{strconv.Itoa(i), host, port, status, status, strconv.FormatFloat(weight, 'f', 6, 64),
			role, role, strconv.FormatInt(s.Stats.Reads(m.Name), 10), strconv.FormatBool(s.readsAt(m.Name)), delay,
			m.State, m.Sync, s.Statuses.since(m)})
	}
	return t
}

// readsAt says whether a node is the session's home.
func (s *session) readsAt(node string) bool {
	if s.seat != nil {
		at, _ := s.seat.at()
		return node == cmp.Or(at, s.Topology.Current().Primary.Name)
	}
	if s.conf.Split && s.conv.Pin() == "" {
		if home := s.reads.where(); home != "" {
			return node == home
		}
	}
	return node == s.main.node
}
