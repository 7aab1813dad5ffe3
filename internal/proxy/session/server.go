package session

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/catalog"
	"manada/internal/proxy/console"
	"manada/internal/proxy/conv"
	"manada/internal/proxy/hba"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
	"manada/internal/proxy/tlsmem"
	"manada/internal/proxy/wire"
)

// Port is the promise that a client made by the port it connected to.
type Port int

// The two ports.
const (
	ReadWrite Port = iota
	ReadOnly
)

// String is the port's name in logs, metrics and status.
func (p Port) String() string {
	if p == ReadOnly {
		return "read_only"
	}
	return "read_write"
}

// Dialer opens backends; *pool.Dialer is the real one.
type Dialer interface {
	Open(ctx context.Context, addr string, l pool.Login) (*pool.Backend, error)
	Cancel(ctx context.Context, addr string, pid uint32, key []byte) error
	Reach(ctx context.Context, addr string) error
	Ahead(ctx context.Context, addr string, n int)
}

// Verifiers looks up what is stored for a role; *pool.Verifiers is the real one.
type Verifiers interface {
	Lookup(ctx context.Context, addr, role, database string) (pool.Secret, error)
	Ask(addr, role, database string, tell func(pool.Secret, error))
	Abandon(addr string)
	Forget(role, database string)
}

// Positions says where nodes are in the WAL; *pool.Positions is the real one.
type Positions interface {
	Written(ctx context.Context, addr string) (pool.Position, error)
	Replayed(ctx context.Context, addr string) (cluster.LSN, error)
}

// Options are the limits of sessions.
type Options struct {
	ClientTLS    *tls.Config // nil: clients are told that TLS is not available
	RequireTLS   bool
	MaxClients   int
	MaxUnproved  int           // clients that have not proved who they are; 0: any
	LoginTimeout time.Duration // for everything that the client has to send before it is logged in
	ConnectWait  time.Duration // for a node to talk to
	// Of a client that is logged in; 0: none. See conv.Config.
	QueryTimeout, TxTimeout, IdleTxTimeout, IdleTimeout time.Duration
	ReadOnlyFallback                                    bool
	Split                                               bool // the read-write port sends reads to standbys too
	Loops                                               int  // threads that serve the clients that are logged in
	Pool                                                rules.Config
	NodeLimit                                           int                      // connections to a node over all pools; 0: computed
	HBA                                                 hba.Rules                // who may log in; nil: everybody
	Replicators                                         []string                 // roles that are trusted with replication
	Version                                             string                   // of the program
	Config                                              func() []console.Setting // for the console; nil: nothing is shown
	// ReadAgain has the configuration read again, for the console: it returns when the
	// proxy has it, with the keys that need a restart. nil: the console cannot.
	ReadAgain  func(context.Context) (restart []string, err error)
	MockSecret []byte // makes the mock exchanges of unknown roles stable: the same at every proxy
}

// Server serves clients. Its exported fields are set before first use.
type Server struct {
	Options   Options // with which it begins, see Reload
	Topology  route.Topology
	Reader    *route.Reader
	Dialer    Dialer
	Verifiers Verifiers
	Positions Positions // nil: nothing is split
	// Ask asks the primary in a database, Capacity a node for what it allows, several at
	// once, but each address by one; nil: nobody knows.
	Ask      catalog.Ask
	Forsake  func(database string) // nothing is asked there for now
	Capacity func(ctx context.Context, addr string) (pool.Capacity, error)
	// Others are the addresses of the herd's other proxies, for requests to cancel; nil: there are none.
	Others   func(context.Context) []string
	Log      *slog.Logger
	Stats    Stats
	Statuses Statuses

	live     atomic.Pointer[Options] // that came later
	registry registry
	consoles atomic.Int32
	passing  atomic.Int32 // requests to cancel that are passed on to Others
	disabled disabled
	tallies  tallies
	door     door
	guesses  guesses
	homes    homes
	seats    homes  // of the clients of the read-only port
	nodes    counts // connections to each
	draining atomic.Bool
	holding  atomic.Bool  // a switchover does: nothing new begins at the primary
	asked    atomic.Value // string: the address where log-ins ask

	loops *loop.Group
	pools *pools
	life  context.Context // of what is done for sessions in goroutines
	end   context.CancelFunc
	work  sync.WaitGroup
}

