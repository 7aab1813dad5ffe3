package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/wire"
)

// Positions asks nodes where their WAL is, over one kept connection per node.
// Those that wait at the same time share a query, but only one that was sent
// after they asked. Safe for concurrent use.
type Positions struct {
	Dialer    *Dialer
	User      string          // manada_proxy
	Passwords func() []string // those that may be right; nil when TLS authenticates the proxy
	Database  string
	Timeout   time.Duration // of one query

	mu     sync.Mutex
	nodes  map[string]*gauge
	closed bool
}

// gauge is one node's queue. turn holds a token while nobody queries.
type gauge struct {
	addr    string
	turn    chan struct{}
	backend *Backend // used by the holder of the token
	pending *reading
}

type reading struct {
	done    chan struct{}
	standby bool
	at      Position
	err     error
}

// Position is where a primary is in its WAL.
type Position struct {
	// Inserted is behind everything that was written before, Flushed behind every
	// commit that was acknowledged before, but those with synchronous_commit = off.
	Inserted, Flushed cluster.LSN
}

// Written is where the primary at addr is.
func (p *Positions) Written(ctx context.Context, addr string) (Position, error) {
	return p.ask(ctx, addr, false)
}

// Replayed is what the standby at addr has replayed.
func (p *Positions) Replayed(ctx context.Context, addr string) (cluster.LSN, error) {
	at, err := p.ask(ctx, addr, true)
	return at.Flushed, err
}

func (p *Positions) ask(ctx context.Context, addr string, standby bool) (Position, error) {
	r, err := p.join(ctx, addr)
	if err != nil {
		return Position{}, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return Position{}, fmt.Errorf("ask %s for its WAL: %w", addr, context.Cause(ctx))
	}
	switch {
	case r.err != nil:
		return Position{}, r.err
	case r.standby != standby:
		return Position{}, fmt.Errorf("ask %s for its WAL: it is in recovery: %v", addr, r.standby)
	}
	return r.at, nil
}

// join finds the query that is going to be sent next, or makes it.
func (p *Positions) join(ctx context.Context, addr string) (*reading, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, context.Canceled
	}
	if p.nodes == nil {
		p.nodes = map[string]*gauge{}
	}
	g := p.nodes[addr]
	if g == nil {
		g = &gauge{addr: addr, turn: make(chan struct{}, 1)}
		g.turn <- struct{}{}
		p.nodes[addr] = g
	}
	if g.pending == nil {
		g.pending = &reading{done: make(chan struct{})}
		go p.run(context.WithoutCancel(ctx), g, g.pending)
	}
	return g.pending, nil
}

// run waits for its turn and asks. The wait is bounded because every turn is.
func (p *Positions) run(ctx context.Context, g *gauge, r *reading) {
	defer close(r.done)
	<-g.turn
	defer func() { g.turn <- struct{}{} }()
	p.mu.Lock()
	g.pending = nil // from now on a newcomer needs a younger answer
	closed := p.closed
	p.mu.Unlock()
	if closed {
		r.err = context.Canceled
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	if r.err = p.read(ctx, g, r); r.err != nil {
		r.err = fmt.Errorf("ask for the WAL's position: %w", r.err)
	}
}

// read uses the kept connection; if that has died meanwhile, a new one.
func (p *Positions) read(ctx context.Context, g *gauge, r *reading) error {
	if g.backend != nil {
		if g.query(ctx, r) == nil {
			return nil
		}
		g.drop()
	}
	b, err := p.Dialer.openOwn(ctx, g.addr, own(p.User, p.Passwords, p.Database))
	if err != nil {
		return err
	}
	g.backend = b
	if _, err = b.Conn.Write(wire.AppendMessage(nil, 'P', []byte("w\x00"+positionSQL+"\x00\x00\x00"))); err == nil {
		err = g.query(ctx, r)
	}
	if err != nil {
		g.drop()
	}
	return err
}

const positionSQL = "select r, case when r then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_flush_lsn() end, " +
	"case when not r then pg_catalog.pg_current_wal_insert_lsn() end from pg_catalog.pg_is_in_recovery() r"

// positionMessages run the prepared statement w.
var positionMessages = wire.AppendMessage(wire.AppendMessage(wire.AppendMessage(nil,
	'B', []byte("\x00w\x00\x00\x00\x00\x00\x00\x00")), 'E', []byte{0, 0, 0, 0, 0}), wire.TypeSync, nil)

func (g *gauge) query(ctx context.Context, r *reading) error {
	deadline, _ := ctx.Deadline()
	if err := g.backend.Conn.SetDeadline(deadline); err != nil {
		return err
	}
	return g.backend.ask(positionMessages, func(cols []string) (err error) {
		r.standby = cols[0] == "t"
		if r.at.Flushed, err = cluster.ParseLSN(cols[1]); err == nil && !r.standby {
			r.at.Inserted, err = cluster.ParseLSN(cols[2])
		}
		return err
	}, 3)
}

// Close ends the kept connections, waiting for queries under way.
func (p *Positions) Close() {
	p.mu.Lock()
	p.closed = true
	nodes := p.nodes
	p.mu.Unlock()
	for _, g := range nodes {
		<-g.turn
		g.drop()
		g.turn <- struct{}{}
	}
}

func (g *gauge) drop() {
	if g.backend != nil {
		g.backend.Conn.Close()
		g.backend = nil
	}
}
