package process

import (
	"context"
	"errors"
	"slices"
	"testing"

	"manada/internal/peer"
)

// The other proxies are those of which the first agent tells that answers, without this
// one and those that do not say where they are.
func TestOtherProxies(t *testing.T) {
	beats := map[string]peer.Heard{"gone": {Broken: true}, "silent": {}, "db1": {}, "db2": {}}
	for node, h := range beats {
		if h.Beat.Addrs.Peer = node + ":7400"; node == "silent" {
			h.Beat.Addrs.Peer = ""
		}
		beats[node] = h
	}
	ask := func(_ context.Context, node, addr string) ([]peer.ListeningProxy, error) {
		switch {
		case addr != node+":7400", node == "gone", node == "silent":
			t.Errorf("%s is asked at %q", node, addr)
		case node == "db1":
			return nil, errors.New("it does not answer")
		}
		return []peer.ListeningProxy{{Node: "db1", SQL: "db1:5431"}, {Node: "old", Addr: "old:7400"}, {Node: "pooler", SQL: "pooler:5431"}}, nil
	}
	for range 10 { // in any order
		got := otherProxies("db1:5431", func() map[string]peer.Heard { return beats }, ask)(t.Context())
		if want := []string{"pooler:5431"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	delete(beats, "db2")
	if got := otherProxies("x", func() map[string]peer.Heard { return beats }, ask)(t.Context()); len(got) > 0 {
		t.Errorf("nobody answers: %v", got)
	}
}
