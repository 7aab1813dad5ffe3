package session

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/hba"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
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
}

// Verifiers looks up what is stored for a role; *pool.Verifiers is the real one.
type Verifiers interface {
	Lookup(ctx context.Context, addr, role, database string) (pool.Secret, error)
	Forget(role, database string)
}

// Positions says where nodes are in the WAL; *pool.Positions is the real one.
type Positions interface {
	Written(ctx context.Context, addr string) (pool.Position, error)
	Replayed(ctx context.Context, addr string) (cluster.LSN, error)
}

// Options are the limits of sessions.
type Options struct {
	ClientTLS        *tls.Config // nil: clients are told that TLS is not available
	RequireTLS       bool
	MaxClients       int
	MaxUnproved      int           // clients that have not proved who they are; 0: any
	LoginTimeout     time.Duration // for everything that the client has to send before it is logged in
	ConnectWait      time.Duration // for a node to talk to
	ReadOnlyFallback bool
	Split            bool      // the read-write port sends reads to standbys too
	HBA              hba.Rules // who may log in; nil: everybody
	MockSecret       []byte    // makes the mock exchanges of unknown roles stable: the same at every proxy
}

// Server serves clients. Its exported fields are set before first use.
type Server struct {
	Options   Options
	Topology  route.Topology
	Reader    *route.Reader
	Dialer    Dialer
	Verifiers Verifiers
	Positions Positions // nil: nothing is split
	Log       *slog.Logger
	Stats     Stats
	Statuses  Statuses

	registry registry
	doorOnce sync.Once
	door     door
	guesses  guesses
	homes    homes
	draining atomic.Bool
}

// Serve serves one client until it is gone and closes the connection. ctx ends
// log-ins and waits, not established sessions: see Drain.
func (s *Server) Serve(ctx context.Context, conn net.Conn, port Port) {
	s.Stats.Connections[port].Add(1)
	s.doorOnce.Do(func() { s.door.limit = s.Options.MaxUnproved })
	v := s.door.enter(conn)
	if v == nil {
		conn.Close()
		return
	}
	c := &client{Server: s, conn: conn, port: port, visitor: v}
	defer v.leave()
	defer func() {
		if c.admitted {
			s.Stats.Clients[port].Add(-1)
		}
		c.conn.Close()
	}()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	one, err := c.logIn(ctx)
	switch {
	case err != nil:
		c.fail(err)
	case one != nil:
		defer s.registry.remove(one)
		if !stop() { // the shutdown began: relay ends it
			conn.SetReadDeadline(time.Time{})
		}
		s.Stats.Logins[port].Add(1)
		one.relay()
	}
}

// Sweep ends the sessions that are bound to the primary of an epoch before the
// view's. Callers call it after every change of the topology.
func (s *Server) Sweep(v route.View) {
	if !v.Known {
		return
	}
	for _, one := range s.registry.list() {
		if one.stale(v) {
			one.end(endDeposed)
		}
	}
}

// EndLost ends the sessions whose node has stopped acknowledging what was sent
// to it (see pool.Lost) and returns their number.
func (s *Server) EndLost(limit time.Duration) int {
	n := 0
	for _, one := range s.registry.list() {
		if pool.Lost(one.server, limit) {
			one.end(endLost)
			n++
			continue
		}
		one.endLostSecond(limit)
	}
	return n
}

// Drain ends every session as soon as it is neither in a transaction nor owed
// an answer. New ones are to be kept away by the caller.
func (s *Server) Drain() {
	s.draining.Store(true)
	for _, one := range s.registry.list() {
		one.endIfIdle()
	}
}

// EndAll ends every session now.
func (s *Server) EndAll() {
	s.draining.Store(true)
	for _, one := range s.registry.list() {
		one.end(endShutdown)
	}
}

// Backends counts the connections to each node.
func (s *Server) Backends() map[string]int {
	m := map[string]int{}
	for _, one := range s.registry.list() {
		m[one.node]++
		if second := one.secondNode(); second != "" {
			m[second]++
		}
	}
	return m
}

// registry knows the established sessions, for cancel requests and sweeps.
type registry struct {
	mu       sync.Mutex
	sessions map[*session]struct{}
	keys     map[cancelKey]*session
}

type cancelKey struct {
	pid    uint32
	secret string
}

// add gives the session a cancel key that nobody else has. The process id is
// the backend's own: clients compare it with that of notifications and use it
// in pg_stat_activity. The secret is ours; version says how long it may be.
func (r *registry) add(s *session, version uint32) {
	length := 4
	if version >= wire.Version32 {
		length = 32
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions == nil {
		r.sessions, r.keys = map[*session]struct{}{}, map[cancelKey]*session{}
	}
	for {
		s.key = cancelKey{s.backendPID, randomString(length)}
		if _, taken := r.keys[s.key]; !taken {
			break
		}
	}
	r.keys[s.key], r.sessions[s] = s, struct{}{}
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
