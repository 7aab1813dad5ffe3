package loop

import (
	"time"

	"manada/internal/proxy/conv"

	"golang.org/x/sys/unix"
)

const (
	// small is what is copied, so that several go in one packet; what is larger is
	// sent from where it is.
	small = 4 << 10
	// linger is how long a client has to take our last words.
	linger = 500 * time.Millisecond
)

// write sends to a side of a client, soon: small pieces are put together.
func (l *Loop) write(c *client, side conv.Side, b []byte) {
	i := c.socks[side]
	if i == 0 || len(b) == 0 {
		return
	}
	if side == conv.Client {
		l.moved[c.port].to += int64(len(b))
		c.stats.Sent += int64(len(b))
	}
	if l.outTo != i {
		l.flush()
	}
	if len(b) <= small {
		l.outTo = i
		if l.out = append(l.out, b...); len(l.out) >= readSize {
			l.flush()
		}
		return
	}
	l.flush()
	l.seal(i, l.socks.at(i), b)
}

// flush sends what was put together.
func (l *Loop) flush() {
	if len(l.out) > 0 {
		l.seal(l.outTo, l.socks.at(l.outTo), l.out)
	}
	l.out, l.outTo = l.out[:0], 0
}

// seal sends, over TLS where that is spoken.
func (l *Loop) seal(i uint32, s *sock, b []byte) {
	if s.tls != nil {
		l.sealed = l.sealed[:0]
		if s.tls.Seal(b, &l.sealed) != nil {
			s.broken = true // shows when it is read
		}
		b = l.sealed
	}
	l.transmit(s, b)
	if s.short {
		l.touch(i, s)
	}
}

// transmit sends bytes as they are. What the socket does not take waits, and who
// feeds it is not read from until it has: see interest.
func (l *Loop) transmit(s *sock, b []byte) {
	if s.broken || s.shut || len(b) == 0 {
		return
	}
	if !s.short {
		n, errno := send(s.fd, b)
		if errno != 0 && errno != unix.EAGAIN {
			s.broken = true // whoever reads from it is told the end
			return
		}
		if n > 0 {
			b = b[n:]
		}
		if len(b) == 0 {
			return
		}
		s.short = true
		l.feeders(s)
	}
	s.late = append(l.bufs.grow(s.late, len(b)), b...)
}

// drain sends what was late.
func (l *Loop) drain(i uint32, s *sock) {
	n, errno := send(s.fd, s.late[s.sent:])
	if errno == unix.EAGAIN {
		return
	}
	if s.due != 0 && s.server == nil {
		l.within(i, s, linger) // it reads
	}
	if errno != 0 {
		l.broke(i, s)
	} else if s.sent += n; s.sent == len(s.late) {
		l.drained(i, s)
	}
	if s.client == 0 && s.server == nil && s.guest == nil && !s.short {
		l.shutdown(i, s)
	}
}

// drained: nothing is late any more.
func (l *Loop) drained(i uint32, s *sock) {
	l.bufs.put(s.late)
	s.late, s.sent, s.short = nil, 0, false
	l.touch(i, s)
	l.feeders(s)
}

// broke: nothing can be sent any more.
func (l *Loop) broke(i uint32, s *sock) {
	s.broken = true
	l.drained(i, s)
}

// feeders has epoll look again at those that a socket is fed by.
func (l *Loop) feeders(s *sock) {
	c := l.clientOf(s)
	if c == nil {
		return
	}
	for side, i := range c.socks {
		if i != 0 && (conv.Side(side) == conv.Client) != (conv.Side(s.side) == conv.Client) {
			l.touch(i, l.socks.at(i))
		}
	}
}

// interest is what epoll is to report of a socket.
func (l *Loop) interest(s *sock) (events uint32) {
	if s.short {
		events |= unix.EPOLLOUT
	}
	c := l.clientOf(s)
	switch {
	case s.eof:
	case s.guest != nil:
		if !s.stop {
			events |= unix.EPOLLIN | unix.EPOLLRDHUP // as a client has, so that nothing changes
		}
	case c == nil:
		events |= unix.EPOLLIN
	case !s.stop && !c.choked(l, conv.Side(s.side)):
		events |= unix.EPOLLIN
	}
	if c != nil && conv.Side(s.side) == conv.Client && !s.eof && (!s.half || events&unix.EPOLLIN != 0) {
		events |= unix.EPOLLRDHUP
	}
	return events
}

