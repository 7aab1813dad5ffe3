package session

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/proxy/catalog"
	"manada/internal/proxy/conv"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/desk"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
	"manada/internal/proxy/scram"
	"manada/internal/proxy/wire"
)

// pools are the server connections that clients share. It
// carries out what the desk decides: desk.Connections and loop.Keeper.
type pools struct {
	*Server
	desk  *desk.Desk
	names *catalog.Keeper

	mu       sync.Mutex
	leader   route.Node
	epoch    uint64
	limits   map[string]int // by address, as far as they are known
	asking   map[string]bool
	welcomes map[welcomeKey]*welcomes
	flights  map[welcomeKey]*flight
	standbys map[string]*rules.Node
	plans    map[string]*conv.Plans // by database

	likes sync.Mutex          // not mu: the desk hands out servers while that is held
	alike map[alikeKey]string // of the accounts' sessions on the primary, see pool.Backend.Alike
}

// firstLimit is a node's until it has said how many connections it allows, and herdNeeds
// is how many of these the herd's own roles are left.
const (
	firstLimit = 10
	herdNeeds  = 20
)

// catalogPatience is how long a log-in waits for the names of a database that nobody
// has used before.
const catalogPatience = 3 * time.Second

func newPools(s *Server) *pools {
	p := &pools{Server: s, limits: map[string]int{}, asking: map[string]bool{}, welcomes: map[welcomeKey]*welcomes{}, flights: map[welcomeKey]*flight{}, alike: map[alikeKey]string{}, plans: map[string]*conv.Plans{}}
	p.desk = desk.New(s.options().Pool, s.Options.Loops, p)
	if s.Ask != nil {
		p.names = &catalog.Keeper{Ask: s.Ask, Left: s.Forsake, Every: time.Second, Log: s.Log}
		s.work.Go(func() { p.names.Run(s.life) })
	}
	return p
}

// server is one of the pools' connections.
type pooledServer struct {
	backend
	rules *rules.Server
	alike string // see pool.Backend.Alike
}

// account is how an account logs in.
type account struct {
	keys  scram.Keys
	muted bool
}

// Open implements desk.Connections.
func (p *pools) Open(ctx context.Context, s *rules.Server, how desk.How) (any, *wire.Error) {
	a, node := s.Pool.Account, s.Pool.Node
	who, at, epoch := how.Account.(account), how.Node.(place), how.Epoch
	params := []wire.Param{{Name: "user", Value: a.User}, {Name: "database", Value: a.Database.Name}}
	if who.muted { // the role's own default would hide warnings from us
		params = append(params, wire.Param{Name: "client_min_messages", Value: "warning"})
	}
	if at.standby {
		epoch = 0 // see conv.Link
		params = append(params, readsOnly)
		within, cancel := context.WithTimeout(ctx, openTimeout) // a read waits for it
		defer cancel()
		ctx = within
	}
	b, err := p.Dialer.Open(ctx, p.wayAs(at.node, a.User), pool.Login{Params: params, Keys: &who.keys})
	if err != nil && at.standby {
		return nil, p.unreachable(node.Name, err)
	}
	if err != nil {
		return nil, openError(err)
	}
	alike, refused := p.checked(ctx, b, a, at.standby)
	if refused != nil {
		b.Conn.Close()
		return nil, refused
	}
	socket, err := loop.Take(b.Conn, b.Rest)
	if err != nil {
		return nil, wire.Fatal("08006", err.Error(), "")
	}
	p.nodes.add(node.Name, 1)
	link := conv.NewLink(node.Name, epoch, b.Settings, b.Status)
	link.PID = b.PID
	return &loop.Server{Socket: socket, Link: link, Keeper: p,
		Backend: &pooledServer{backend{node.Name, b.Addr, epoch, b.PID, b.Key, nil}, s, alike}}, nil
}

// openError puts into words of PostgreSQL why a connection could not be opened.
func openError(err error) *wire.Error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e
	}
	if errors.Is(err, scram.ErrStale) {
		return wire.Fatal("28P01", "password authentication failed", "The password was changed: connect again with the new one.")
	}
	return wire.Fatal("08006", "the proxy cannot log in to PostgreSQL: "+err.Error(), "See the proxy's log, and: manada status")
}

// Park implements desk.Connections.
func (p *pools) Park(s *rules.Server, at int) { p.loops.Park(s.Data.(*loop.Server), at) }

// Close implements desk.Connections.
func (p *pools) Close(s *rules.Server) { s.Data.(*loop.Server).End() }

// Gave implements loop.Keeper.
func (p *pools) Gave(s *loop.Server) { p.desk.Gave(s.Backend.(*pooledServer).rules, true) }

