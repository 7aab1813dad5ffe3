package proxy

import (
	"strconv"
	"time"
	"unicode/utf8"

	"manada/internal/proxy/loop"
	"manada/internal/proxy/session"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads at the moment of the scrape what has labels: databases, of which
// session.Server names a bounded number, nodes and reasons.
type collector struct{ sessions *session.Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("manada_proxy_"+name, help, labels, nil)
}

var (
	backendDesc = desc("backend_connections", "Connections to each node.", "backend")
	readsDesc   = desc("queries_total", "Queries (SELECT and the like) that each node was given by the read-write port.", "backend")
	pinsDesc    = desc("pins_total", "Clients that kept their connection between transactions, by what they had done.", "reason")
	pinnedDesc  = desc("pinned_clients", "Clients that keep their connection now.")

	clientsDesc = desc("database_clients", "Clients that are logged in; waiting are those without the server connection that they want.", "database", "state")
	serversDesc = desc("pool_servers", "Server connections: active, idle, login.", "database", "state")
	queueDesc   = desc("pool_max_wait_seconds", "How long the first in the queue for a server connection has waited.", "database")

	queryDesc = desc("query_seconds", "From what a server was given to the end of its answer.", "database")
	txDesc    = desc("transaction_seconds", "From the first statement of a transaction to its end.", "database")
	waitDesc  = desc("server_wait_seconds", "How long clients waited for a server connection, also those that had one at once.", "database")

	loginsDesc      = desc("database_logins_total", "Clients logged in.", "database")
	assignmentsDesc = desc("server_assignments_total", "Server connections given to clients.", "database")
	receivedDesc    = desc("database_client_bytes_total", "Bytes relayed from clients.", "database")
	sentDesc        = desc("database_server_bytes_total", "Bytes relayed to clients.", "database")
	parsesDesc      = desc("parses_total", "Prepared statements: made by clients, and given to servers.", "database", "side")
	bindsDesc       = desc("binds_total", "Executions of prepared statements.", "database")

	labelled = []*prometheus.Desc{backendDesc, readsDesc, pinsDesc, pinnedDesc, clientsDesc, serversDesc, queueDesc, queryDesc, txDesc, waitDesc,
		loginsDesc, assignmentsDesc, receivedDesc, sentDesc, parsesDesc, bindsDesc}
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range labelled {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, readable(labels)...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { put(d, prometheus.GaugeValue, v, labels...) }
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		put(d, prometheus.CounterValue, float64(v), labels...)
	}
	for node, n := range c.sessions.Backends() {
		gauge(backendDesc, float64(n), node)
	}
	for node, n := range c.sessions.Stats.ReadsByNode() {
		count(readsDesc, n, node)
	}
	for reason, n := range c.sessions.Stats.PinsByReason() {
		count(pinsDesc, n, reason)
	}
	gauge(pinnedDesc, float64(c.sessions.Pinned()))
	for _, d := range c.sessions.Queues() {
		gauge(clientsDesc, float64(d.Clients-d.Waiting), d.Database, "active")
		gauge(clientsDesc, float64(d.Waiting), d.Database, "waiting")
		gauge(serversDesc, float64(d.Active), d.Database, "active")
		gauge(serversDesc, float64(d.Idle), d.Database, "idle")
		gauge(serversDesc, float64(d.Login), d.Database, "login")
		gauge(queueDesc, d.MaxWait.Seconds(), d.Database)
	}
	for _, t := range c.sessions.Tallies() {
		count(loginsDesc, t.Logins, t.Database)
		count(assignmentsDesc, t.Assignments, t.Database)
		count(receivedDesc, t.Received, t.Database)
		count(sentDesc, t.Sent, t.Database)
		count(parsesDesc, t.ClientParses, t.Database, "client")
		count(parsesDesc, t.ServerParses, t.Database, "server")
		count(bindsDesc, t.Binds, t.Database)
		ch <- histogram(queryDesc, &t.Query, t.Database)
		ch <- histogram(txDesc, &t.Transaction, t.Database)
		ch <- histogram(waitDesc, &t.Wait, t.Database)
	}
}

func histogram(d *prometheus.Desc, h *loop.Histogram, labels ...string) prometheus.Metric {
	buckets, below, bound := map[float64]uint64{}, int64(0), loop.FirstBound
	for _, n := range h.Counts[:loop.Buckets-1] {
		below += n
		buckets[bound.Seconds()] = uint64(below)
		bound *= 2
	}
	return prometheus.MustNewConstHistogram(d, uint64(h.Total()), time.Duration(h.Sum).Seconds(), buckets, readable(labels)...)
}

// readable writes names that are no UTF-8 with escapes: Prometheus takes nothing else.
func readable(labels []string) []string {
	for i, l := range labels {
		if !utf8.ValidString(l) {
			labels[i] = strconv.QuoteToASCII(l)
		}
	}
	return labels
}
