package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"
)

// Proxy is one proxy: New, then Listen (optional), then Run once.
type Proxy struct {
	cfg        Config
	sessions   *session.Server
	verifiers  *pool.Verifiers
	positions  *pool.Positions
	catalogs   *pool.Asker
	capacities capacities
	dialers    []*pool.Dialer
	metrics    *metrics
	started    time.Time

	mu        sync.Mutex
	listeners [2]net.Listener // by session.Port; guarded by mu

	running  atomic.Bool
	draining atomic.Bool
}

// Run runs a proxy until ctx is done, then drains it. It is New and Proxy.Run
// for callers that want no HTTP.
func Run(ctx context.Context, cfg Config) error {
	p, err := New(cfg)
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// New makes a proxy. Nothing runs and no port is open yet.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	dialer := &pool.Dialer{TLS: cfg.ServerTLS, PlainLocal: cfg.PlainLocal,
		ConnectTimeout: cfg.ConnectTimeout, LoginTimeout: cfg.ServerLoginTimeout, MaxLogins: cfg.MaxServerLogins}
	p := &Proxy{cfg: cfg, started: time.Now()}
	// The look-up has a dialer of its own, so as not to queue behind those who wait for it.
	lookup := &pool.Dialer{TLS: cfg.ServerTLS, PlainLocal: cfg.PlainLocal,
		ConnectTimeout: cfg.ConnectTimeout, LoginTimeout: cfg.ServerLoginTimeout}
	p.verifiers = &pool.Verifiers{Dialer: lookup, User: cfg.LookupUser, Passwords: cfg.LookupPasswords,
		Database: cfg.LookupDatabase, TTL: cfg.AuthCacheTTL, Timeout: cfg.ServerLoginTimeout}
	p.positions = &pool.Positions{Dialer: lookup, User: cfg.LookupUser, Passwords: cfg.LookupPasswords,
		Database: cfg.LookupDatabase, Timeout: min(cfg.ServerLoginTimeout, time.Second)}
	o, err := options(&cfg)
	if err != nil {
		return nil, err
	}
	p.dialers = []*pool.Dialer{dialer, lookup}
	p.sessions = &session.Server{
		Options:   o,
		Topology:  cfg.Topology,
		Reader:    &route.Reader{Limits: route.Limits{LagBytes: cfg.MaxReadLagBytes, Lag: cfg.MaxReadLag}},
		Dialer:    dialer,
		Verifiers: p.verifiers,
		Positions: p.positions,
		Others:    cfg.Others,
		Log:       cfg.Log,
	}
	p.verifiers.Host = p.sessions.Host
	p.askers(lookup)
	p.metrics = newMetrics(p)
	p.sessions.Stats.Waited = p.metrics.waited
	return p, nil
}

// askers are for what the pools ask on the proxy's own account: each is used by one
// at a time.
func (p *Proxy) askers(d *pool.Dialer) {
	one := func() *pool.Asker {
		return &pool.Asker{Dialer: d, User: p.cfg.LookupUser, Passwords: p.cfg.LookupPasswords, Timeout: 10 * time.Second}
	}
	p.catalogs, p.capacities.one = one(), one
	p.sessions.Ask = func(ctx context.Context, database, sql string, params []string, n int, row func([]string) error) error {
		v := p.cfg.Topology.Current()
		at := v.Primary
		switch {
		case v.HasPrimary():
		case len(v.Standbys) > 0: // while nobody changes anything
			at = v.Standbys[0].Node
		default:
			return errors.New("there is no primary to ask")
		}
		return p.catalogs.Ask(ctx, at.Nearest(), database, sql, params, n, row)
	}
	p.sessions.Forsake = p.catalogs.Leave
	p.sessions.Capacity = func(ctx context.Context, addr string) (pool.Capacity, error) {
		return p.capacities.of(addr).Capacity(ctx, addr)
	}
}

// capacities are what nodes are asked with for what they allow: one for each, so that a
// node that does not answer delays nobody else's answer.
type capacities struct {
	one func() *pool.Asker

	mu     sync.Mutex
	askers map[string]*pool.Asker // by address
}

func (c *capacities) of(addr string) *pool.Asker {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.askers == nil {
		c.askers = map[string]*pool.Asker{}
	}
	if c.askers[addr] == nil {
		c.askers[addr] = c.one()
	}
	return c.askers[addr]
}

// leave closes all connections. Nobody asks any more.
func (c *capacities) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.askers {
		a.Leave("")
	}
}

// Listen opens the ports, so that Addr is known before Run.
func (p *Proxy) Listen(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for port, addr := range [2]string{p.cfg.ReadWriteAddr, p.cfg.ReadOnlyAddr} {
		if addr == "" || p.listeners[port] != nil {
			continue
		}
		l, err := (&net.ListenConfig{KeepAlive: 30 * time.Second}).Listen(ctx, "tcp", addr)
		if err != nil {
			closeAll(p.listeners)
			return fmt.Errorf("open %s port: %w", session.Port(port), err)
		}
		p.listeners[port] = l
	}
	return nil
}