// Closed implements loop.Keeper.
func (p *pools) Closed(s *loop.Server) {
	one := s.Backend.(*pooledServer)
	p.nodes.add(one.node, -1)
	p.desk.Closed(one.rules)
}

// follow takes a changed topology.
func (p *pools) follow(v route.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !v.HasPrimary() {
		if p.leader.Name != "" {
			p.leader = route.Node{}
		}
		p.desk.Lead(nil, v.Why)
		return
	}
	p.leader, p.epoch = v.Primary, v.Epoch
	p.askAhead(v)
	p.readers(v)
	p.desk.Lead(p.desk.Node(v.Primary.Name, place{node: v.Primary}, p.limit(v, v.Primary), v.Epoch), "")
}

// limit is how many connections may be held to a node. p.mu is held.
func (p *pools) limit(v route.View, n route.Node) int {
	if limit := p.options().NodeLimit; limit > 0 {
		return limit
	}
	p.ask(v, n)
	return cmp.Or(p.limits[n.Addr], firstLimit)
}

// most is how many connections may be held to the primary: the size of a pool that was
// given none. While there is none it is what a node gets that has not said yet.
func (p *pools) most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return cmp.Or(p.options().NodeLimit, p.limits[p.leader.Addr], firstLimit)
}

// askAhead asks every node that may become the primary: its pools are not to begin with
// firstLimit right after a switchover, when everybody comes. p.mu is held.
func (p *pools) askAhead(v route.View) {
	if p.options().NodeLimit > 0 {
		return
	}
	for _, m := range v.Members {
		if m.Up {
			p.ask(v, m.Node)
		}
	}
}

// ask finds out what a node allows, now and then. One of an address is asked at a time.
// p.mu is held.
func (p *pools) ask(v route.View, n route.Node) {
	addr := n.Addr
	if p.asking[addr] || p.Server.Capacity == nil {
		return
	}
	p.asking[addr] = true
	p.work.Go(func() {
		c, err := p.Server.Capacity(p.life, n.Nearest())
		wait := 10 * time.Second
		if err != nil {
			wait = time.Second
		}
		p.mu.Lock()
		if err == nil {
			p.limits[addr] = rules.NodeLimit(c.Max, c.Reserved, herdNeeds, v.Proxies)
		}
		leader, limit, epoch := p.leader, p.limits[addr], p.epoch
		p.mu.Unlock()
		if leader.Addr == addr && limit > 0 { // a standby's counts when it is followed again
			p.desk.Node(leader.Name, place{node: leader}, limit, epoch)
		}
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.life.Done():
		}
		p.mu.Lock()
		delete(p.asking, addr)
		p.mu.Unlock()
	})
}

// pooled says whether a client is to share connections, and with what settings of its
// own.
func (c *client) pooled() (settings []wire.Param, mode rules.Mode, ok bool) {
	if c.pools == nil || c.startup.Walsender() {
		return nil, 0, false
	}
	mode = c.options().Pool.For(c.startup.Database(), c.user).Mode
	settings, ok = wire.Settings(wire.ForServer(c.startup.Params))
	if c.port == ReadOnly {
		return append(settings, readsOnly), mode, ok
	}
	return settings, mode, ok && (mode != rules.Session || !c.Options.Split)
}

// readsOnly is a setting of all sessions of the read-only port, wherever they land, so
// that falling back to the primary does not make writes possible by accident.
var readsOnly = wire.Param{Name: "default_transaction_read_only", Value: "on"}

// logInPooled takes a client to a session without a server of its own.
func (c *client) logInPooled(ctx context.Context, settings []wire.Param, mode rules.Mode, keys scram.Keys, final []byte) (*session, error) {
	if err := c.mayRead(); err != nil {
		return nil, err
	}
	a, refused := c.pools.desk.Attach(c.startup.Database(), c.user, c.secret.Rights, account{keys, c.secret.Muted})
	if refused != nil {
		return nil, refused
	}
	s := newSession(c, &pool.Backend{}, destination{})
	s.shared = &shared{account: a}
	if c.port == ReadOnly {
		s.seat = &seat{}
	}
	s.shared.claims[conv.Main].Data, s.shared.claims[conv.Reader].Data = &taker{s, conv.Main}, &taker{s, conv.Reader}
	s.conf.Mode, s.conf.Shared, s.conf.Temporary = conv.Mode(mode), true, c.secret.Temporary
	if mode == rules.Auto && c.pools.names != nil {
		s.conf.Dangerous, s.shared.named = c.pools.names.Use(a.Database.Name), true
		if !c.pools.names.Known(a.Database.Name) { // until it is, every name counts as dangerous
			c.guest.Beside(func() {
				known, cancel := context.WithTimeout(ctx, catalogPatience)
				defer cancel()
				c.pools.names.Await(known, a.Database.Name)
			})
		}
	}
	s.main.pid = randomPID()
	if s.conf.Plans = c.pools.plansOf(a.Database.Name); s.conf.Mode != conv.Session { // there it is told another one
		s.conf.PID = s.main.pid
	}
	c.registry.add(s, c.version)
	err := c.welcomePooled(ctx, s, settings, keys, final)
	if err != nil {
		c.registry.remove(s)
		s.unshare()
		return nil, err
	}
	return s, nil
}

