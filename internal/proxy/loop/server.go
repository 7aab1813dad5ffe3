package loop

import (
	"sync/atomic"
	"time"

	"manada/internal/proxy/conv"

	"golang.org/x/sys/unix"
)

// Server is a logged-in connection to PostgreSQL. It is in one loop at a time, with
// a client or waiting for one, or on its way between two.
type Server struct {
	*Socket
	Link *conv.Link
	// Backend is what the owner knows of it.
	Backend any
	// Keeper has it while no client has; nil: it is closed when a client gives it back.
	Keeper Keeper

	at   atomic.Pointer[Loop] // the loop that it is in; nil before the first; or moving, ended
	slot uint32               // there
}

// moving is between two loops, ended nowhere any more.
var moving, ended = &Loop{}, &Loop{}

// Keeper is whose a server is when no client has it. Its methods are called on a
// loop's thread and must not block.
type Keeper interface {
	// Gave: a client has given it back. Its connection is watched where it is.
	Gave(s *Server)
	// Closed: its connection is closed.
	Closed(s *Server)
}

// loop is where it is now, nil when it is in none.
func (s *Server) loop() *Loop {
	if l := s.at.Load(); l != moving && l != ended {
		return l
	}
	return nil
}

// End ends a server, wherever it is. A client that has it is told that it is gone.
func (s *Server) End() {
	for {
		switch l := s.at.Load(); l {
		case ended:
			return
		case nil, moving:
			if s.at.CompareAndSwap(l, ended) {
				s.Close()
				s.closed()
				return
			}
		default:
			l.post(func(l *Loop) {
				if s.loop() == l {
					l.endServer(s)
				} else {
					s.End() // it has gone on
				}
			})
			return
		}
	}
}

// closed tells the keeper.
func (s *Server) closed() {
	if s.Keeper != nil {
		s.Keeper.Closed(s)
	}
}

// Park has a server that nobody has yet watched on the loop of a number.
func (g *Group) Park(s *Server, loop int) {
	if !g.loops[loop].post(func(l *Loop) { l.park(s) }) {
		s.End()
	}
}

func (l *Loop) endServer(s *Server) {
	sk := l.socks.at(s.slot)
	if sk.client != 0 {
		l.gone(sk, conv.Closed)
		return
	}
	l.lose(s.slot, sk)
}

// closeServer closes a server's socket.
func (l *Loop) closeServer(i uint32, s *sock, server *Server) {
	server.at.Store(ended)
	l.closeSock(i, s)
}

// own places a server at a client, from where it is: parked in this loop, or in no
// loop. It returns false when it has ended.
func (l *Loop) own(c *client, side conv.Side, s *Server) bool {
	if s.loop() != l {
		if !l.arrive(s, c.handle.slot, side) {
			return false
		}
	}
	sk := l.socks.at(s.slot)
	sk.client, sk.side, sk.server = c.handle.slot, uint8(side), nil
	c.socks[side] = s.slot
	return true
}

// arrive places a server that is in no loop.
func (l *Loop) arrive(s *Server, client uint32, side conv.Side) bool {
	if !s.at.CompareAndSwap(nil, l) && !s.at.CompareAndSwap(moving, l) {
		return false
	}
	s.slot = l.attach(client, side, s.Socket)
	return true
}

// park watches a server for its end.
func (l *Loop) park(s *Server) {
	if l.arrive(s, 0, conv.Main) {
		l.socks.at(s.slot).server = s
	}
}

// release takes a parked server out of the loop.
func (l *Loop) release(s *Server) {
	if s.loop() != l {
		return
	}
	sk := l.socks.at(s.slot)
	if sk.added {
		l.epoll(unix.EPOLL_CTL_DEL, s.slot, sk, 0)
	}
	*sk = sock{gen: sk.gen + 1}
	l.socks.put(s.slot)
	s.at.Store(moving)
}

// unwanted gives back a server that its client does not want any more.
func (l *Loop) unwanted(s *Server) {
	switch {
	case s.Keeper == nil:
		s.End()
	case s.loop() == l, l.arrive(s, 0, conv.Main):
		l.socks.at(s.slot).server = s
		s.Keeper.Gave(s)
	}
}

// parked deals with a server that nobody has and that says something: it has ended,
// it answers DISCARD ALL, or what it says is for nobody.
func (l *Loop) parked(i uint32, s *sock) {
	n, errno := recv(s.fd, l.raw)
	if errno == unix.EAGAIN || n > 0 && l.heard(s, l.raw[:n]) {
		return
	}
	l.lose(i, s)
}

// lose closes a server that nobody has.
func (l *Loop) lose(i uint32, s *sock) {
	server := s.server
	l.closeServer(i, s, server)
	server.closed()
}

// heard takes what a server that nobody has says. It returns false when nobody may
// have it any more.
func (l *Loop) heard(s *sock, in []byte) bool {
	if s.tls == nil {
		s.rest = append(l.bufs.grow(s.rest, len(in)), in...)
	} else if !l.unseal(s, in) {
		return false
	}
	if !s.clearing || len(s.rest) == 0 {
		return len(s.rest) == 0 // records may hold nothing that PostgreSQL has said
	}
	n, done, err := s.server.Link.Discarding(s.rest)
	switch {
	case err != nil:
		l.group.log.Info("connection not used again", "node", s.server.Link.Node, "error", err)
		return false
	case done && n < len(s.rest):
		return false
	case done:
		l.bufs.put(s.rest)
		s.rest, s.clearing, s.due = nil, false, 0
		s.server.Keeper.Gave(s.server)
	default:
		s.rest = s.rest[:copy(s.rest, s.rest[n:])]
	}
	return true
}

// clearTime is how long DISCARD ALL may take: it drops temporary tables.
var clearTime = 30 * time.Second

// clear has a server that nobody has forget its client. Its Keeper gets it then.
func (l *Loop) clear(i uint32, s *sock) {
	s.clearing = true
	l.within(i, s, clearTime)
	l.seal(i, s, s.server.Link.Discard())
}

// stale says whether a newer epoch was won: from then on the old primary can
// acknowledge nothing.
func (s *Server) stale(epoch uint64) bool { return s.Link.Epoch > 0 && s.Link.Epoch < epoch }

// promoted says whether a node that leads was a standby when the server came there.
func (s *Server) promoted(leader string) bool { return s.Link.Epoch == 0 && s.Link.Node == leader }

// attach makes a slot for a socket. What was read before is offered soon.
func (l *Loop) attach(slot uint32, side conv.Side, from *Socket) uint32 {
	if from.guest != nil {
		return l.join(slot, from.guest)
	}
	i, s := l.socks.get()
	s.fd, s.client, s.side, s.tls, s.tcp = from.fd, slot, uint8(side), from.tls, from.tcp
	if len(from.rest) > 0 {
		s.rest = append(l.bufs.get(len(from.rest)), from.rest...)
		from.rest = nil
	}
	s.over = s.tls != nil && !l.unseal(s, nil)
	l.resume = append(l.resume, i)
	l.touch(i, s)
	return i
}