// Addr is where a port listens, nil when it does not.
func (p *Proxy) Addr(port session.Port) net.Addr {
	if l := p.ports()[port]; l != nil {
		return l.Addr()
	}
	return nil
}

func (p *Proxy) ports() [2]net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listeners
}

// Run serves until ctx is done, then stops accepting, lets transactions finish
// for DrainTimeout, ends what is left and returns nil. Sessions that are idle
// end at once.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.Listen(ctx); err != nil {
		return err
	}
	if err := p.sessions.Start(); err != nil {
		closeAll(p.ports())
		return err
	}
	p.warnFiles()
	// Clients outlive ctx by DrainTimeout; accepting and waiting for nodes do not.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ports := p.ports()
	failed := make(chan error, len(ports))
	var doors, own sync.WaitGroup
	for port, l := range ports {
		if l != nil {
			doors.Go(func() { failed <- p.sessions.Listen(ctx, l.(*net.TCPListener), session.Port(port)) })
		}
	}
	own.Go(func() { p.follow(ctx) })
	own.Go(func() { p.watch(ctx) })
	own.Go(func() { p.answer(ctx) })
	p.running.Store(true)
	p.cfg.Log.Info("proxy listens", "read_write", p.cfg.ReadWriteAddr, "read_only", p.cfg.ReadOnlyAddr)

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	p.draining.Store(true)
	stop()
	doors.Wait()
	closeAll(ports)
	p.drain()
	own.Wait()
	p.verifiers.Close()
	p.sessions.Close()
	p.positions.Close()
	p.catalogs.Leave("")
	p.capacities.leave()
	p.cfg.Log.Info("proxy stopped")
	return err
}

func closeAll(listeners [2]net.Listener) {
	for _, l := range listeners {
		if l != nil {
			l.Close()
		}
	}
}

// follow ends the sessions of deposed primaries when the topology changes, and obeys
// the drains that it announces.
func (p *Proxy) follow(ctx context.Context) {
	var last route.View
	var drain obeyed
	said := conv.NoDrain
	for {
		changed := p.cfg.Topology.Changed()
		v := p.cfg.Topology.Current()
		if v.Epoch != last.Epoch || v.Open != last.Open || !v.Primary.Is(last.Primary) {
			p.cfg.Log.Info("topology changed", "epoch", v.Epoch, "open", v.Open, "primary", v.Primary.Name, "why", v.Why)
		}
		last = v
		p.sessions.Statuses.Note(v.Members)
		p.sessions.Sweep(v)
		phase, wait := drain.phase(v.Drain, time.Now(), p.cfg.DrainGrace)
		if phase != said {
			p.switchover(v, phase)
			said = phase
		}
		if !await(ctx, wait, changed, nil) {
			return
		}
	}
}

// switchover tells the sessions the phase of a drain; d is nil when it is over.
func (p *Proxy) switchover(v route.View, phase conv.Phase) {
	node, to := "", ""
	if d := v.Drain; d != nil {
		node, to = d.Leader, d.To
	}
	p.cfg.Log.Info("switchover", "phase", phase.String(), "from", node, "to", to)
	p.sessions.Switchover(node, phase)
	for _, m := range v.Members {
		if m.Name == to && m.Up && (phase == conv.Soft || phase == conv.Hold) {
			p.sessions.Ahead(m.Node, node)
		}
	}
}

// await waits for one of two things, for at most d unless that is 0. It returns false
// when ctx is done.
func await(ctx context.Context, d time.Duration, one, other <-chan struct{}) bool {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-one:
	case <-other:
	case <-due:
	case <-ctx.Done():
		return false
	}
	return true
}

// watch ends the sessions of hosts that have silently disappeared, and the reads at
// standbys that have fallen behind.
func (p *Proxy) watch(ctx context.Context) {
	for pause(ctx, p.cfg.DeadAfter/5) {
		if n := p.sessions.EndLost(p.cfg.DeadAfter); n > 0 {
			p.cfg.Log.Warn("gave up connections to a host that does not answer", "connections", n)
		}
		p.sessions.Sweep(p.cfg.Topology.Current())
	}
}

// drain waits for the clients.
func (p *Proxy) drain() {
	p.sessions.Drain()
	done := make(chan struct{})
	go func() {
		p.sessions.Wait()
		close(done)
	}()
	t := time.NewTimer(p.cfg.DrainTimeout)
	defer t.Stop()
	select {
	case <-done:
		return
	case <-t.C:
	}
	p.sessions.EndAll()
	<-done // bounded: log-ins by their interruption, sessions by the time for last words
}

func pause(ctx context.Context, d time.Duration) bool { return await(ctx, d, nil, nil) }