// welcomePooled tells a client that it is logged in. In mode session it is told so, and
// what its process id is, when it has its server.
func (c *client) welcomePooled(ctx context.Context, s *session, settings []wire.Param, keys scram.Keys, final []byte) error {
	if err := c.awaitPrimary(ctx); err != nil {
		return err
	}
	if s.conf.Mode == conv.Session {
		version := c.version
		s.conf.Startup = conv.NewStartup(settings)
		s.conf.Welcome = func(l *conv.Link) []byte {
			s.registry.rename(s, l.PID, version)
			return s.greeting(final, appendSettings(nil, l.Reported()), 'I')
		}
		return c.conn.SetDeadline(time.Time{})
	}
	w, err := c.welcomeOf(ctx, settings, keys)
	if err != nil {
		return err
	}
	s.shown, s.conf.Startup = w.shown, w.startup
	b := &pool.Backend{Settings: w.settings}
	if c.Options.Split && c.port == ReadWrite && s.Positions != nil && splittable(c.startup, b) {
		s.conf.Split, s.reads = true, &reads{}
	}
	return c.welcome(ctx, s, &pool.Backend{Greeting: w.greeting, Status: 'I'}, final)
}

func appendSettings(b []byte, reported map[string]string) []byte {
	for _, name := range slices.Sorted(maps.Keys(reported)) {
		b = wire.AppendParameterStatus(b, name, reported[name])
	}
	return b
}

// plansOf counts what changes the plans of a database.
func (p *pools) plansOf(database string) *conv.Plans {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plans[database] == nil {
		p.plans[database] = conv.NewPlans(new(atomic.Uint64))
	}
	return p.plans[database]
}

// shared is what a session has of the pools.
type shared struct {
	account *rules.Account
	claims  [conv.Reader + 1]rules.Claim // by side
	named   bool                         // it uses the set of dangerous names
}

// unshare gives up what the session has of the pools.
func (s *session) unshare() {
	s.pools.desk.Withdraw(&s.shared.claims[conv.Main])
	s.pools.desk.Withdraw(&s.shared.claims[conv.Reader])
	s.pools.desk.Detach(s.shared.account)
	if s.shared.named {
		s.pools.names.Leave(s.shared.account.Database.Name)
	}
}

// wantShared asks the pools for a server.
func (s *session) wantShared(c *loop.Client, side conv.Side) (*loop.Server, bool) {
	s.handle.CompareAndSwap(nil, c)
	server, _ := s.pools.desk.Want(&s.shared.claims[side], s.shared.account, nil, c.Index())
	if server == nil {
		return nil, true
	}
	return server.Data.(*loop.Server), false
}

// taker takes servers for one side of a session: desk.Taker.
type taker struct {
	*session
	side conv.Side
}

func (t *taker) Take(s *rules.Server, from int) {
	h := t.handle.Load()
	switch {
	case t.side == conv.Reader && t.pools.unlike(s):
		if from < 0 {
			t.pools.Park(s, h.Index())
		}
		t.pools.desk.Gave(s, true)
		t.readerDenied(errUnlike)
		h.Deny(conv.Reader, nil)
		return
	case t.side == conv.Main && t.seat != nil:
		t.seat.used()
	}
	h.Grant(t.side, s.Data.(*loop.Server), func() {})
}

func (t *taker) Denied(e *wire.Error) {
	switch {
	case t.side == conv.Main && t.seat != nil:
		t.seatDenied(e)
		return
	case t.side == conv.Reader && e == nil: // the node has left
		t.reads.left(t.reads.at())
	case t.side == conv.Reader:
		t.readerDenied(e)
	}
	t.handle.Load().Deny(t.side, e)
}

// randomPID is a process id that PostgreSQL gives to nobody: clients are told one.
func randomPID() uint32 {
	b := randomString(4)
	return uint32(b[0])<<24&0x7f000000 | 0x40000000 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// modes that are conv's by the same number.
var _ = [1]int{}[int(conv.Session)-int(rules.Session)+int(conv.Transaction)-int(rules.Transaction)+int(conv.Statement)-int(rules.Statement)+int(conv.Auto)-int(rules.Auto)]

var (
	_ desk.Connections = (*pools)(nil)
	_ loop.Keeper      = (*pools)(nil)
)
