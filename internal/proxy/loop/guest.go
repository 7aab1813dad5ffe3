package loop

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Guest is a client at its log-in: a connection for code that reads and writes as if
// it could wait. The code runs on the loop's thread and in turn with its other work:
// a Read without anything to read returns to the loop, which goes on with the code
// when something has come. So a log-in costs no goroutine that sleeps and is woken up.
//
// What may take longer is done by Beside. Code that Leaves the loop goes on in a
// goroutine, where it may block. Only Close may be called by others than the code.
type Guest struct {
	loop *Loop
	slot uint32
	gen  uint32
	fd   int32
	addr net.Addr
	lane *lane // where the code runs

	in      []byte // received, and not read
	err     error  // of reading, once in was read
	reading bool   // it waits for something to read
	leaving bool
	due     time.Time
	joins   *arriving // it is a client when the code has ended

	closed atomic.Bool
	mu     sync.Mutex
	conn   net.Conn // when it has left; guarded by mu for others than the code
}

// arriving is what Serve was given for a guest.
type arriving struct {
	handle  *Client
	arrival Arrival
}

// NewGuest is one that is in no loop, of a connection to code that blocks.
func NewGuest(conn net.Conn) *Guest { return &Guest{conn: conn} }

// Read implements net.Conn.
func (q *Guest) Read(b []byte) (int, error) {
	for len(q.in) == 0 {
		if q.conn != nil {
			return q.conn.Read(b)
		}
		if err := q.over(); err != nil {
			return 0, err
		}
		s := q.sock()
		if s.stop {
			s.stop = false
			q.loop.touch(q.slot, s)
		}
		q.reading = true
		q.lane.yield(false)
		q.reading = false
	}
	n := copy(b, q.in)
	q.in = q.in[n:]
	return n, nil
}

// over says why nothing can be read or written in the loop any more.
func (q *Guest) over() error {
	switch {
	case q.closed.Load():
		return net.ErrClosed
	case q.err != nil:
		return q.err
	}
	if due := q.sock().due; due != 0 && due <= q.loop.clock() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (q *Guest) sock() *sock { return q.loop.socks.at(q.slot) }

// Write implements net.Conn. In the loop it does not wait: what the socket does not
// take is sent when it does.
func (q *Guest) Write(b []byte) (int, error) {
	if q.conn != nil {
		return q.conn.Write(b)
	}
	if q.closed.Load() {
		return 0, net.ErrClosed
	}
	s := q.sock()
	q.loop.transmit(s, b)
	if s.broken {
		return 0, syscall.EPIPE
	}
	if s.short {
		q.loop.touch(q.slot, s)
	}
	return len(b), nil
}

// CloseWrite says that nothing follows.
func (q *Guest) CloseWrite() error {
	if c, ok := q.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	if q.sock().short {
		return errors.New("something waits to be sent")
	}
	return unix.Shutdown(int(q.fd), unix.SHUT_WR)
}

// Close implements net.Conn. The code's next Read or Write fails. The connection is
// closed when the code has ended.
func (q *Guest) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Swap(true) {
		return nil
	}
	if q.conn != nil {
		return q.conn.Close()
	}
	q.loop.post(func(l *Loop) { l.stir(q) })
	return nil
}

// Until begins something and returns when done was called, by whomever.
func (q *Guest) Until(begin func(done func())) {
	if q.conn != nil {
		over := make(chan struct{})
		begin(func() { close(over) })
		<-over
		return
	}
	over := false
	begin(func() {
		q.loop.post(func(l *Loop) {
			over = true
			l.goOn(q)
		})
	})
	for !over {
		q.lane.yield(false)
	}
}

// Beside does what may take a while in a goroutine, and returns when it is done.
func (q *Guest) Beside(f func()) {
	if q.conn != nil {
		f()
		return
	}
	q.Until(func(done func()) {
		go func() {
			defer done()
			f()
		}()
	})
}

// Leave takes the code out of the loop. What follows may block.
func (q *Guest) Leave() error {
	if q.conn != nil {
		return nil
	}
	late := append([]byte(nil), q.sock().late[q.sock().sent:]...)
	q.leaving = true
	q.lane.yield(false)
	f := os.NewFile(uintptr(q.fd), "client")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		q.closed.Store(true)
		return err
	}
	q.mu.Lock()
	q.conn = conn
	closed := q.closed.Load()
	q.mu.Unlock()
	if closed {
		conn.Close()
		return net.ErrClosed
	}
	if len(late) > 0 {
		_, err = conn.Write(late)
	}
	return errors.Join(err, conn.SetDeadline(q.due))
}

// Interrupt ends a Read of a guest who has left the loop. See also Group.Hurry.
func (q *Guest) Interrupt() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.conn != nil {
		q.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// SetDeadline implements net.Conn.
func (q *Guest) SetDeadline(t time.Time) error {
	if q.conn != nil { // any goroutine's
		return q.conn.SetDeadline(t)
	}
	q.due = t
	s := q.sock()
	if t.IsZero() {
		s.due = 0
		return nil
	}
	q.loop.within(q.slot, s, time.Until(t))
	return nil
}

// SetReadDeadline and SetWriteDeadline implement net.Conn.
func (q *Guest) SetReadDeadline(t time.Time) error { return q.SetDeadline(t) }

// SetWriteDeadline is SetDeadline.
func (q *Guest) SetWriteDeadline(t time.Time) error { return q.SetDeadline(t) }

// LocalAddr implements net.Conn.
func (q *Guest) LocalAddr() net.Addr {
	if q.conn != nil {
		return q.conn.LocalAddr()
	}
	return spelled(local(q.fd).String())
}

// RemoteAddr implements net.Conn.
func (q *Guest) RemoteAddr() net.Addr { return q.addr }

// Gone says whether the client has closed its connection, without reading.
func (q *Guest) Gone() bool {
	if q.conn == nil {
		return peeksEnd(int(q.fd))
	}
	c, ok := q.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	over := false
	err = raw.Control(func(fd uintptr) { over = peeksEnd(int(fd)) })
	return err != nil || over
}

func peeksEnd(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n == 0 && err == nil || err == unix.ECONNRESET
}
