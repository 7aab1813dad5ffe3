package session

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"syscall"

	"manada/internal/proxy/wire"
)

// bufferSize is what one read takes at most. It must exceed what a scan may
// hold back (wire.MaxHold), or a read would have no room.
const bufferSize = 32 << 10

const _ = uint(bufferSize - wire.MaxHold - 1)

type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// source reads from a connection into a pooled buffer. On a plain socket it
// takes the buffer only once there is something to read and gives it back when
// everything was consumed, so an idle session costs two stacks and no buffers.
// A TLS connection has to keep its buffer while it waits.
type source struct {
	conn  net.Conn
	raw   syscall.RawConn // nil: read through conn
	ready func(fd uintptr) bool

	buf   *buffer
	n     int // bytes held in buf
	fresh int // of these, preloaded and not looked at yet

	got int // result of ready
	err error
}

func newSource(conn net.Conn) *source {
	s := &source{conn: conn}
	switch c := conn.(type) {
	case *net.TCPConn:
		s.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		s.raw, _ = c.SyscallConn()
	}
	s.ready = s.tryRead // bound once: no allocation per read
	return s
}

// tryRead is called when the socket may be readable; false waits for it.
func (s *source) tryRead(fd uintptr) bool {
	if s.buf == nil {
		s.buf = buffers.Get().(*buffer)
	}
	for {
		s.got, s.err = syscall.Read(int(fd), s.buf[s.n:])
		switch s.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if s.n == 0 {
				s.release()
			}
			return false
		}
		return true
	}
}

// fill reads once, waiting as long as it takes.
func (s *source) fill() error {
	if s.raw == nil {
		if s.buf == nil {
			s.buf = buffers.Get().(*buffer)
		}
		n, err := s.conn.Read(s.buf[s.n:])
		s.n += n
		return err
	}
	s.got, s.err = 0, nil
	if err := s.raw.Read(s.ready); err != nil {
		return err // closed, or past the deadline
	}
	switch {
	case s.err != nil:
		return s.err
	case s.got <= 0:
		return io.EOF
	}
	s.n += s.got
	return nil
}

// preload puts bytes in front that were read elsewhere.
func (s *source) preload(b []byte) {
	if len(b) == 0 {
		return
	}
	s.buf = buffers.Get().(*buffer)
	s.n = copy(s.buf[:], b)
	s.fresh = s.n
}

// held is what was read and not consumed.
func (s *source) held() []byte {
	if s.buf == nil {
		return nil
	}
	return s.buf[:s.n]
}

// consume drops the first n bytes.
func (s *source) consume(n int) {
	if n < s.n {
		copy(s.buf[:], s.buf[n:s.n])
	}
	s.n -= n
	if s.n == 0 && s.raw != nil {
		s.release()
	}
}

// cut takes n bytes out from behind the first at.
func (s *source) cut(at, n int) {
	copy(s.buf[at:], s.buf[at+n:s.n])
	s.n -= n
}

// release gives the buffer back.
func (s *source) release() {
	if s.buf != nil {
		buffers.Put(s.buf)
		s.buf = nil
	}
	s.n = 0
}

// gone says whether the client has closed its connection, without reading.
func gone(conn net.Conn) bool {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if p, ok := conn.(*prefixed); ok {
		conn = p.Conn
	}
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = n == 0 && err == nil || err == syscall.ECONNRESET
	})
	return err != nil || closed
}
