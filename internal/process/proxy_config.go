package process

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/pki"
	"manada/internal/proxy"
	"manada/internal/proxy/console"
	"manada/internal/proxy/route"
	"manada/internal/supervisor"
)

// proxyHost is the proxy of this host and what it was configured with.
type proxyHost struct {
	cfg     *config.Config // with which it was started
	id      *pki.Identity
	version string
	boot    string // of the beats that this proxy hears
	log     *slog.Logger
	topo    *route.Holder
	others  func(context.Context) []string // the herd's other proxies
	proxy   *proxy.Proxy

	mu      sync.Mutex
	count   int           // of the reloads so far; guarded by mu, as are the others
	last    reloaded      // what came of the last
	another chan struct{} // closed at the next
}

// reloaded is what came of a reload.
type reloaded struct {
	restart []string
	err     error
}

// config is the proxy's for a host's configuration.
func (p *proxyHost) config(c *config.Config) (proxy.Config, error) {
	cfg := proxy.DefaultConfig()
	cfg.ReadWriteAddr, cfg.ReadOnlyAddr = c.ListenOn(c.Ports.SQL), c.ListenOn(c.Ports.ReadOnly)
	cfg.Cluster, cfg.Node, cfg.Topology, cfg.Log = c.Cluster, c.Node, p.topo, p.log
	cfg.ClientTLS, cfg.ServerTLS = p.id.PublicTLS(), p.id.ClientTLSAny()
	cfg.PlainLocal = false
	cfg.Split, cfg.HBA = c.Proxy.Split == "on", c.PostgreSQL.HBA
	cfg.Replication = c.PostgreSQL.Replication
	cfg.RequireTLS = !c.Loopback() && len(cfg.HBA) == 0 // else the lines say so, as for the nodes
	cfg.LookupPasswords = lookupPasswords(p.id, p.log)
	held, err := pki.ReadHeld(p.id.Dir())
	if err != nil {
		return cfg, err
	}
	cfg.MockSecret = cmp.Or(held.Mock, held.Passwords[cluster.RoleProxy])
	cfg.MaxClientConn = c.Proxy.MaxClients
	cfg.Version, cfg.Settings, cfg.ReadAgain = p.version, func() []console.Setting { return proxySettings(c) }, p.readAgain
	cfg.ConnectWait, cfg.ConnectTimeout = c.Proxy.WaitForPrimary, c.Proxy.ConnectTimeout
	cfg.NodeLimit = c.Proxy.Pool.NodeLimit
	cfg.LoginTimeout = c.Proxy.LoginTimeout
	cfg.QueryTimeout, cfg.TxTimeout = c.Proxy.QueryTimeout, c.Proxy.TransactionTimeout
	cfg.IdleTxTimeout, cfg.IdleTimeout = c.Proxy.IdleTransactionTimeout, c.Proxy.ClientIdleTimeout
	cfg.AnswerDrain, cfg.DrainGrace = drainAnswers(c.Node, p.boot, p.id), 5*c.Timing.SuspectAfter
	cfg.Others = p.others
	cfg.Pool, err = c.Rules()
	return cfg, err
}

// keepReloading takes configurations as they come.
func (p *proxyHost) keepReloading(ctx context.Context, changed <-chan *config.Config) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-changed:
			r := p.reload(c)
			if r.err != nil {
				p.log.Error("the changed configuration is not used", "error", r.err.Error())
			} else if len(r.restart) > 0 {
				p.log.Warn("restart the proxy for these keys to count", "keys", strings.Join(r.restart, ", "))
			}
			p.mu.Lock()
			p.count, p.last = p.count+1, r
			if p.another != nil {
				close(p.another)
				p.another = nil
			}
			p.mu.Unlock()
		}
	}
}

func (p *proxyHost) reload(c *config.Config) (r reloaded) {
	cfg, err := p.config(c)
	if err == nil {
		_, err = p.proxy.Reload(cfg)
	}
	if err != nil {
		return reloaded{err: err}
	}
	for _, key := range config.Changes(p.cfg, c) {
		if config.OnlyAtStart(config.ProxyRole, key) {
			r.restart = append(r.restart, key)
		}
	}
	return r
}

// readAgain has the supervisor judge this host's file, as a SIGHUP does, and waits for
// the proxy to have it.
func (p *proxyHost) readAgain(ctx context.Context) ([]string, error) {
	p.mu.Lock()
	before := p.count
	p.mu.Unlock()
	if _, err := supervisor.Ask(ctx, p.cfg.ControlSocket(), "reload"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		p.mu.Lock()
		if p.count != before {
			defer p.mu.Unlock()
			return p.last.restart, p.last.err
		}
		if p.another == nil {
			p.another = make(chan struct{})
		}
		another := p.another
		p.mu.Unlock()
		select {
		case <-another:
		case <-ctx.Done():
			return nil, fmt.Errorf("the configuration was accepted, and the proxy has not taken it yet: %w", ctx.Err())
		}
	}
}
