package loop

import (
	"crypto/tls"
	"io"
	"iter"
	"net"
	"net/netip"

	"manada/internal/proxy/conv"

	"golang.org/x/sys/unix"
)

// lane is a stack on which the code of one guest after the other runs: a new one
// would have to grow every time.
type lane struct {
	guest *Guest
	serve func(*Guest)
	next  func() (ended, ok bool) // goes on with the code, until it waits or has ended
	yield func(ended bool) bool   // returns from it
}

// spareLanes is how many wait for a guest at most.
const spareLanes = 64

func (l *Loop) lane() *lane {
	if n := len(l.lanes); n > 0 {
		a := l.lanes[n-1]
		l.lanes = l.lanes[:n-1]
		return a
	}
	a := &lane{}
	a.next, _ = iter.Pull(func(yield func(bool) bool) {
		a.yield = yield
		for a.guest != nil {
			a.serve(a.guest)
			yield(true)
		}
	})
	return a
}

// greet lets the code of a guest begin, who is one of group.live and of load, as
// clients are.
func (l *Loop) greet(fd int32, addr netip.AddrPort, serve func(*Guest)) {
	l.begin(fd, conv.Client, spelled(addr.String()), serve)
}

func (l *Loop) begin(fd int32, side conv.Side, addr net.Addr, serve func(*Guest)) {
	i, s := l.socks.get()
	s.fd, s.side, s.tcp = fd, uint8(side), true
	q := &Guest{loop: l, slot: i, gen: s.gen, fd: fd, addr: addr, lane: l.lane()}
	q.lane.guest, q.lane.serve = q, serve
	s.guest = q
	l.touch(i, s)
	l.goOn(q)
}

// goOn lets the code of a guest go on until it waits, or has ended.
func (l *Loop) goOn(q *Guest) {
	ended, _ := q.lane.next()
	s := l.socks.at(q.slot)
	switch {
	case !ended && !q.leaving:
		if len(q.in) > 0 {
			q.in = append([]byte(nil), q.in...) // what it was in is the loop's
		}
		return
	case !ended:
		q.in = append([]byte(nil), q.in...)
		l.letGo(q, s)
		return
	case q.joins != nil:
		l.adopt(q.joins.handle, q.joins.arrival)
	default:
		if conv.Side(s.side) == conv.Client {
			l.load.Add(-1)
		}
		l.closeSock(q.slot, s)
	}
	a := q.lane
	q.lane, a.guest = nil, nil
	if len(l.lanes) < spareLanes {
		l.lanes = append(l.lanes, a)
	} else {
		a.next()
	}
}

// join makes a guest's socket that of a client.
func (l *Loop) join(client uint32, q *Guest) uint32 {
	s := q.sock()
	s.client, s.guest, s.due, s.stop = client, nil, 0, false
	if len(q.in) > 0 {
		s.rest = append(l.bufs.get(len(q.in)), q.in...)
	}
	l.resume = append(l.resume, q.slot)
	l.touch(q.slot, s)
	return q.slot
}

// letGo takes a guest who leaves out of the loop.
func (l *Loop) letGo(q *Guest, s *sock) {
	if s.added {
		l.epoll(unix.EPOLL_CTL_DEL, q.slot, s, 0)
	}
	l.bufs.put(s.late)
	*s = sock{gen: s.gen + 1}
	l.socks.put(q.slot)
	l.load.Add(-1)
	go func() {
		defer l.group.live.Done()
		q.lane.next() // to the end
		q.lane.guest = nil
		q.lane.next()
	}()
}

// guestSays reads for a guest.
func (l *Loop) guestSays(i uint32, s *sock, events uint32) {
	q := s.guest
	if !q.reading { // it has said more than it was asked for, or has left
		s.stop = true
		l.touch(i, s)
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			l.deafen(i, s)
		}
		return
	}
	n, errno := recv(s.fd, l.in)
	switch {
	case errno == unix.EAGAIN:
		return
	case errno != 0:
		q.err = errno
	case n == 0:
		q.err = io.EOF
	default:
		q.in = l.in[:n]
	}
	l.goOn(q)
}

// stir lets the code of a guest look again who waits for something to read.
func (l *Loop) stir(q *Guest) {
	if s := l.socks.at(q.slot); s.guest == q && q.reading {
		l.goOn(q)
	}
}

// Host lets code use a connection of the proxy's own, in the loop with the fewest
// clients. Where TLS is spoken it runs here instead. Host returns when the code has ended.
// It must have before Close.
func (g *Group) Host(conn net.Conn, code func(*Guest)) error {
	if _, ok := conn.(*tls.Conn); ok {
		code(NewGuest(conn))
		return nil
	}
	s, err := Take(conn, nil)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	if !g.emptiest().post(func(l *Loop) {
		l.begin(s.fd, conv.Main, conn.RemoteAddr(), func(q *Guest) {
			defer close(over)
			code(q)
		})
	}) {
		s.Close()
		return net.ErrClosed
	}
	<-over
	return nil
}
