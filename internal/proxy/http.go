package proxy

import (
	"cmp"
	"encoding/json"
	"net/http"
	"time"

	"manada/internal/proxy/console"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves health checks, status and metrics (port 8010; the caller
// listens). It may be used before, while and after Run.
//
//	/liveness    200 while the process answers
//	/health      200 while the proxy runs
//	/readiness   200 while it accepts clients and has a node for them
//	/primary     200 while there is a primary to route to that lets writes through
//	/replica     200 while there is a standby to read from
//	/read-only   200 while there is either
//	/v1/status   Status as JSON
//	/metrics     Prometheus
func (p *Proxy) Handler() http.Handler {
	mux := http.NewServeMux()
	check := func(path string, ok func(s Status) bool) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			s := p.Status()
			code := http.StatusServiceUnavailable
			if ok(s) {
				code = http.StatusOK
			}
			reply(w, code, s)
		})
	}
	usable := func(s Status) bool { return s.usable > 0 }
	primary := func(s Status) bool { return s.writable }
	check("/liveness", func(Status) bool { return true })
	check("/health", func(s Status) bool { return s.State != "stopped" })
	check("/readiness", func(s Status) bool { return s.State == "running" && (primary(s) || usable(s)) })
	check("/primary", primary)
	check("/replica", usable)
	check("/read-only", func(s Status) bool { return primary(s) || usable(s) })
	check("/v1/status", func(Status) bool { return true })
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

// Console serves the console's tables and orders to programs, see console.Handler.
// Whoever can reach it may give every order.
func (p *Proxy) Console() http.Handler {
	h := console.Handler(p.sessions.Console)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.running.Load() {
			reply(w, http.StatusServiceUnavailable, map[string]string{"error": "the proxy is not running yet", "code": "57P03"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Status is what GET /v1/status answers.
type Status struct {
	Schema    int              `json:"schema"` // 1
	State     string           `json:"state"`  // stopped, running, draining
	Epoch     *uint64          `json:"epoch"`
	Open      bool             `json:"open"`
	Primary   *NodeStatus      `json:"primary"`
	Why       string           `json:"why,omitempty"` // there is no primary, or it lets no write through
	Standbys  []NodeStatus     `json:"standbys"`
	Ports     map[string]Ports `json:"ports"`
	MaxClient int              `json:"max_client_conn"`
	UptimeMS  int64            `json:"uptime_ms"`

	usable   int
	writable bool
}

// NodeStatus is a node as the proxy sees it.
type NodeStatus struct {
	Name     string `json:"name"`
	Addr     string `json:"addr"`
	Sessions int    `json:"sessions"`
	LagBytes *int64 `json:"lag_bytes,omitempty"`
	LagMS    *int64 `json:"lag_ms,omitempty"`
	Usable   bool   `json:"usable"` // sessions are sent to it
}

// Ports counts the clients of a port.
type Ports struct {
	Addr     string `json:"addr"`
	Clients  int64  `json:"clients"`
	Waiting  int64  `json:"waiting"`
	Logins   int64  `json:"logins"`
	Failures int64  `json:"failures"`
}

// Status describes the proxy now.
func (p *Proxy) Status() Status {
	v := p.cfg.Topology.Current()
	s := Status{Schema: 1, State: "stopped", Open: v.Open, Why: v.Why, Standbys: []NodeStatus{},
		Ports: map[string]Ports{}, MaxClient: p.sessions.Current().MaxClients, UptimeMS: time.Since(p.started).Milliseconds()}
	switch {
	case p.draining.Load():
		s.State = "draining"
	case p.running.Load():
		s.State = "running"
	}
	if v.Known {
		s.Epoch = &v.Epoch
	}
	s.writable = v.Writable()
	if v.HasPrimary() && !s.writable {
		s.Why = cmp.Or(v.Doubt, "nothing was heard of the herd for a moment")
	}
	count := p.sessions.Backends()
	if v.HasPrimary() {
		s.Primary = &NodeStatus{Name: v.Primary.Name, Addr: v.Primary.Addr, Sessions: count[v.Primary.Name], Usable: true}
	}
	for _, one := range v.Standbys {
		n := p.standbyStatus(one)
		n.Sessions = count[one.Name]
		if n.Usable {
			s.usable++
		}
		s.Standbys = append(s.Standbys, n)
	}
	for port, l := range p.ports() {
		if l != nil {
			st, i := &p.sessions.Stats, session.Port(port)
			s.Ports[i.String()] = Ports{Addr: l.Addr().String(), Clients: st.Clients[i].Load(), Waiting: st.Waiting[i].Load(),
				Logins: st.Logins[i].Load(), Failures: st.Failures[i].Load()}
		}
	}
	return s
}

func (p *Proxy) standbyStatus(s route.Standby) NodeStatus {
	n := NodeStatus{Name: s.Name, Addr: s.Addr, Usable: p.sessions.Reader.Limits.Usable(s)}
	if s.LagBytes >= 0 {
		n.LagBytes = &s.LagBytes
	}
	if s.LagMS >= 0 {
		n.LagMS = &s.LagMS
	}
	return n
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) // an error means that the asker is gone
}
