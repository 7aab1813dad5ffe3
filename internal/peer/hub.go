package peer

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"time"

	"manada/internal/cluster"
)

// Config of a Hub, a Pusher or a Follower.
type Config struct {
	Cluster string
	Node    string // of this host; a Follower leaves it empty
	Kind    string // of this host, for its beats
	// Proxy is the random id of the process when it is a proxy, which whom it
	// listens to knows it by (Server.Proxies); else empty.
	Proxy string
	// ProxyAddr is where that proxy's host answers the verbs of a proxy.
	ProxyAddr string
	// ProxySQL and ProxyReadOnly are where applications reach that proxy.
	ProxySQL, ProxyReadOnly string
	// TLS gives the configuration for dialling a node (pki.Identity.ClientTLS).
	TLS func(node string) *tls.Config
	Log *slog.Logger
	// DialTimeout bounds connecting and the TLS handshake together. Default 500 ms.
	DialTimeout time.Duration
	// Silence is how long a stream may bring nothing before it counts as
	// broken. Default 2 s.
	Silence time.Duration
}

func (c *Config) defaults() {
	if c.DialTimeout <= 0 {
		c.DialTimeout = defaultDial
	}
	if c.Silence <= 0 {
		c.Silence = defaultSilence
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (c *Config) dialer() dialer {
	return dialer{tls: c.TLS, timeout: c.DialTimeout, silence: c.Silence, proxy: c.Proxy, asked: c.ProxyAddr, serves: [2]string{c.ProxySQL, c.ProxyReadOnly}}
}

// Hub is what one agent says and hears. Safe for concurrent use.
type Hub struct {
	cfg   Config
	out   *stamper
	in    *inbox
	links *links
}

// NewHub makes a hub that hears nobody yet. Close it.
func NewHub(cfg Config) *Hub {
	cfg.defaults()
	h := &Hub{cfg: cfg, in: newInbox(cfg.Cluster, cfg.Node)}
	h.out = newStamper(cfg, FromAgent)
	h.links = newLinks(cfg.Log, h.subscribe)
	return h
}

// Publish says a beat to everybody who listens, at once, and returns without
// waiting for any of them. Schema, Cluster, Node and Kind are filled in, From,
// Boot and Seq where they are empty. The beat must not be changed afterwards.
// Publish every 100 ms: listeners take silence for a sign.
func (h *Hub) Publish(b cluster.Beat) error { return h.out.publish(b) }

// SetPeers says whom to listen to: peer addresses ("host:port") by node. This
// host is left out if it is named. What was heard of nodes that are not named
// any more is forgotten.
func (h *Hub) SetPeers(peers map[string]string) {
	want := maps.Clone(peers)
	delete(want, h.cfg.Node)
	keep := map[string]bool{h.cfg.Node: true}
	for n := range want {
		keep[n] = true
	}
	h.links.set(want)
	h.in.keep(keep)
}

// Heard is the newest beat of each other node's agent.
func (h *Hub) Heard() map[string]Heard { return h.in.from(FromAgent) }

// HeardGuardian is the newest beat of each node's guardian, this host's among
// them if it beats to us.
func (h *Hub) HeardGuardian() map[string]Heard { return h.in.from(FromGuardian) }

// Changed has a value when something that matters changed in what was heard:
// PostgreSQL's state, the term's revision, a promise, a certificate, a
// suspicion, a broken or returned connection. It is not filled by every beat.
// There is one channel, for one reader.
func (h *Hub) Changed() <-chan struct{} { return h.in.changed }

// Stats counts what was heard and what was dropped.
func (h *Hub) Stats() Stats { return h.in.counters() }

// View is everything heard and this host's own last beat.
func (h *Hub) View() []Row {
	now := time.Now()
	rows := h.in.rows(now)
	if f := h.out.current(); f != nil {
		rows = append(rows, Row{Beat: f.beat, AgeMS: now.Sub(f.at).Milliseconds()})
	}
	sortRows(rows)
	return rows
}

// Close ends all connections that the hub opened and waits for them.
func (h *Hub) Close() { h.links.close() }

// subscribe is one attempt to hear a node; it says whether it heard anything.
func (h *Hub) subscribe(ctx context.Context, node, addr string) (heard bool, err error) {
	src := h.in.stream(node)
	defer src.close()
	err = h.cfg.dialer().listen(ctx, node, addr, func(line []byte) {
		if src.line(line) && !heard {
			heard = true
			h.cfg.Log.Info("peer heard", "peer", node, "addr", addr)
		}
	})
	return heard, err
}
