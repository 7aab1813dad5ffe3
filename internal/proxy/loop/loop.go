package loop

import (
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
	full   atomic.Bool   // there is mail, or the loop is closed
	asleep atomic.Bool   // it has to be rung for that

	// All below is the loop's goroutine's.

	ep, bell int // bell is the eventfd that says that there is mail
	events   [128]unix.EpollEvent
	socks    slab[sock]
	clients  slab[client]
	doors    map[uint32]*door // of sockets that listen
	lanes    []*lane          // that wait for a guest
	wheel    wheel
	bufs     buffers
	fx       conv.Effects

	in     []byte // what was received last
	raw    []byte // the same of TLS records
	sealed []byte // TLS records to be sent
	out    []byte // small pieces for outTo, put together
	outTo  uint32

	hand    *Server  // is offered to the client in the step under way, and not taken
	said    bool     // something was sent to the client in the last step
	answers []answer // what was wanted and had at once, or not

	resume  []uint32 // sockets whose held bytes are to be offered again
	resumed int      // so many of them were
	dirty   []uint32 // sockets of which epoll may have to be told anew
	spare   []func(*Loop)
	moved   [ports]moved // not counted yet
	stats   []*Stats     // by label
	began   time.Time
	now     int64 // nanoseconds since began, as clock or the last wait saw it

	epoch    uint64      // the newest that was won
	leader   string      // the node that leads
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
	for {
		n, err := l.await()
		l.clock()
		if err != nil {
			l.group.log.Error("epoll_wait failed", "error", err)
			panic(err) // a mistake of ours
		}
		for i := range n {
			ev := &l.events[i]
			if ev.Fd == 0 {
				var count [8]byte
				unix.Read(l.bell, count[:])
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
		if l.full.Load() && !l.open() {
			return
		}
		l.tell()
	}
}

// brief is for how long a wait is not told to Go's scheduler, in milliseconds: as long as
// that lets a goroutine run before it interrupts it, for what a wait costs that is told
// is paid by every log-in and by every client that is alone.
const brief = 9

// await waits for something to happen.
//
// Go's scheduler looks every 20 microseconds for threads that are in a system call,
// and takes their processor away; which costs both sides more than a wait between two
// transactions lasts. So the beginning of a wait is not told to it, where the
// others have a processor left. Whoever wants to stop the thread interrupts it by a
// signal: then it returns without events.
func (l *Loop) await() (int, error) {
	patience := l.patience()
	l.asleep.Store(true)
	defer l.asleep.Store(false)
	if l.full.Load() {
		patience = 0
	}
	if patience == 0 || l.group.others {
		short := brief
		if patience >= 0 {
			short = min(brief, patience)
		}
		n, errno := epollWait(l.ep, l.events[:], short)
		if errno == unix.EINTR || errno == 0 && (n > 0 || short == patience) {
			return n, nil
		}
	}
	n, err := unix.EpollWait(l.ep, l.events[:], patience)
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
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
	l.mail = append(l.mail, f)
	l.ring()
	return true
}

// ring tells the loop that there is mail, or that it is closed.
func (l *Loop) ring() {
	l.full.Store(true)
	if !l.asleep.Swap(false) {
		return
	}
	one := [8]byte{1}
	unix.Write(l.bell, one[:]) // cannot fail: the counter is far from full
}

// open reads the mail. It returns false when the loop has been closed.
func (l *Loop) open() bool {
	l.mu.Lock()
	l.full.Store(false)
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