// Start starts the loops that serve clients once they are logged in.
func (s *Server) Start() error {
	s.door.bound(s.Options.MaxUnproved)
	if o := s.Options; o.ClientTLS != nil {
		o.ClientTLS = withALPN(tlsmem.Prepare(o.ClientTLS))
		s.live.Store(&o) // Current may be asked already
	}
	var traffic [2]loop.Traffic
	for port := range traffic {
		traffic[port] = loop.Traffic{From: &s.Stats.FromClients[port], To: &s.Stats.ToClients[port]}
	}
	var err error
	s.loops, err = loop.Start(s.Options.Loops, s.Log, traffic)
	// detached: sessions outlive the context of their log-in; Close ends it
	s.life, s.end = context.WithCancel(context.Background())
	if err == nil {
		s.pools = newPools(s)
		s.work.Go(func() { s.keepAverages(s.life, statsPeriod) })
	}
	return err
}

// Host runs code with a connection of the proxy's own in a loop, see loop.Group.
func (s *Server) Host(conn net.Conn, code func(*loop.Guest)) error { return s.loops.Host(conn, code) }

// Close stops the loops. All clients have to be gone, see Wait.
func (s *Server) Close() {
	s.end()
	s.pools.desk.Close()
	s.loops.Close()
	s.work.Wait()
}

// Wait waits until the connection of every client is closed. Nobody may listen any
// more.
func (s *Server) Wait() { s.loops.Wait() }

// Listen serves the clients of a port, each from its first byte to a session in a loop
// or to its end, until ctx is done. ctx ends log-ins and waits, not established
// sessions: see Drain.
func (s *Server) Listen(ctx context.Context, l *net.TCPListener, port Port) error {
	stop, err := s.loops.Listen(l, func(g *loop.Guest) { s.serve(ctx, g, port) })
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop()
	s.loops.Hurry()
	return nil
}

// serve is the code of a guest.
func (s *Server) serve(ctx context.Context, g *loop.Guest, port Port) {
	s.Stats.Connections[port].Add(1)
	v := s.door.enter(g)
	if v == nil {
		g.Close()
		return
	}
	c := &client{Server: s, guest: g, conn: g, port: port, visitor: v}
	defer v.leave()
	one, b, err := c.logIn(ctx)
	if c.stop != nil {
		defer c.stop()
	}
	if err == nil && one != nil {
		s.Stats.Logins[port].Add(1)
		if err = one.handOver(c, b); err == nil {
			return // the loop has the connections
		}
		s.Log.Error("client not served", "user", c.user, "error", err)
		s.registry.remove(one)
	} else if err != nil {
		c.fail(err)
	}
	if c.admitted {
		s.Stats.Clients[port].Add(-1)
	}
	if c.own != nil {
		s.pools.desk.Leave(c.own)
	}
	c.conn.Close()
}

// Sweep ends the sessions that are bound to the primary of an epoch before the
// view's, and takes reads away from standbys that may not have them any more.
// Callers call it after every change of the topology, and now and then.
func (s *Server) Sweep(v route.View) {
	if !v.Known {
		return
	}
	s.loops.Won(v.Epoch)
	s.loops.Leads(v.Primary.Name)
	s.abandon(v)
	s.pools.follow(v)
	usable := s.Reader.Usable(v)
	if s.options().ReadOnlyFallback || slices.ContainsFunc(usable, func(st route.Standby) bool { return !s.seats.avoided(st.Name) }) {
		s.pools.desk.Look()
	}
	for _, one := range s.registry.list() {
		one.retire(usable)
	}
}

