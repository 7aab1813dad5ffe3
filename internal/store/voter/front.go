package voter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// handshakeTimeout bounds what a caller may take to say who it is.
	handshakeTimeout = 5 * time.Second
	// takeTimeout ends a connection whose other end takes no bytes for that
	// long, as etcd's own listener does.
	takeTimeout = 5 * time.Second
)

// front stands before one of etcd's ports: it speaks TLS with whoever calls,
// lets in whom its configuration admits, and passes the bytes on to etcd, which
// listens on a unix socket that only this account can reach. etcd's own TLS
// knows no list of certificates that changes while it runs.
type front struct {
	listener net.Listener
	tls      *tls.Config
	socket   string
	log      *slog.Logger

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

func openFront(addr, socket string, c *Config) (*front, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if c.Watch != nil {
		l = c.Watch(l)
	}
	f := &front{listener: l, tls: c.ServerTLS, socket: socket, log: c.Log, conns: map[net.Conn]struct{}{}}
	f.wg.Go(f.serve)
	return f, nil
}

func (f *front) serve() {
	for {
		conn, err := f.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, say
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !f.enter(conn) {
			return
		}
		f.wg.Go(func() {
			defer f.leave(conn)
			if err := f.pass(conn); err != nil {
				f.log.Debug("the store did not let a caller in", "remote", conn.RemoteAddr().String(), "err", err)
			}
		})
	}
}

func (f *front) enter(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = c.Close()
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *front) leave(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	_ = c.Close()
}

// pass speaks TLS with the caller and then copies in both directions until one
// side ends. The error says why it was not let in.
func (f *front) pass(raw net.Conn) error {
	outer := tls.Server(raw, f.tls)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout) // detached: close ends it, too
	err := outer.HandshakeContext(ctx)
	cancel()
	if err != nil {
		return err
	}
	inner, err := net.Dial("unix", f.socket)
	if err != nil {
		return fmt.Errorf("etcd does not listen: %w", err)
	}
	done := make(chan struct{}, 2)
	go func() { forward(inner, outer); done <- struct{}{} }()
	go func() { forward(outer, inner); done <- struct{}{} }()
	<-done
	// Neither protocol of etcd uses half a connection.
	_ = inner.Close()
	_ = raw.Close()
	<-done
	return nil
}

// forward copies what arrives until either side ends or takes nothing any more.
func forward(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(takeTimeout))
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// close ends the listener and every connection, and waits.
func (f *front) close() {
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	_ = f.listener.Close()
	f.wg.Wait()
}

// fronts open and end together.
type fronts []*front

func (c *Config) openFronts() (fs fronts, err error) {
	for _, p := range []struct{ addr, socket string }{{c.ListenClient, clientSocket}, {c.ListenPeer, peerSocket}} {
		f, err := openFront(p.addr, c.socket(p.socket), c)
		if err != nil {
			fs.close()
			return nil, err
		}
		fs = append(fs, f)
	}
	return fs, nil
}

func (fs fronts) close() {
	for _, f := range fs {
		f.close()
	}
}
