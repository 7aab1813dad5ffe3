package session

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/conv"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/wire"
)

// session is a client that is logged in, as the world around its loop knows it:
// whom a cancel request of it is for, who may answer its reads, what is counted.
// It is the loop's Owner of the client.
type session struct {
	*Server
	conf   conv.Config
	began  *Options   // with which
	conv   *conv.Conv // the loop's
	handle atomic.Pointer[loop.Client]
	port   Port
	user   string
	key    cancelKey
	about  about
	pin    atomic.Pointer[string] // why it keeps its connection; nil or empty: it does not

	main   backend
	reads  *reads       // nil: only main answers
	shared *shared      // nil: main is its own
	own    *rules.Own   // it is counted so; nil when it is shared
	seat   *seat        // of a client of the read-only port that shares
	shown  *conv.Report // what it was told of its settings, when it is shared

	mu        sync.Mutex
	canceling int             // requests on their way; guarded by mu
	waiters   []chan struct{} // those who asked for them; guarded by mu
}

// backend is a server's connection, for cancel requests and the log.
type backend struct {
	node, addr string
	epoch      uint64 // its node is the primary of; 0: a standby
	pid        uint32
	key        []byte
	queries    *atomic.Int64 // that its node was given; nil: none yet. The loop's
}

func backendOf(s *loop.Server) *backend {
	if one, ok := s.Backend.(*pooledServer); ok {
		return &one.backend
	}
	return s.Backend.(*backend)
}

func newSession(c *client, b *pool.Backend, d destination) *session {
	s := &session{Server: c.Server, port: c.port, user: c.user, own: c.own, about: aboutClient(c, b),
		main: backend{node: d.node.Name, addr: b.Addr, pid: b.PID, key: b.Key}}
	if d.primary {
		s.main.epoch = d.epoch
	}
	s.conf = conv.Config{Walsender: c.startup.Walsender(), HidesWarnings: c.hidesWarnings(), ReadOnly: c.port == ReadOnly}
	if !s.conf.Walsender {
		s.conf.PoolNodes = s.poolNodes
		o := s.options()
		s.conf.Limits, s.began = o.limits(), o
	}
	return s
}

// splittable says whether the texts of a client can be classified, and its
// second connection would be like its first.
func splittable(startup wire.Startup, b *pool.Backend) bool {
	return b.Settings["standard_conforming_strings"] == "on" && classify.Encoding(b.Settings["client_encoding"]) &&
		startup.Get("replication") == ""
}

// handOver gives the client and its server to a loop.
func (s *session) handOver(c *client, b *pool.Backend) error {
	if s.shared != nil {
		return s.handOverShared(c)
	}
	main, err := loop.Take(b.Conn, b.Rest)
	if err != nil {
		return err
	}
	app, err := loop.Take(c.conn, nil)
	if err != nil {
		main.Close()
		return err
	}
	var reported map[string]string
	if s.conf.Split || s.conf.Walsender {
		reported = b.Settings
	}
	s.conv = conv.New(&s.conf)
	s.nodes.add(s.main.node, 1)
	s.handle.Store(s.loops.Serve(loop.Arrival{Socket: app, Port: int(s.port), Label: s.tallies.label(s.about.database), Conv: s.conv, Owner: s,
		Main: &loop.Server{Socket: main, Link: conv.NewLink(s.main.node, s.main.epoch, reported, b.Status), Backend: &s.main}}))
	s.caughtUp()
	return nil
}

// handOverShared gives a client to a loop that wants servers of the pools.
func (s *session) handOverShared(c *client) error {
	app, err := loop.Take(c.conn, nil)
	if err != nil {
		s.unshare()
		return err
	}
	s.conv = conv.New(&s.conf)
	if s.shown != nil {
		s.conv.Shown(s.shown)
	}
	s.handle.Store(s.loops.Serve(loop.Arrival{Socket: app, Port: int(s.port), Label: s.tallies.label(s.about.database), Conv: s.conv, Owner: s, Enters: s.conf.Welcome != nil}))
	s.caughtUp()
	return nil
}

// Want has a standby opened for the client's reads, and a server of the pools for
// what is shared.
func (s *session) Want(c *loop.Client, side conv.Side) (*loop.Server, bool) {
	switch {
	case s.seat != nil && side == conv.Main:
		return s.wantSeat(c)
	case s.shared != nil && side == conv.Main:
		return s.wantShared(c, side)
	}
	if side != conv.Reader || s.reads == nil {
		return nil, false
	}
	if s.shared != nil {
		return s.wantReader(c)
	}
	st, ok := s.standby()
	if ok {
		s.work.Go(func() { s.open(c, st) })
	}
	return nil, ok
}

// AtHand is a server of the pools that is unused on the client's loop. Reads of a client
// that is split need none, and one of the read-only port has to look where it reads.
func (s *session) AtHand(c *loop.Client) *loop.Server {
	if s.shared == nil || s.seat != nil || s.reads != nil {
		return nil
	}
	if s.handle.Load() == nil {
		s.handle.CompareAndSwap(nil, c)
	}
	server := s.pools.desk.AtHand(&s.shared.claims[conv.Main], s.shared.account, c.Index())
	if server == nil {
		return nil
	}
	return server.Data.(*loop.Server)
}

// Withdraw takes what is wanted of the pools out of the queue.
func (s *session) Withdraw(side conv.Side) {
	if s.shared != nil {
		s.pools.desk.Withdraw(&s.shared.claims[side])
	}
	if side == conv.Reader && s.reads != nil {
		s.reads.left(s.reads.at())
	}
}

