package loop

import (
	"io"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/tlsmem"

	"golang.org/x/sys/unix"
)

const (
	// readSize is what one read takes at most, and so what one event moves.
	readSize = 64 << 10
	// sealedSize is the same of TLS records; with what waited inside, what they
	// hold fits into readSize.
	sealedSize = readSize - tlsmem.Room
	// minRead is worth a read.
	minRead = 4 << 10
	// maxHeld bounds what conv may leave of a side that it reads.
	maxHeld = conv.MaxText + 2*readSize
)

// ready deals with what epoll says about a socket.
func (l *Loop) ready(i uint32, s *sock, events uint32) {
	gen := s.gen
	if events&unix.EPOLLOUT != 0 && s.short {
		if l.drain(i, s); s.gen != gen {
			return
		}
	}
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	switch {
	case s.guest != nil:
		l.guestSays(i, s, events)
	case s.listens:
		l.accept(i, s)
	case s.server != nil:
		l.parked(i, s)
	case s.client == 0:
		l.discard(i, s)
	case s.armed&unix.EPOLLIN != 0:
		l.receive(i, s)
	case events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0:
		l.hungUp(i, s, events)
	}
}

// hungUp deals with a peer that has left while it is not read from. A client that
// waits for a server leaves the queue soon. Of others all they have sent is dealt with
// first, when its turn has come.
func (l *Loop) hungUp(i uint32, s *sock, events uint32) {
	s.half = true
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.deafen(i, s)
		l.broke(i, s)
	}
	l.touch(i, s)
	if conv.Side(s.side) == conv.Client {
		l.leaves(s)
	}
}

// A client that sends no more is asked whether it is there yet when it has waited for a
// server for so long, and then now and then.
const (
	askFirst = 100 * time.Millisecond
	askEvery = 5 * time.Second
)

// leaves deals with a client that sends no more: one that nothing reaches is gone, and
// of one that waits for a server it is found out whether it is there.
func (l *Loop) leaves(s *sock) {
	switch c := l.clientOf(s); {
	case s.broken && (s.eof || c.queues()):
		l.gone(s, conv.Closed)
	case c.queues() && c.due[leftTimer] == 0:
		l.arm(c, leftTimer, askFirst)
	}
}

// asks finds out whether a client is there that waits and sends no more.
func (l *Loop) asks(c *client) {
	if s := l.socks.at(c.socks[conv.Client]); s.half && c.queues() {
		l.arm(c, leftTimer, askEvery)
		l.step(c, conv.Event{Kind: conv.SendsNoMore})
	}
}

// deafen has epoll report nothing of a peer that has hung up: it would over and over.
func (l *Loop) deafen(i uint32, s *sock) {
	l.epoll(unix.EPOLL_CTL_DEL, i, s, 0)
	s.parked, s.armed, s.added = true, 0, false
}

// receive reads once and gives it to conv.
func (l *Loop) receive(i uint32, s *sock) {
	var b []byte
	whole := true
	switch {
	case s.tls != nil:
		n, errno := recv(s.fd, l.raw)
		if errno == unix.EAGAIN {
			return
		}
		before := len(s.rest)
		whole = n > 0 && errno == 0 && l.unseal(s, l.raw[:n])
		if b = s.rest; len(b) == before {
			b = nil
		}
	case len(s.rest) > 0:
		s.rest = l.bufs.grow(s.rest, minRead)
		n, errno := recv(s.fd, s.rest[len(s.rest):min(cap(s.rest), len(s.rest)+readSize)])
		if errno == unix.EAGAIN {
			return
		}
		if whole = n > 0 && errno == 0; whole {
			s.rest = s.rest[:len(s.rest)+n]
			b = s.rest
		}
	default:
		n, errno := recv(s.fd, l.in)
		if errno == unix.EAGAIN {
			return
		}
		if whole = n > 0 && errno == 0; whole {
			b = l.in[:n]
		}
	}
	gen := s.gen
	if len(b) > 0 {
		c := l.clientOf(s)
		if conv.Side(s.side) == conv.Client {
			l.moved[c.port].from += int64(len(b))
			c.stats.Received += int64(len(b))
		}
		held := len(s.rest) > 0
		l.keep(s, l.offer(c, i, b), held)
	}
	if s.gen != gen || s.client == 0 {
		return
	}
	switch {
	case !whole && s.stop && conv.Side(s.side) == conv.Client: // the turn of what came before has not come
		s.half, s.over = true, true
		l.leaves(s)
	case !whole:
		l.gone(s, conv.Closed)
		if s.gen == gen {
			l.touch(i, s)
		}
	case len(s.rest) > maxHeld && !s.stop:
		l.group.log.Error("a message is held that is larger than any may be", "side", s.side, "bytes", len(s.rest))
		l.gone(s, conv.Closed)
	}
}

// unseal puts behind what is held what TLS records hold that were received, and
// all that waited inside before. It returns false behind the last.
func (l *Loop) unseal(s *sock, in []byte) bool {
	l.sealed = l.sealed[:0]
	n, err := s.tls.Open(in, l.in, &l.sealed)
	if len(l.sealed) > 0 { // a new key was asked for, or it complains
		l.transmit(s, l.sealed)
	}
	if n > 0 {
		s.rest = append(l.bufs.grow(s.rest, n), l.in[:n]...)
	}
	if err != nil && err != io.EOF {
		l.group.log.Debug("TLS failed", "error", err)
	}
	return err == nil
}

// keep holds what conv left: at the front of what is held already, or copied out
// of the loop's buffer.
func (l *Loop) keep(s *sock, left []byte, held bool) {
	switch {
	case s.client == 0:
	case len(left) == 0:
		l.bufs.put(s.rest)
		s.rest = nil
	case !held:
		s.rest = append(l.bufs.get(len(left)), left...)
	case len(left) < len(s.rest):
		s.rest = s.rest[:copy(s.rest, left)]
	}
}

// discard reads what nobody wants any more, until the peer has closed.
func (l *Loop) discard(i uint32, s *sock) {
	n, errno := recv(s.fd, l.raw)
	if errno == unix.EAGAIN {
		return
	}
	if n <= 0 || errno != 0 {
		l.closeSock(i, s)
	}
}
