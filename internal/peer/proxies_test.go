package peer

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
)

// A host knows the proxies that listen to it, as long as they do, and takes one
// POST from a host that has nothing but a proxy.
func TestProxiesThatListen(t *testing.T) {
	h := newHerd(t, herdName, "master")
	var srv *Server
	a := h.host("master").serve(func(s *Server) {
		srv = s
		s.Handle("POST "+DrainPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who, _ := CallerOf(r.Context())
			WriteJSON(w, map[string]string{"by": who.Node})
		}))
		s.Handle("POST "+DrainPath+"/now", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { t.Error("reached") }))
	})
	a.beating(cluster.Beat{})

	pooler := h.id("pooler", pki.KindProxy)
	cfg := testConfig(pooler)
	cfg.Proxy = "b1"
	f := Follow(cfg, []string{a.addr})
	other := Follow(testConfig(h.id("slave", pki.KindData)), []string{a.addr}) // a command, or a proxy of a release before
	defer other.Close()
	eventually(t, "the other listens", func() bool { return len(other.Heard()) == 1 })
	eventually(t, "the proxy listens, and is known", func() bool {
		return len(srv.Proxies()) == 1 && srv.Proxies()["b1"] == "pooler"
	})
	f.Close()
	eventually(t, "it has left", func() bool { return len(srv.Proxies()) == 0 })

	post := func(path string) (out map[string]string, err error) {
		err = (&Client{TLS: pooler.TLSFor, DialTimeout: 5 * time.Second}).Call(t.Context(), a.addr, "master", "POST", path, nil, &out)
		return out, err
	}
	if out, err := post(DrainPath); err != nil || out["by"] != "pooler" {
		t.Errorf("POST %s of a proxy: %v, %v", DrainPath, out, err)
	}
	for _, path := range []string{DrainPath + "/now", DrainPath + "/", "/v1/beats"} {
		_, err := post(path)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeForbidden {
			t.Errorf("POST %s of a proxy: %v", path, err)
		}
	}
}

// The second answer in a drain is part of the outage: it needs no new connection.
func TestKeptConnection(t *testing.T) {
	h := newHerd(t, herdName, "master")
	from := make(chan string, 2)
	a := h.host("master").serve(func(s *Server) {
		s.Handle("POST "+DrainPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from <- r.RemoteAddr
			WriteJSON(w, struct{}{})
		}))
	})
	for _, keep := range []bool{false, true} {
		c := &Client{TLS: h.id("pooler", pki.KindProxy).TLSFor, DialTimeout: 5 * time.Second, Keep: keep}
		for range 2 {
			must(t, c.Call(t.Context(), a.addr, "master", "POST", DrainPath, nil, nil))
		}
		if x, y := <-from, <-from; (x == y) != keep {
			t.Errorf("keep %v: calls came from %s and %s", keep, x, y)
		}
		c.Close()
	}
}
