package loop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"

	"manada/internal/proxy/tlsmem"

	"golang.org/x/sys/unix"
)

// Socket is a connection that was taken from the goroutine that opened it. It is
// given to a loop, or closed.
type Socket struct {
	fd    int32
	tcp   bool
	tls   *tlsmem.Conn
	rest  []byte // read before it was taken
	guest *Guest // who is in a loop already; the rest is nothing
}

// Take takes a connection, with what was read from it and not dealt with. conn
// must not be used any more, whatever Take returns. TLS has to have been begun by
// tlsmem.
func Take(conn net.Conn, rest []byte) (*Socket, error) {
	raw := tlsmem.Raw(conn)
	if q, ok := raw.(*Guest); ok {
		if q.conn == nil {
			return &Socket{guest: q}, nil
		}
		raw = q.conn
		if rest = append(rest, q.in...); len(q.in) > 0 && conn != net.Conn(q) {
			raw.Close()
			return nil, errors.New("TLS has not read all that was received") // it has, unless the client cheats
		}
	}
	defer raw.Close()
	s := &Socket{fd: -1, rest: rest}
	if t, ok := conn.(*tls.Conn); ok {
		var err error
		if s.tls, err = tlsmem.Take(t); err != nil {
			return nil, err
		}
	}
	sc, ok := raw.(syscall.Conn)
	if !ok {
		return nil, errors.New("the connection has no file descriptor")
	}
	_, s.tcp = raw.(*net.TCPConn)
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take a connection over: %w", err)
	}
	if s.fd, err = duplicate(rc); err != nil {
		return nil, fmt.Errorf("take a connection over: %w", err)
	}
	return s, nil
}

// Close closes a socket that no loop was given.
func (s *Socket) Close() {
	if s.guest != nil {
		s.guest.Close()
		return
	}
	unix.Close(int(s.fd))
}

// sock is a socket in a loop, a slot.
type sock struct {
	gen    uint32
	fd     int32
	client uint32 // its slot; 0: nobody's: a server that waits for one, or about to be closed
	side   uint8  // a conv.Side
	armed  uint32 // what epoll was told to report

	stop   bool // conv does not want to read from it
	short  bool // it did not take all it was sent: late waits
	over   bool // TLS said, before it was read, that nothing follows
	eof    bool // its end was read
	half   bool // epoll says that the peer sends no more
	parked bool // hung up while it was not read; epoll would report it over and over
	broken bool // nothing can be sent any more
	added  bool // to epoll
	tcp    bool
	shut   bool // we have said that nothing follows
	again  bool // see offer
	dirty  bool // in Loop.dirty

	listens  bool    // for clients
	clearing bool    // the server has been told DISCARD ALL
	guest    *Guest  // who logs in
	server   *Server // that waits for a client

	rest []byte // what conv did not take
	late []byte // what the socket did not take, from sent on
	sent int
	tls  *tlsmem.Conn
	due  int64 // when it is closed whatever it has to say, see linger and clear
	wake int64 // when the wheel looks at it; 0: not
}
