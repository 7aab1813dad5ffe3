package tlsmem

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Room is how much more than what was received Open may have to give out at once:
// a record of which the beginning came before.
const Room = 17 << 10

// Conn is a TLS connection whose bytes are moved by others. It is not safe for
// concurrent use.
type Conn struct {
	tls  *tls.Conn
	pipe *pipe
}

// Server and Client begin TLS over a connection, as crypto/tls does. prefix was
// read from it already.
func Server(conn net.Conn, cfg *tls.Config, prefix []byte) *tls.Conn {
	return tls.Server(&pipe{Conn: conn, in: prefix}, cfg)
}

// Client is the other side.
func Client(conn net.Conn, cfg *tls.Config) *tls.Conn { return tls.Client(&pipe{Conn: conn}, cfg) }

// Prepare is a configuration as these connections want it: records of full size
// from the first, for most of what is sent is small and the rest is bulk, and no
// tickets, which nobody here resumes from.
func Prepare(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.DynamicRecordSizingDisabled = true
	cfg.SessionTicketsDisabled = true
	return cfg
}

// Raw is the connection below TLS, or conn itself.
func Raw(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if p, ok := conn.(*pipe); ok {
		conn = p.Conn
	}
	return conn
}

// Take flips a connection that Server or Client made and that has shaken hands.
// The goroutine must not use it any more. What was received with the handshake
// waits inside: call Open before waiting for more.
func Take(conn *tls.Conn) (*Conn, error) {
	p, ok := conn.NetConn().(*pipe)
	if !ok {
		return nil, errors.New("TLS was not begun by this package")
	}
	p.Conn, p.flipped = nil, true
	return &Conn{conn, p}, nil
}

// Open takes records that were received, all of in, and writes what they held to
// plain, which has room for len(in) + Room bytes. It returns io.EOF behind the
// last. What TLS itself has to answer is appended to reply, also with an error.
func (c *Conn) Open(in, plain []byte, reply *[]byte) (n int, err error) {
	c.pipe.in, c.pipe.out = in, reply
	defer func() { c.pipe.in, c.pipe.out = nil, nil }()
	for n < len(plain) {
		k, err := c.tls.Read(plain[n:])
		n += k
		switch err {
		case nil:
		case os.ErrDeadlineExceeded: // there is no more; it does not stick
			return n, nil
		default:
			return n, err
		}
	}
	return n, io.ErrShortBuffer
}

// Seal appends records that hold b to out.
func (c *Conn) Seal(b []byte, out *[]byte) error {
	c.pipe.out = out
	defer func() { c.pipe.out = nil }()
	_, err := c.tls.Write(b)
	return err
}

// Close appends the notice that nothing follows to out.
func (c *Conn) Close(out *[]byte) {
	c.pipe.out = out
	defer func() { c.pipe.out = nil }()
	_ = c.tls.CloseWrite() // an error: it was broken before
}

// pipe is what a tls.Conn reads from and writes to.
type pipe struct {
	net.Conn // until it is flipped
	flipped  bool
	in       []byte
	out      *[]byte
}

func (p *pipe) Read(b []byte) (int, error) {
	if len(p.in) > 0 {
		n := copy(b, p.in)
		p.in = p.in[n:]
		return n, nil
	}
	if p.flipped {
		return 0, os.ErrDeadlineExceeded
	}
	return p.Conn.Read(b)
}

func (p *pipe) Write(b []byte) (int, error) {
	if !p.flipped {
		return p.Conn.Write(b)
	}
	if p.out == nil {
		return 0, net.ErrClosed
	}
	*p.out = append(*p.out, b...)
	return len(b), nil
}

// crypto/tls sets a deadline before its last word.

func (p *pipe) SetDeadline(t time.Time) error {
	if p.flipped {
		return nil
	}
	return p.Conn.SetDeadline(t)
}

func (p *pipe) SetWriteDeadline(t time.Time) error {
	if p.flipped {
		return nil
	}
	return p.Conn.SetWriteDeadline(t)
}
