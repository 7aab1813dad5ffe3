package process

import (
	"slices"
	"testing"

	"manada/internal/agent"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

func answers(s *peer.Server) (names []string) {
	for _, e := range s.Entries() {
		names = append(names, e.Name)
	}
	return names
}

// A host with an agent answers every verb of the registry, one with nothing but a proxy
// those of a proxy; what each of them says of who may is tried in package peer.
func TestEveryVerbIsMounted(t *testing.T) {
	var all, few []string
	for _, v := range verb.All {
		all = append(all, v.Name)
	}
	for _, v := range slices.Concat([]verb.Verb{verb.Verbs}, verb.Proxy, []verb.Verb{verb.Join, verb.Refresh}) {
		few = append(few, v.Name)
	}
	hub := peer.NewHub(peer.Config{Cluster: "olivo", Node: "db1"})
	defer hub.Close()
	full := peer.NewServer(peer.ServerConfig{Hub: hub})
	new(agent.Agent).Mount(full)
	(&hostAgent{cfg: &config.Config{}}).mount(full, &pki.Authority{})
	if got := answers(full); !slices.Equal(got, all) {
		t.Errorf("an agent answers %q\nwant %q", got, all)
	}
	pure := peer.NewServer(peer.ServerConfig{})
	mountProxy(pure, &config.Config{})
	slices.Sort(few)
	if got := slices.Sorted(slices.Values(answers(pure))); !slices.Equal(got, few) {
		t.Errorf("a proxy answers %q\nwant %q", got, few)
	}
}
