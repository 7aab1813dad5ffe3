package proxy_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy/wire"
)

// stall is a cable to PostgreSQL that can be cut or left dangling.
type stall struct {
	addr string
	to   string

	mu        sync.Mutex
	seen      []byte // from the proxy
	conns     []net.Conn
	swallowed bool
}

func newStall(t *testing.T, to string) *stall {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stall{addr: l.Addr().String(), to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.add(c)
			wg.Go(func() { s.serve(c, &wg) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.closeAll()
		wg.Wait()
	})
	return s
}

func (s *stall) add(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
}

func (s *stall) serve(c net.Conn, wg *sync.WaitGroup) {
	d, err := net.Dial("tcp", s.to)
	if err != nil {
		c.Close()
		return
	}
	s.mu.Lock()
	s.conns = append(s.conns, d)
	s.mu.Unlock()
	wg.Go(func() { s.copy(c, d, false) })
	s.copy(d, c, true)
}

// copy goes on reading when everything is swallowed, as a cable does.
func (s *stall) copy(dst, src net.Conn, record bool) {
	defer dst.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		swallow := s.swallowed
		if record {
			s.seen = append(s.seen, buf[:n]...)
		}
		s.mu.Unlock()
		if !swallow {
			dst.Write(buf[:n])
		}
	}
}

func (s *stall) swallow() { s.mu.Lock(); s.swallowed = true; s.mu.Unlock() }

// saw counts how often the proxy has sent a text.
func (s *stall) saw(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Count(s.seen, []byte(text))
}

func (s *stall) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

// lastWords reads messages until the error that ends the connection.
func lastWords(t *testing.T, conn net.Conn) *wire.Error {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		typ, body, err := wire.ReadMessage(conn, 1<<20)
		if err != nil {
			t.Errorf("no last words: %v", err)
			return &wire.Error{}
		}
		if typ == wire.TypeError {
			return wire.ParseError(body)
		}
	}
}
