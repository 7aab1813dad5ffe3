package process

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/proxy"
	"manada/internal/proxy/console"
	"manada/internal/proxy/route"
	"manada/internal/verb"
)

// Proxy runs this host's proxy until ctx ends, then drains it. It follows the
// record by what the agents say and needs no access to the store. changed brings the
// configurations that were accepted meanwhile.
func Proxy(ctx context.Context, c *config.Config, version string, log *slog.Logger, changed <-chan *config.Config) error {
	id, f, err := loadHost(c)
	if err != nil {
		return err
	}
	// Also those of the configuration: when this proxy joined, the herd may have
	// been one host, and that one may be gone before it has told of the others.
	seeds := slices.Compact(slices.Sorted(slices.Values(append(slices.Collect(maps.Values(f.Peers)), c.Join.Addresses...))))
	if c.HasAgent() {
		seeds = append([]string{c.Addresses().Peer}, seeds...)
	}
	boot, asked := rand.Text(), "" // by which agents know this process, and where it is asked
	if c.AnswersPeers() {
		asked = c.Addresses().Peer
	}
	follow := peer.Follow(peer.Config{Cluster: c.Cluster, TLS: id.TLSFor, Log: log, Proxy: boot, ProxyAddr: asked,
		ProxySQL: c.AdvertiseOn(c.Ports.SQL), ProxyReadOnly: c.AdvertiseOn(c.Ports.ReadOnly)}, seeds)
	defer follow.Close()

	topo := &route.Holder{}
	p := &proxyHost{cfg: c, id: id, version: version, boot: boot, log: log, topo: topo, others: otherProxies(c.AdvertiseOn(c.Ports.SQL), follow.Heard, askProxies(id))}
	cfg, err := p.config(c)
	if err != nil {
		return err
	}
	if p.proxy, err = proxy.New(cfg); err != nil {
		return err
	}
	addr := c.ListenOn(c.Ports.ProxyHTTP)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", addr, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	own, err := ownSocketOf(c)
	if err != nil {
		return err
	}
	g.Go(func() error { keepTopology(ctx, follow, topo, id, own, c.Timing.SuspectAfter); return nil })
	g.Go(func() error { keepProxyFacts(ctx, c, follow, f); return nil })
	g.Go(func() error { keepProxyCertificate(ctx, c, id, log); return nil })
	g.Go(func() error { keepProxyRegistry(ctx, c, id); return nil })
	g.Go(func() error { keepProxySecrets(ctx, c, id, log); return nil })
	g.Go(func() error { p.keepReloading(ctx, changed); return nil })
	g.Go(func() error { return p.serveOrders(ctx) })
	g.Go(func() error { p.servePeers(ctx); return nil })
	g.Go(func() error { return p.proxy.Run(ctx) })
	g.Go(func() error { return serveHTTP(ctx, c, id, l, p.proxy.Handler(), log) })
	g.Go(func() error { proxy.KeepHeadroom(ctx); return nil })
	return g.Wait()
}

// proxySettings are the keys that are the proxy's, as its console shows them.
func proxySettings(c *config.Config) (out []console.Setting) {
	for _, s := range c.Settings() {
		if strings.HasPrefix(s.Key, "proxy.") || slices.Contains([]string{"cluster", "node", "listen", "ports.sql", "ports.read_only", "ports.proxy_http", "postgresql.hba"}, s.Key) {
			out = append(out, console.Setting{Key: s.Key, Value: s.Value, Default: config.Default(s.Key), AtStart: config.OnlyAtStart(config.ProxyRole, s.Key)})
		}
	}
	return out
}

// otherProxies asks the agents that are heard, until one answers, for the proxies that
// listen to it, and leaves out the one at own.
func otherProxies(own string, heard func() map[string]peer.Heard, ask func(ctx context.Context, node, addr string) ([]peer.ListeningProxy, error)) func(context.Context) []string {
	return func(ctx context.Context) (addrs []string) {
		for node, h := range heard() {
			if h.Broken || h.Beat.Addrs.Peer == "" {
				continue
			}
			within, cancel := context.WithTimeout(ctx, time.Second)
			all, err := ask(within, node, h.Beat.Addrs.Peer)
			cancel()
			if err != nil {
				continue
			}
			for _, one := range all {
				if one.SQL != "" && one.SQL != own {
					addrs = append(addrs, one.SQL)
				}
			}
			return addrs
		}
		return nil
	}
}

// askProxies asks an agent for the proxies that listen to it.
func askProxies(id *pki.Identity) func(ctx context.Context, node, addr string) ([]peer.ListeningProxy, error) {
	client := &peer.Client{TLS: id.TLSFor}
	return func(ctx context.Context, node, addr string) (all []peer.ListeningProxy, err error) {
		err = client.Call(ctx, addr, node, verb.Proxies, nil, &all)
		return all, err
	}
}

// drainAnswers tells the agent of a drain's leader how far this proxy is.
func drainAnswers(node, boot string, id *pki.Identity) func(context.Context, *route.Drain, cluster.DrainAnswer) error {
	client := &peer.Client{TLS: id.TLSFor, Keep: true} // the second answer is part of the outage
	return func(ctx context.Context, d *route.Drain, a cluster.DrainAnswer) error {
		a.Proxy, a.Boot = node, boot
		return client.Call(ctx, d.Agent, d.Leader, verb.Drain, a, nil)
	}
}

// keepTopology derives where sessions go from the newest beats.
func keepTopology(ctx context.Context, f *peer.Follower, topo *route.Holder, id *pki.Identity, own ownSocket, fresh time.Duration) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		now := time.Now()
		var beats []route.Heard
		heard := f.Heard()
		for _, n := range slices.Sorted(maps.Keys(heard)) {
			beats = append(beats, route.Heard{Beat: heard[n].Beat, Age: now.Sub(heard[n].At), Silent: now.Sub(heard[n].Direct)})
		}
		v := route.FromBeats(beats, max(fresh, time.Second))
		v.SetSocket(own.node, own.path(heard[own.node].Beat))
		v.At, v.Proxies = now, route.Proxies(beats, registeredProxies(id))
		topo.Set(v)
		select {
		case <-ctx.Done():
			return
		case <-f.Changed():
		case <-tick.C:
		}
	}
}

// registeredProxies are the hosts that have nothing but a proxy.
func registeredProxies(id *pki.Identity) (nodes []string) {
	for _, c := range id.Registry().List().Good {
		if c.Kind == pki.KindProxy {
			nodes = append(nodes, c.Node)
		}
	}
	return nodes
}

// keepProxyCertificate renews the certificate of a host that has no agent.
func keepProxyCertificate(ctx context.Context, c *config.Config, id *pki.Identity, log *slog.Logger) {
	if c.HasAgent() {
		return // this host's agent does
	}
	keepRenewing(ctx, id, log, func(ctx context.Context) error {
		f, err := ReadFacts(c)
		if err != nil {
			return err
		}
		_, err = renewThrough(ctx, id, f.Peers, time.Now())
		return err
	})
}

// keepProxyFacts remembers the agents' addresses over restarts.
func keepProxyFacts(ctx context.Context, c *config.Config, follow *peer.Follower, f Facts) {
	if c.HasAgent() {
		return // this host's agent does
	}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := f
		now.Peers = maps.Clone(f.Peers)
		for n, h := range follow.Heard() {
			if h.Beat.Addrs.Peer != "" {
				now.Peers[n] = h.Beat.Addrs.Peer
			}
		}
		if !same(now, f) && WriteFacts(c, now) == nil {
			f = now
		}
	}
}
