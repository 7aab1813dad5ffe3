package loop

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// door is where clients come in.
type door struct {
	name  string
	serve func(*Guest)
}

// keepAlive is after how long a client that says nothing is asked whether it is there.
const keepAlive = 30 * time.Second

// Listen greets the clients of a listener, which is not to be used beside, until stop
// is called. serve is the code of each, see Guest. The listener is closed by others.
func (g *Group) Listen(from *net.TCPListener, serve func(*Guest)) (stop func(), err error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return nil, err
	}
	where := make([]func(), 0, len(g.loops))
	stop = func() {
		for _, close := range where {
			close()
		}
	}
	for _, l := range g.loops {
		fd, err := duplicate(raw)
		if err == nil {
			err = inherited(int(fd))
		}
		if err != nil {
			stop()
			return nil, err
		}
		slot := uint32(0)
		l.post(func(l *Loop) { slot = l.listen(fd, &door{from.Addr().String(), serve}) })
		where = append(where, sync.OnceFunc(func() {
			done := make(chan struct{})
			if l.post(func(l *Loop) { l.unlisten(slot); close(done) }) {
				<-done
			}
		}))
	}
	return stop, nil
}

// duplicate is another descriptor of the same socket.
func duplicate(raw syscall.RawConn) (fd int32, err error) {
	failed := raw.Control(func(from uintptr) {
		var n int
		n, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0)
		fd = int32(n)
	})
	if failed != nil {
		err = failed
	}
	return fd, err
}

// inherited sets what Linux gives to every socket that a listener accepts.
func inherited(fd int) error {
	for _, o := range []struct{ level, option, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive / time.Second)},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) listen(fd int32, d *door) uint32 {
	i, s := l.socks.get()
	s.fd, s.listens = fd, true
	if l.doors == nil {
		l.doors = map[uint32]*door{}
	}
	l.doors[i] = d
	l.openDoor(i, s)
	return i
}

// openDoor has epoll report clients to one of the loops.
func (l *Loop) openDoor(i uint32, s *sock) {
	l.epoll(unix.EPOLL_CTL_ADD, i, s, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
	s.added = true
}

func (l *Loop) unlisten(i uint32) {
	delete(l.doors, i)
	s := l.socks.at(i)
	if s.added { // others have the socket too: closing it is not enough
		l.epoll(unix.EPOLL_CTL_DEL, i, s, 0)
	}
	unix.Close(int(s.fd))
	*s = sock{gen: s.gen + 1}
	l.socks.put(i)
}

// accept lets one client in, to the loop with the fewest.
func (l *Loop) accept(i uint32, s *sock) {
	d := l.doors[i]
	fd, addr, errno := accept(s.fd)
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED:
		return // another loop was faster, or the client has gone already
	default: // out of files: others may go on
		l.group.log.Error("accept failed", "port", d.name, "error", errno)
		l.epoll(unix.EPOLL_CTL_DEL, i, s, 0)
		s.added = false
		gen := s.gen
		time.AfterFunc(50*time.Millisecond, func() {
			l.post(func(l *Loop) {
				if s := l.socks.at(i); s.gen == gen {
					l.openDoor(i, s)
				}
			})
		})
		return
	}
	best := l.group.emptiest()
	best.load.Add(1)
	l.group.live.Add(1)
	if best == l {
		l.greet(fd, addr, d.serve)
	} else if !best.post(func(l *Loop) { l.greet(fd, addr, d.serve) }) {
		unix.Close(int(fd))
		best.load.Add(-1)
		l.group.live.Done()
	}
}

// Hurry ends what guests wait for that are there, as if their time was up.
func (g *Group) Hurry() {
	g.each(func(l *Loop) {
		l.socks.each(func(_ uint32, s *sock) {
			if s.guest != nil {
				s.due = 1
				l.stir(s.guest)
				l.settle()
			}
		})
	})
}
