package pool

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"manada/internal/proxy/tlsmem"
	"manada/internal/proxy/wire"
)

// Dialer connects to PostgreSQL. Its exported fields are not changed
// after first use.
type Dialer struct {
	// TLS is used for every connection except those that PlainLocal exempts.
	// ServerName is filled in from the address when it is empty.
	TLS *tls.Config
	// PlainLocal allows connections without TLS to loopback addresses, and to unix
	// sockets whoever listens there; with TLS == nil these are the only ones possible.
	// Else a unix socket has to be one of this user's own.
	PlainLocal bool
	// ConnectTimeout bounds the connection of the socket, LoginTimeout
	// everything from the first byte to ReadyForQuery.
	ConnectTimeout time.Duration
	LoginTimeout   time.Duration
	// MaxLogins bounds the log-ins under way at one node; 0: 32. More of them at
	// once, as after a failover, only overrun the postmaster's queue and time out
	// together.
	MaxLogins int

	ahead  ahead
	within atomic.Int64 // what SetConnectTimeout said last, in nanoseconds; 0: nothing
	mu     sync.Mutex
	logins map[string]chan struct{}
}

// SetConnectTimeout changes ConnectTimeout while the dialer is used.
func (d *Dialer) SetConnectTimeout(t time.Duration) { d.within.Store(int64(t)) }

// turn waits for one of the node's log-ins to be free, for LoginTimeout at
// most. The caller gives it back.
func (d *Dialer) turn(ctx context.Context, addr string) (done func(), err error) {
	d.mu.Lock()
	slots := d.logins[addr]
	if slots == nil {
		if d.logins == nil {
			d.logins = map[string]chan struct{}{}
		}
		n := d.MaxLogins
		if n == 0 {
			n = 32
		}
		slots = make(chan struct{}, n)
		d.logins[addr] = slots
	}
	d.mu.Unlock()
	t := time.NewTimer(d.LoginTimeout)
	defer t.Stop()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-t.C:
		return nil, fmt.Errorf("log in to postgres at %s: %d other log-ins are under way", addr, cap(slots))
	case <-ctx.Done():
		return nil, fmt.Errorf("log in to postgres at %s: %w", addr, context.Cause(ctx))
	}
}

// ErrPlain means that a node could only be reached without encryption.
var ErrPlain = errors.New("no TLS configuration, and plain connections are only allowed on this machine")

// Reach says whether something at addr accepts a connection.
func (d *Dialer) Reach(ctx context.Context, addr string) error {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	return conn.Close()
}

// keepAlive finds a dead host behind an idle session in about 5 s. Data on its
// way is watched by the loops (loop.Group.EndLost). TCP_USER_TIMEOUT would do both, but it also
// ends a connection whose peer is alive and does not read for a while, as a
// backend does that waits for a lock in the middle of a COPY.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}

// dial connects and negotiates TLS. The returned connection has a deadline of
// LoginTimeout from now.
func (d *Dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	network, host := "tcp", ""
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	} else {
		var err error
		if host, _, err = net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("address of postgres %q: %w", addr, err)
		}
	}
	plain := network == "unix" || d.PlainLocal && isLoopback(host)
	if !plain && d.TLS == nil {
		return nil, fmt.Errorf("connect to postgres at %s: %w", addr, ErrPlain)
	}
	nd := net.Dialer{Timeout: cmp.Or(time.Duration(d.within.Load()), d.ConnectTimeout), KeepAliveConfig: keepAlive}
	conn, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	if u, ok := conn.(*net.UnixConn); ok && !d.PlainLocal {
		if err := ours(u); err != nil {
			conn.Close()
			return nil, fmt.Errorf("connect to postgres at %s: %w", addr, err)
		}
	}
	if err := conn.SetDeadline(time.Now().Add(d.LoginTimeout)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to postgres at %s: %w", addr, err)
	}
	if plain {
		return conn, nil
	}
	secure, err := d.startTLS(ctx, conn, host)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start TLS with postgres at %s: %w", addr, err)
	}
	return secure, nil
}

// ErrStranger means that somebody else listens where PostgreSQL should.
var ErrStranger = errors.New("whoever listens there is not this user's PostgreSQL: remove the socket and restart the host")

// ours refuses a socket on which another user of the operating system listens.
func ours(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return e
	}
	if err == nil && int(cred.Uid) != os.Geteuid() {
		err = ErrStranger
	}
	return err
}

func (d *Dialer) startTLS(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(wire.AppendSSLRequest(nil)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errors.New("it does not accept TLS (set ssl = on)")
	}
	cfg := tlsmem.Prepare(d.TLS)
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	secure := tlsmem.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// ErrUnread means that a request was sent of which nobody knows whether PostgreSQL has
// read it: it may do so any time.
var ErrUnread = errors.New("PostgreSQL has not read it yet")

// Cancel asks the PostgreSQL at addr to cancel what a backend does, and waits
// until it has read the request: PostgreSQL then closes the connection.
func (d *Dialer) Cancel(ctx context.Context, addr string, pid uint32, key []byte) error {
	conn, err := d.dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(wire.AppendCancel(nil, pid, key)); err != nil {
		return fmt.Errorf("send cancel request to %s: %w: %w", addr, ErrUnread, err)
	}
	var late net.Error
	if _, err := io.Copy(io.Discard, conn); errors.As(err, &late) && late.Timeout() {
		return fmt.Errorf("send cancel request to %s: %w", addr, ErrUnread)
	}
	return nil // a connection that broke was PostgreSQL's to close
}
