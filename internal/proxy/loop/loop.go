package loop

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/wire"

	"golang.org/x/sys/unix"
)

// Loop is one thread's clients.
type Loop struct {
	group *Group
	index int
	load  atomic.Int64 // clients, for those who choose a loop

	told   atomic.Uint32   // the phase that all its clients know
	counts [3]atomic.Int64 // of its clients, by conv.Busy, during a switchover

	mu     sync.Mutex
	mail   []func(*Loop) // guarded by mu
	closed bool          // guarded by mu

	// All below is the loop's goroutine's.

	ep, bell int // bell is the eventfd that says that there is mail
	events   [128]unix.EpollEvent
	socks    slab[sock]
	clients  slab[client]
	wheel    wheel
	bufs     buffers
	fx       conv.Effects

	in     []byte // what was received last
	raw    []byte // the same of TLS records
	sealed []byte // TLS records to be sent
	out    []byte // small pieces for outTo, put together
	outTo  uint32

	said    bool     // something was sent to the client in the last step
	answers []answer // what was wanted and had at once, or not

	resume []uint32 // sockets whose held bytes are to be offered again
	dirty  []uint32 // sockets of which epoll may have to be told anew
	spare  []func(*Loop)
	moved  [ports]moved // not counted yet
	stats  []*Stats     // by label
	began  time.Time
	now    int64 // nanoseconds since began, as clock or the last wait saw it

	epoch    uint64      // the newest that was won
	phase    conv.Phase  // of a switchover
	draining bool        // clients end when nothing is owed to them
	ending   *wire.Error // clients end
}

const ports = 2

type moved struct{ from, to int64 }

func newLoop(g *Group) (*Loop, error) {
	l := &Loop{group: g, began: time.Now(), in: make([]byte, readSize), raw: make([]byte, sealedSize)}
	var err error
	if l.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.ep)
		return nil, err
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: 0}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, l.bell, &ev); err != nil {
		unix.Close(l.bell)
		unix.Close(l.ep)
		return nil, err
	}
	return l, nil
}

// run runs the loop until it is closed.
func (l *Loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread() // else the thread ends, and with it children that were started by it
	for {
		n, err := unix.EpollWait(l.ep, l.events[:], l.patience())
		l.clock()
		if err != nil && err != unix.EINTR {
			l.group.log.Error("epoll_wait failed", "error", err)
			panic(err) // a mistake of ours
		}
		mail := false
		for i := range max(n, 0) {
			ev := &l.events[i]
			if ev.Fd == 0 {
				mail = true
				continue
			}
			if s := l.socks.at(uint32(ev.Fd)); s.gen == uint32(ev.Pad) {
				l.ready(uint32(ev.Fd), s, ev.Events)
				l.settle()
			}
		}
		if l.wheel.count > 0 {
			l.wheel.advance(l.clock(), func(e entry) {
				l.expired(e)
				l.settle()
			})
		}
		if mail && !l.open() {
			return
		}
		l.tell()
	}
}

// patience is how long to wait for something to happen, in milliseconds.
func (l *Loop) patience() int {
	if l.wheel.count == 0 {
		return -1
	}
	d := l.wheel.wait(l.clock())
	return int((d + time.Millisecond - 1) / time.Millisecond)
}

func (l *Loop) clock() int64 {
	l.now = int64(time.Since(l.began))
	return l.now
}

// post leaves word for the loop. It returns false when the loop is closed.
func (l *Loop) post(f func(*Loop)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.mail = append(l.mail, f); len(l.mail) == 1 {
		l.ring()
	}
	return true
}

func (l *Loop) ring() {
	one := [8]byte{1}
	unix.Write(l.bell, one[:]) // cannot fail: the counter is far from full
}

// open reads the mail. It returns false when the loop has been closed.
func (l *Loop) open() bool {
	var count [8]byte
	unix.Read(l.bell, count[:]) // before the mail is taken, or a ring would be lost
	l.mu.Lock()
	mail, closed := l.mail, l.closed
	l.mail = l.spare[:0]
	l.mu.Unlock()
	for _, f := range mail {
		f(l)
		l.settle()
	}
	clear(mail)
	l.spare = mail
	return !closed
}

// tell adds to the counters of all.
func (l *Loop) tell() {
	for port := range l.moved {
		if m := &l.moved[port]; *m != (moved{}) {
			l.group.traffic[port].From.Add(m.from)
			l.group.traffic[port].To.Add(m.to)
			*m = moved{}
		}
	}
}