// Switchover tells every client the phase of a planned switchover of a node, also
// those to come. In Hold and Over nothing new begins there; who logs in waits.
func (s *Server) Switchover(node string, p conv.Phase) {
	if p < conv.Hold {
		node = ""
	}
	s.holding.Store(p >= conv.Hold)
	s.pools.desk.Hold(node)
	s.loops.Switchover(p)
}

// maxAhead bounds the connections that are made ahead to one node.
const maxAhead = 16

// Ahead makes connections to the node that is about to take the lead over from
// another, as many as there are to that one: those who wait then are served sooner.
func (s *Server) Ahead(to route.Node, from string) {
	s.Dialer.Ahead(s.life, to.Nearest(), min(s.Backends()[from], maxAhead))
}

// Work says how far a switchover is, and Stirred that it may have changed.
func (s *Server) Work() loop.Work { return s.loops.Work() }

// Stirred is for one listener.
func (s *Server) Stirred() <-chan struct{} { return s.loops.Stirred() }

// abandon has those ask somebody else whose log-in waits for an answer of a primary
// that is none any more, or cannot be reached from here.
func (s *Server) abandon(v route.View) {
	addr := ""
	if v.HasPrimary() && !v.CutOff {
		addr = v.Primary.Nearest()
	}
	if before, _ := s.asked.Swap(addr).(string); before != "" && before != addr {
		s.Verifiers.Abandon(before)
	}
}

// EndLost gives up the connections to nodes that have stopped acknowledging what
// was sent to them, and returns their number.
func (s *Server) EndLost(limit time.Duration) int { return s.loops.EndLost(limit) }

// Drain ends every session as soon as it is neither in a transaction nor owed
// an answer. New ones are to be kept away by the caller.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.loops.Drain()
}

// EndAll ends every session now.
func (s *Server) EndAll() {
	s.draining.Store(true)
	s.end()
	s.loops.EndAll(errShutdown())
}

// Backends counts the connections to each node.
func (s *Server) Backends() map[string]int {
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	return maps.Clone(s.nodes.of)
}

// registry knows the established sessions, for cancel requests and sweeps.
type registry struct {
	mu       sync.Mutex
	sessions map[*session]struct{}
	keys     map[cancelKey]*session
	consoles map[cancelKey]*console.Interrupt
}

// secretLength is how long the secret of a cancel key may be, in bytes.
func secretLength(version uint32) int {
	if version >= wire.Version32 {
		return 32
	}
	return 4
}

// visit lets a client of the console cancel what it waits for, until it has left.
func (r *registry) visit(k cancelKey, in *console.Interrupt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.consoles == nil {
		r.consoles = map[cancelKey]*console.Interrupt{}
	}
	r.consoles[k] = in
}

func (r *registry) left(k cancelKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.consoles, k)
}

// console finds a client of the console; nil: there is none.
func (r *registry) console(k cancelKey) *console.Interrupt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.consoles[k]
}

type cancelKey struct {
	pid    uint32
	secret string
}

// add gives the session a cancel key that nobody else has. The process id is
// the backend's own: clients compare it with that of notifications and use it
// in pg_stat_activity. The secret is ours; version says how long it may be.
func (r *registry) add(s *session, version uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions == nil {
		r.sessions, r.keys = map[*session]struct{}{}, map[cancelKey]*session{}
	}
	r.sessions[s] = struct{}{}
	r.name(s, s.main.pid, version)
}

// rename gives a session another key, with another process id.
func (r *registry) rename(s *session, pid, version uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, s.key)
	if _, here := r.sessions[s]; here {
		r.name(s, pid, version)
	}
}

func (r *registry) name(s *session, pid, version uint32) {
	length := secretLength(version)
	for {
		s.key = cancelKey{pid, randomString(length)}
		if _, taken := r.keys[s.key]; !taken {
			break
		}
	}
	r.keys[s.key] = s
}

func (r *registry) remove(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, s.key)
	delete(r.sessions, s)
}

func (r *registry) find(k cancelKey) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[k]
}

func (r *registry) list() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*session, 0, len(r.sessions))
	for s := range r.sessions {
		out = append(out, s)
	}
	return out
}