// choked says whether what a side sends would have nowhere to go.
func (c *client) choked(l *Loop, side conv.Side) bool {
	if side != conv.Client {
		return l.socks.at(c.socks[conv.Client]).short
	}
	for other := conv.Main; other < sides; other++ {
		if i := c.socks[other]; i != 0 && l.socks.at(i).short {
			return true
		}
	}
	return false
}

// touch has epoll told, at the end of the event, what is to be reported of a socket.
func (l *Loop) touch(i uint32, s *sock) {
	if !s.dirty {
		s.dirty = true
		l.dirty = append(l.dirty, i)
	}
}

// rearm tells epoll.
func (l *Loop) rearm(i uint32, s *sock) {
	c := l.clientOf(s)
	if gen := s.gen; c != nil && conv.Side(s.side) == conv.Client && s.half {
		if l.leaves(s); s.gen != gen { // it had left before the wait began
			return
		}
	}
	want := l.interest(s)
	if s.parked && want&unix.EPOLLIN == 0 {
		return
	}
	switch {
	case s.added && s.armed == want:
	case !s.added:
		s.added, s.parked = true, false
		l.epoll(unix.EPOLL_CTL_ADD, i, s, want)
	default:
		l.epoll(unix.EPOLL_CTL_MOD, i, s, want)
	}
	s.armed = want
}

// farewell gives a client that has ended the time to take what was said to it.
// Closing a socket with unread bytes in it resets the connection and can destroy
// the message on its way, so what the client still sends is read until it closes.
func (l *Loop) farewell(i uint32, s *sock) {
	l.flush()
	l.within(i, s, linger)
	if !s.short {
		l.shutdown(i, s)
		return
	}
	l.touch(i, s)
}

// within gives a socket that is no client's so long.
func (l *Loop) within(i uint32, s *sock, d time.Duration) {
	s.due = l.clock() + int64(d)
	l.remind(i, s)
}

// remind has the wheel look at a socket when it is due.
func (l *Loop) remind(i uint32, s *sock) {
	if s.wake == 0 || s.due < s.wake {
		s.wake = s.due
		l.wheel.add(entry{slot: i, gen: s.gen, socket: true, due: s.due})
	}
}

// lingered: the time of a farewell may be up, or that of a DISCARD ALL or of a guest.
func (l *Loop) lingered(i uint32, s *sock) {
	switch {
	case s.due > l.now:
		l.remind(i, s)
	case s.server != nil:
		l.lose(i, s)
	case s.guest != nil:
		l.stir(s.guest)
	default:
		l.closeSock(i, s)
	}
}

// shutdown says that nothing follows.
func (l *Loop) shutdown(i uint32, s *sock) {
	if s.tls != nil && !s.broken {
		l.sealed = l.sealed[:0]
		s.tls.Close(&l.sealed)
		l.transmit(s, l.sealed)
		if s.short { // it comes back here
			s.tls = nil
			l.touch(i, s)
			return
		}
	}
	if s.broken || s.eof || unix.Shutdown(int(s.fd), unix.SHUT_WR) != nil {
		l.closeSock(i, s)
		return
	}
	s.shut, s.stop = true, false
	l.touch(i, s)
}

// closeSock closes a socket and frees its slot.
func (l *Loop) closeSock(i uint32, s *sock) {
	if l.outTo == i {
		l.out, l.outTo = l.out[:0], 0
	}
	if s.fd >= 0 {
		unix.Close(int(s.fd)) // which takes it out of epoll: nobody has another
	}
	l.bufs.put(s.rest)
	l.bufs.put(s.late)
	wasClient := conv.Side(s.side) == conv.Client
	*s = sock{gen: s.gen + 1}
	l.socks.put(i)
	if wasClient {
		l.group.live.Done()
	}
}
