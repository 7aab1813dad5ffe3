package peer

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"manada/internal/cluster"
	"manada/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const herdName = "olivo"

// herd makes identities of one authority.
type herd struct {
	t    testing.TB
	dir  string
	name string
	ca   *pki.CA
	ids  map[string]*pki.Identity
}

func newHerd(t testing.TB, name, first string) *herd {
	t.Helper()
	h := &herd{t: t, dir: t.TempDir(), name: name, ids: map[string]*pki.Identity{}}
	dir := filepath.Join(h.dir, first)
	sealed, err := pki.Found(dir, name, first, pki.KindData, nil)
	must(t, err)
	id, err := pki.Load(dir)
	must(t, err)
	h.ids[first] = id
	h.ca, err = id.OpenCA(sealed)
	must(t, err)
	return h
}

func (h *herd) id(node, kind string) *pki.Identity {
	h.t.Helper()
	if id := h.ids[node]; id != nil {
		return id
	}
	var from *pki.Identity
	for _, id := range h.ids {
		if id.Name().Member() {
			from = id
		}
	}
	id, err := pki.Issue(from, h.ca, filepath.Join(h.dir, node), node, kind, nil)
	must(h.t, err)
	h.ids[node] = id
	return id
}

// host is a hub with its server, as an agent has them.
type host struct {
	*Hub
	t    testing.TB
	id   *pki.Identity
	addr string
	cfg  ServerConfig
	stop func()
}

func testConfig(id *pki.Identity) Config {
	return Config{
		Cluster: id.Cluster(), Node: id.Node(), Kind: id.Kind(), TLS: id.TLSFor,
		// The machine that tests run on may be busy.
		DialTimeout: 5 * time.Second,
	}
}

func (h *herd) host(node string) *host {
	h.t.Helper()
	id := h.id(node, pki.KindData)
	x := &host{t: h.t, id: id, Hub: NewHub(testConfig(id))}
	x.cfg = ServerConfig{Self: id.Name(), Hub: x.Hub, TLS: id.ServerTLSOptionalClient()}
	h.t.Cleanup(x.Hub.Close)
	return x
}

// serve opens the port, the same as before if there was one.
func (x *host) serve(mount ...func(*Server)) *host {
	x.t.Helper()
	addr := x.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var l net.Listener
	eventually(x.t, "listen on "+addr, func() bool {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	x.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := NewServer(x.cfg)
	for _, m := range mount {
		m(s)
	}
	go func() { done <- s.Serve(ctx, l) }()
	stopped := false
	x.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			x.t.Errorf("serve: %v", err)
		}
	}
	x.t.Cleanup(x.stop)
	return x
}

// beating publishes every few milliseconds until the test ends or the returned
// function is called.
func (x *host) beating(b cluster.Beat) (stop func()) {
	b.Addrs.Peer = x.addr
	return beatEvery(x.t, 5*time.Millisecond, func() { x.Publish(b) })
}

func beatEvery(t testing.TB, d time.Duration, f func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			f()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// get asks as a plain HTTP client.
func get(t testing.TB, c *tls.Config, method, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	must(t, err)
	return (&http.Transport{TLSClientConfig: c, DisableKeepAlives: true}).RoundTrip(req)
}
