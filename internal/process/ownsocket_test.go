package process

import (
	"testing"

	"manada/internal/cluster"
)

// Only a beat of this host's own run leads to its socket: another host that has come to
// bear its name, or its address, is reached over the network.
func TestOwnSocketIsProved(t *testing.T) {
	o := ownSocket{node: "db1", run: "R1", socket: "/run/manada/.s.PGSQL.5432"}
	for what, c := range map[string]struct {
		own  ownSocket
		beat cluster.Beat
		want string
	}{
		"ours":                          {o, cluster.Beat{Node: "db1", Run: "R1"}, o.socket},
		"another host of our name":      {o, cluster.Beat{Node: "db1", Run: "R2"}, ""},
		"one that says no run":          {o, cluster.Beat{Node: "db1"}, ""},
		"another that repeats our run":  {o, cluster.Beat{Node: "db2", Run: "R1"}, ""},
		"nothing heard":                 {o, cluster.Beat{}, ""},
		"no run here":                   {ownSocket{node: "db1", socket: o.socket}, cluster.Beat{Node: "db1"}, ""},
		"a host without a database":     {ownSocket{}, cluster.Beat{}, ""},
		"before our own start, by name": {ownSocket{node: "db1", run: "R3", socket: o.socket}, cluster.Beat{Node: "db1", Run: "R1"}, ""},
	} {
		if got := c.own.path(c.beat); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
