package agent

import (
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/store"
)

func TestNodeID(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	master := store.Node{Name: "master", ID: 1, Joined: at(1)}
	late := store.Node{Name: "late", ID: 1, Joined: at(9)} // took the same number at once
	for _, c := range []struct {
		what   string
		wanted int
		self   store.Node
		others []store.Node
		id     int
	}{
		{"the first", 0, store.Node{Name: "a", Joined: at(1)}, nil, 1},
		{"the next free one", 0, store.Node{Name: "b", Joined: at(2)}, []store.Node{master, {Name: "x", ID: 3, Joined: at(1)}}, 2},
		{"what it has stays", 0, store.Node{Name: "b", ID: 7, Joined: at(2)}, []store.Node{master}, 7},
		{"the file wins", 5, store.Node{Name: "b", ID: 7, Joined: at(2)}, []store.Node{master}, 5},
		{"of two the later gives way", 0, late, []store.Node{master, late}, 2},
		{"and the earlier does not", 0, master, []store.Node{master, late}, 1},
		{"hosts without a database bear none", 0, store.Node{Name: "b", Joined: at(2)}, []store.Node{{Name: "witness", Joined: at(1)}}, 1},
	} {
		if got := nodeID(c.wanted, c.self, c.others); got != c.id {
			t.Errorf("%s: %d, want %d", c.what, got, c.id)
		}
	}
}

func TestBestSuccessor(t *testing.T) {
	prio := func(n int) *int { return &n }
	node := func(name string, p int, failover string, sync string) cluster.NodeStatus {
		return cluster.NodeStatus{Name: name, Role: cluster.RoleStandby, State: cluster.StateStreaming, Priority: prio(p), Failover: failover, Sync: sync}
	}
	for want, nodes := range map[string][]cluster.NodeStatus{
		"b": {node("a", 50, "automatic", "sync"), node("b", 60, "automatic", "sync")},
		"c": {node("c", 1, "automatic", "sync"), node("d", 900, "automatic", "async")},
		"e": {node("f", 900, "manual", "sync"), node("e", 1, "automatic", "sync")},
		"g": {node("g", 1, "manual", "sync"), node("h", 0, "automatic", "sync")},
		"":  {node("i", 0, "automatic", "sync")},
	} {
		if got := bestSuccessor(cluster.Status{Nodes: nodes}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
