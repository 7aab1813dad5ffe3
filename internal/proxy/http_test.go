package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"
)

func TestHTTP(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.Cluster, c.Node = "orders", "db1" })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	eventually(t, "running", func() bool { return f.Status().State == "running" })
	connect(t, superuser(f.Addr(session.ReadWrite).String()))
	eventually(t, "logged in", func() bool { s := f.Status(); return s.Ports["read_write"].Logins == 1 && s.Primary.Sessions == 1 })
	expect := func(state string, want map[string]int) {
		t.Helper()
		for path, code := range want {
			if got, body := get(path); got != code {
				t.Errorf("%s: GET %s = %d, want %d: %s", state, path, got, code, body)
			}
		}
	}
	expect("in order", map[string]int{"/health": 200, "/liveness": 200, "/readiness": 200, "/primary": 200, "/replica": 200, "/read-only": 200})
	_, body := get("/v1/status")
	var s proxy.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Schema != 1 || *s.Epoch != 7 || s.Primary.Name != "master" ||
		s.Primary.Sessions != 1 || s.Ports["read_write"].Logins != 1 || !s.Standbys[0].Usable {
		t.Errorf("%v %s", err, body)
	}
	f.top.Set(gap())
	expect("gap", map[string]int{"/health": 200, "/liveness": 200, "/readiness": 503, "/primary": 503, "/replica": 503, "/read-only": 503})
	if _, body := get("/v1/status"); !strings.Contains(body, "is not open yet") || !strings.Contains(body, `"primary":null`) {
		t.Errorf("status does not say why: %s", body)
	}
	eventually(t, "the session's end", func() bool { return f.Status().Ports["read_write"].Clients == 0 })
	v := f.view(8)
	v.Primary = route.Node{}
	f.top.Set(v)
	expect("standby only", map[string]int{"/readiness": 200, "/primary": 503, "/replica": 200, "/read-only": 200})
	_, metrics := get("/metrics")
	for _, want := range []string{
		`manada_proxy_logins_total{cluster="orders",node="db1",port="read_write"} 1`, `manada_proxy_deposed_sessions_total{cluster="orders",node="db1"} 1`,
		`manada_proxy_epoch{cluster="orders",node="db1"} 8`, `manada_proxy_has_primary{cluster="orders",node="db1"} 0`,
		`manada_proxy_standbys_usable{cluster="orders",node="db1"} 1`, `manada_proxy_connect_wait_seconds_count{cluster="orders",node="db1"} 0`, "go_goroutines",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	f.stop()
	expect("stopped", map[string]int{"/liveness": 200, "/readiness": 503})
}

func TestConfig(t *testing.T) {
	c := proxy.DefaultConfig()
	c.Topology = &route.Holder{}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*proxy.Config){
		"read_write_addr":  func(c *proxy.Config) { c.ReadWriteAddr = "5431" },
		"read_only_addr":   func(c *proxy.Config) { c.ReadOnlyAddr = "x" },
		"topology":         func(c *proxy.Config) { c.Topology = nil },
		"require_tls":      func(c *proxy.Config) { c.RequireTLS = true },
		"server_tls":       func(c *proxy.Config) { c.PlainLocal = false },
		"max_client_conn":  func(c *proxy.Config) { c.MaxClientConn = 0 },
		"connect_wait":     func(c *proxy.Config) { c.ConnectWait = -time.Second },
		"auth_cache_ttl":   func(c *proxy.Config) { c.AuthCacheTTL = time.Hour },
		"lookup_user":      func(c *proxy.Config) { c.LookupUser = "" },
		"max_read_lag_byt": func(c *proxy.Config) { c.MaxReadLagBytes = -1 },
	} {
		bad := c
		change(&bad)
		if _, err := proxy.New(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
