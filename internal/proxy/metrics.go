package proxy

import (
	"sync/atomic"
	"time"

	"manada/internal/proxy/session"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics is the proxy's own registry. The counters live in session.Stats and
// are read when somebody scrapes: counting costs those who serve clients one atomic addition.
type metrics struct {
	registry *prometheus.Registry
	own      prometheus.Registerer // into registry: what says whose it is
	wait     prometheus.Histogram
}

func (m *metrics) waited(d time.Duration) { m.wait.Observe(d.Seconds()) }

func newMetrics(p *Proxy) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.wait = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "manada_proxy_connect_wait_seconds",
		Help:    "How long new connections waited for a node that was not there at once.",
		Buckets: []float64{.05, .1, .25, .5, 1, 2, 3, 5, 10, 20, 30, 60},
	})
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.own = prometheus.WrapRegistererWith(prometheus.Labels{"cluster": p.cfg.Cluster, "node": p.cfg.Node}, m.registry)
	m.own.MustRegister(m.wait, &collector{p.sessions})
	st := &p.sessions.Stats
	for _, c := range []struct {
		name, help string
		v          *[2]atomic.Int64
		gauge      bool
	}{
		{"clients", "Clients connected, logged in or not yet.", &st.Clients, true},
		{"clients_waiting", "Clients waiting for a node to talk to.", &st.Waiting, true},
		{"connections_total", "Connections accepted.", &st.Connections, false},
		{"logins_total", "Clients logged in.", &st.Logins, false},
		{"login_failures_total", "Clients that got an error or left instead of logging in.", &st.Failures, false},
		{"client_bytes_total", "Bytes relayed from clients.", &st.FromClients, false},
		{"server_bytes_total", "Bytes relayed to clients.", &st.ToClients, false},
	} {
		for port := range c.v {
			m.register("manada_proxy_"+c.name, c.help, prometheus.Labels{"port": session.Port(port).String()}, c.gauge,
				func() float64 { return float64(c.v[port].Load()) })
		}
	}
	for _, c := range []struct {
		name, help string
		v          *atomic.Int64
	}{
		{"auth_failures_total", "Wrong passwords and unknown roles.", &st.AuthFailures},
		{"cancels_total", "Cancel requests forwarded.", &st.Cancels},
		{"read_only_fallbacks_total", "Read-only sessions sent to the primary.", &st.Fallbacks},
		{"connect_retries_total", "Attempts to reach a node that were repeated.", &st.Retries},
		{"deposed_sessions_total", "Sessions ended because the primary changed.", &st.Deposed},
		{"lost_backends_total", "Sessions whose node went away.", &st.Lost},
		{"unreplicated_commits_total", "Commits without a standby that were not passed on as success.", &st.Unreplicated},
		{"repeated_reads_total", "Reads that the primary answered because a standby could not.", &st.Repeated},
		{"unknown_results_total", "Sessions ended while an answer was owed.", &st.UnknownResult},
	} {
		m.register("manada_proxy_"+c.name, c.help, nil, false, func() float64 { return float64(c.v.Load()) })
	}
	top := p.cfg.Topology
	m.register("manada_proxy_epoch", "Epoch that is followed.", nil, true, func() float64 { return float64(top.Current().Epoch) })
	m.register("manada_proxy_has_primary", "1 when there is a primary to route to that lets writes through.", nil, true, func() float64 {
		if top.Current().Writable() {
			return 1
		}
		return 0
	})
	m.register("manada_proxy_standbys_usable", "Standbys that reads can be sent to.", nil, true, func() float64 {
		return float64(len(p.sessions.Reader.Usable(top.Current())))
	})
	return m
}

func (m *metrics) register(name, help string, l prometheus.Labels, gauge bool, f func() float64) {
	if gauge {
		m.own.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: l}, f))
		return
	}
	m.own.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: l}, f))
}