// Back: the server's connection is closed.
func (s *session) Back(side conv.Side, server *loop.Server, _ conv.How) {
	switch {
	case side == conv.Reader && s.shared != nil:
		s.reads.left(server.Link.Node)
	case side == conv.Reader:
		s.lostReader(server.Link.Node)
	case s.shared == nil:
		s.nodes.add(server.Link.Node, -1)
	}
}

// Lost: it ended without our doing.
func (s *session) Lost(side conv.Side, server *loop.Server, why conv.Why, told bool) {
	switch {
	case side == conv.Reader:
		s.homes.avoid(server.Link.Node)
		s.Log.Info("standby lost", "node", server.Link.Node, "user", s.user)
	case why == conv.Deposed:
		s.Stats.Deposed.Add(1)
	case told || why == conv.Silent: // else the client had left, or PostgreSQL has said why
		if why == conv.Silent && s.seat != nil && server.Link.Epoch == 0 {
			s.seats.avoid(server.Link.Node)
		}
		s.Stats.Lost.Add(1)
		s.Log.Info("backend lost", "node", server.Link.Node, "user", s.user)
	}
}

// Ask asks the pool of positions, or who knows the names, in a goroutine.
func (s *session) Ask(c *loop.Client, fx *conv.Effect, server *loop.Server) {
	if fx.Kind == conv.AskNames {
		s.work.Go(func() {
			ctx, cancel := context.WithTimeout(s.life, catalogPatience)
			defer cancel()
			_ = s.pools.names.Refresh(ctx, s.shared.account.Database.Name) // or the client waits for no longer
			c.Tell(conv.Event{Kind: conv.Named})
		})
		return
	}
	at, addr, node := fx.At, "", ""
	if server != nil {
		addr, node = backendOf(server).addr, server.Link.Node
	} else if v := s.Topology.Current(); v.HasPrimary() { // the next one that it would be given
		addr, node = v.Primary.Nearest(), v.Primary.Name
	}
	if fx.Kind == conv.AskReplayed {
		s.work.Go(func() { c.Tell(conv.Event{Kind: conv.Replayed, Flushed: s.reads.replayed(s, addr, node, at)}) })
		return
	}
	s.work.Go(func() { c.Tell(s.reads.written(s, addr, node)) })
}

// Cancel sends a cancel request.
func (s *session) Cancel(c *loop.Client, side conv.Side, server *loop.Server) {
	s.mu.Lock()
	s.canceling++
	s.mu.Unlock()
	b := *backendOf(server)
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.life, s.options().LoginTimeout)
		defer cancel()
		err := s.Dialer.Cancel(ctx, b.addr, b.pid, b.key)
		if err != nil {
			s.Log.Warn("cancel request not delivered", "node", b.node, "error", err)
		} else {
			s.Stats.Cancels.Add(1)
		}
		kind := conv.CancelDone
		if errors.Is(err, pool.ErrUnread) {
			kind = conv.CancelLost
		}
		c.Tell(conv.Event{Kind: kind, Side: side})
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.canceling--; s.canceling == 0 {
			for _, w := range s.waiters {
				close(w)
			}
			s.waiters = nil
		}
	})
}

// cancel cancels what the client runs. It waits until PostgreSQL has read the
// request; when nothing runs there is none.
func (s *session) cancel(ctx context.Context) {
	h := s.handle.Load()
	if h == nil {
		return // it has not asked for anything yet
	}
	read := make(chan struct{})
	h.TellThen(conv.Event{Kind: conv.Cancel}, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.canceling == 0 {
			close(read)
			return
		}
		s.waiters = append(s.waiters, read)
	})
	select {
	case <-read:
	case <-ctx.Done():
	}
}

// Note is for the log.
func (s *session) Note(kind conv.EffectKind, text string) {
	if kind == conv.Warn {
		s.Log.Warn(text, "node", s.main.node, "user", s.user)
		return
	}
	s.pin.Store(&text)
	if text != "" { // else nothing keeps it any more
		s.Stats.pins.add(reasonOf(text), 1)
		s.Log.Debug("the client keeps its connection", "user", s.user, "why", text)
	}
}

// Count adds to the statistics.
func (s *session) Count(n *conv.Counts, main *loop.Server) {
	if n.Queries > 0 && main != nil {
		b := backendOf(main)
		if b.queries == nil {
			b.queries = s.Stats.reads.counter(b.node)
		}
		b.queries.Add(int64(n.Queries))
	}
	if n.Reads > 0 {
		s.Stats.reads.add(s.reads.at(), n.Reads)
	}
	if n.Repeated|n.Unreplicated|n.Unknown != 0 {
		s.Stats.Repeated.Add(int64(n.Repeated))
		s.Stats.Unreplicated.Add(int64(n.Unreplicated))
		s.Stats.UnknownResult.Add(int64(n.Unknown))
	}
}

// Ended: the client has gone.
func (s *session) Ended() {
	s.registry.remove(s)
	if s.shared != nil {
		s.unshare()
	}
	if s.own != nil {
		s.pools.desk.Leave(s.own)
	}
	s.Stats.Clients[s.port].Add(-1)
	if s.reads != nil {
		s.reads.end(&s.homes)
	}
	if s.seat != nil {
		s.seat.leave(&s.seats)
	}
}

var _ loop.Owner = (*session)(nil)

// counts is a number for each of some names. The zero value is ready.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	if c.of[name] += n; c.of[name] <= 0 {
		delete(c.of, name)
	}
}
