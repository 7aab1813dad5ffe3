package peer

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/internal/verb"
)

// A host knows the proxies that listen to it, as long as they do, and takes one
// POST from a host that has nothing but a proxy.
func TestProxiesThatListen(t *testing.T) {
	h := newHerd(t, herdName, "master")
	var srv *Server
	a := h.host("master").serve(func(s *Server) {
		srv = s
		s.Handle(verb.Drain, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who, _ := CallerOf(r.Context())
			WriteJSON(w, map[string]string{"by": who.Node})
		}))
		s.Handle(verb.Resume, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { t.Error("reached") }))
	})
	a.beating(cluster.Beat{})

	pooler := h.id("pooler", pki.KindProxy)
	cfg := testConfig(pooler)
	cfg.Proxy, cfg.ProxyAddr, cfg.ProxySQL, cfg.ProxyReadOnly = "b1", "192.0.2.7:7400", "192.0.2.7:5431", "192.0.2.7:5430"
	f := Follow(cfg, []string{a.addr})
	other := Follow(testConfig(h.id("slave", pki.KindData)), []string{a.addr}) // a command, or a proxy of a release before
	defer other.Close()
	eventually(t, "the other listens", func() bool { return len(other.Heard()) == 1 })
	eventually(t, "the proxy listens, and is known", func() bool {
		return len(srv.Proxies()) == 1 && srv.Proxies()["b1"] == "pooler"
	})
	var known []ListeningProxy
	must(t, (&Client{TLS: pooler.TLSFor, DialTimeout: 5 * time.Second}).Call(t.Context(), a.addr, "master", verb.Proxies, nil, &known))
	if want := []ListeningProxy{{"pooler", pki.KindProxy, "192.0.2.7:7400", "192.0.2.7:5431", "192.0.2.7:5430"}}; !slices.Equal(known, want) {
		t.Errorf("the proxies are %v, want %v", known, want)
	}
	f.Close()
	eventually(t, "it has left", func() bool { return len(srv.Proxies()) == 0 })

	post := func(v verb.Verb) (out map[string]string, err error) {
		err = (&Client{TLS: pooler.TLSFor, DialTimeout: 5 * time.Second}).Call(t.Context(), a.addr, "master", v, nil, &out)
		return out, err
	}
	if out, err := post(verb.Drain); err != nil || out["by"] != "pooler" {
		t.Errorf("a proxy's drain: %v, %v", out, err)
	}
	for _, v := range []verb.Verb{verb.Resume, verb.PushBeats} {
		_, err := post(v)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeForbidden {
			t.Errorf("%s of a proxy: %v", v.Name, err)
		}
	}
}

// The second answer in a drain is part of the outage: it needs no new connection.
func TestKeptConnection(t *testing.T) {
	h := newHerd(t, herdName, "master")
	from := make(chan string, 2)
	a := h.host("master").serve(func(s *Server) {
		s.Handle(verb.Drain, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from <- r.RemoteAddr
			WriteJSON(w, struct{}{})
		}))
	})
	for _, keep := range []bool{false, true} {
		c := &Client{TLS: h.id("pooler", pki.KindProxy).TLSFor, DialTimeout: 5 * time.Second, Keep: keep}
		for range 2 {
			must(t, c.Call(t.Context(), a.addr, "master", verb.Drain, nil, nil))
		}
		if x, y := <-from, <-from; (x == y) != keep {
			t.Errorf("keep %v: calls came from %s and %s", keep, x, y)
		}
		c.Close()
	}
}
