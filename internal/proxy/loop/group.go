package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/wire"

	"golang.org/x/sys/unix"
)

// Group is some loops that share the clients. Safe for concurrent use.
type Group struct {
	loops   []*Loop
	log     *slog.Logger
	others  bool // there are more processors than loops
	traffic [ports]Traffic
	live    sync.WaitGroup // clients whose socket is open
	stopped sync.WaitGroup // loops
	stirred chan struct{}  // something in Work has changed
}

// Traffic counts the bytes of a port's clients, as they are without TLS.
type Traffic struct{ From, To *atomic.Int64 }

// Start starts n loops.
func Start(n int, log *slog.Logger, traffic [ports]Traffic) (*Group, error) {
	g := &Group{log: log, traffic: traffic, stirred: make(chan struct{}, 1), others: runtime.GOMAXPROCS(0) > n}
	for range n {
		l, err := newLoop(g)
		if err != nil {
			g.Close()
			return nil, fmt.Errorf("make a loop: %w", err)
		}
		l.index = len(g.loops)
		g.loops = append(g.loops, l)
		g.stopped.Go(l.run)
	}
	return g, nil
}

// Serve hands a client over to the loop with the fewest. A guest stays where it is,
// and is a client when its code has ended.
func (g *Group) Serve(a Arrival) *Client {
	if q := a.Socket.guest; q != nil {
		q.joins = &arriving{&Client{loop: q.loop}, a}
		return q.joins.handle
	}
	best := g.emptiest()
	best.load.Add(1)
	g.live.Add(1)
	h := &Client{loop: best}
	if !best.post(func(l *Loop) { l.adopt(h, a) }) {
		best.load.Add(-1)
		g.live.Done()
		a.Socket.Close()
		if a.Main != nil {
			a.Main.End()
			a.Owner.Back(conv.Main, a.Main, conv.Close)
		}
		a.Owner.Ended()
	}
	return h
}

// emptiest is the loop with the fewest clients.
func (g *Group) emptiest() *Loop {
	best := g.loops[0]
	for _, l := range g.loops[1:] {
		if l.load.Load() < best.load.Load() {
			best = l
		}
	}
	return best
}

// Won says that an epoch was won: the servers that led an older one end.
func (g *Group) Won(epoch uint64) {
	g.each(func(l *Loop) {
		if epoch <= l.epoch {
			return
		}
		l.epoch = epoch
		l.servers(func(s *sock, server *Server) {
			if server.stale(epoch) {
				l.gone(s, conv.Deposed)
			}
		})
		l.endParked(func(s *sock) bool { return s.server.stale(epoch) })
	})
}

// Leads says which node does. Clients that have a server there that was a standby hear
// of it.
func (g *Group) Leads(node string) {
	g.each(func(l *Loop) {
		if node == l.leader {
			return
		}
		l.leader = node
		l.servers(func(s *sock, server *Server) {
			if server.promoted(node) && conv.Side(s.side) == conv.Main {
				l.step(l.clientOf(s), conv.Event{Kind: conv.Promoted})
			}
		})
	})
}

// EndLost gives up the servers whose host has stopped acknowledging what was sent
// to it, and returns their number.
func (g *Group) EndLost(limit time.Duration) int {
	var n atomic.Int64
	var done sync.WaitGroup
	for _, l := range g.loops {
		done.Add(1)
		sent := l.post(func(l *Loop) {
			defer done.Done()
			l.servers(func(s *sock, _ *Server) {
				if s.tcp && lost(s.fd, uint32(limit.Milliseconds())) {
					n.Add(1)
					l.gone(s, conv.Silent)
				}
			})
			n.Add(int64(l.endParked(func(s *sock) bool { return s.tcp && lost(s.fd, uint32(limit.Milliseconds())) })))
		})
		if !sent {
			done.Done()
		}
	}
	done.Wait()
	return int(n.Load())
}

// Drain ends every client as soon as nothing is owed to it outside a transaction,
// also those to come.
func (g *Group) Drain() {
	g.each(func(l *Loop) {
		l.draining = true
		l.all(func(c *client) { l.step(c, conv.Event{Kind: conv.Shutdown}) })
	})
}

// EndAll ends every client with e within the time for last words, also those to come.
func (g *Group) EndAll(e *wire.Error) {
	g.each(func(l *Loop) {
		l.ending = e
		l.all(func(c *client) { l.kill(c, e) })
	})
}

// Wait waits until every client's connection is closed. No client may be handed
// over meanwhile.
func (g *Group) Wait() { g.live.Wait() }

// Close stops the loops. All clients must have gone.
func (g *Group) Close() {
	for _, l := range g.loops {
		l.mu.Lock()
		l.closed = true
		l.ring()
		l.mu.Unlock()
	}
	g.stopped.Wait()
	for _, l := range g.loops {
		for _, a := range l.lanes {
			a.next() // it ends
		}
		unix.Close(l.ep)
		unix.Close(l.bell)
	}
}

// each has every loop do something, in turn with its other work.
func (g *Group) each(f func(*Loop)) {
	for _, l := range g.loops {
		l.post(f)
	}
}

// all visits every client.
func (l *Loop) all(visit func(*client)) {
	l.clients.each(func(_ uint32, c *client) {
		if c.conv != nil {
			visit(c)
			l.settle()
		}
	})
}

// servers visits every client's servers.
func (l *Loop) servers(visit func(*sock, *Server)) {
	l.all(func(c *client) {
		for side := conv.Main; side < sides; side++ {
			if server := c.servers[side]; server != nil {
				visit(l.socks.at(c.socks[side]), server)
			}
		}
	})
}

// endParked closes the servers that wait for a client and that which says, and returns
// their number.
func (l *Loop) endParked(which func(*sock) bool) (n int) {
	l.socks.each(func(i uint32, s *sock) {
		if s.server != nil && which(s) {
			n++
			l.lose(i, s)
		}
	})
	return n
}

// Index is the number of the client's loop.
func (h *Client) Index() int { return h.loop.index }
