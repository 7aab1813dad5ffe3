package pool

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// aheadFor is how long a connection that was made ahead is kept: less than
// PostgreSQL waits for a log-in (authentication_timeout).
const aheadFor = 10 * time.Second

// ahead are connections on which nobody has logged in yet, by address. The zero
// value is ready.
type ahead struct {
	mu    sync.Mutex
	conns map[string][]*early
}

type early struct {
	conn net.Conn // nil while it is being made
	// end keeps it from being closed, when that is not too late.
	end func() bool
}

// Ahead connects to a node so that as many log-ins there, in the next seconds, find
// a connection whose TLS is negotiated; those that nobody takes are closed then, or
// when ctx ends. What a session is, of a standby or of a primary, PostgreSQL decides
// when it logs in. A connection that has died meanwhile costs its log-in another.
func (d *Dialer) Ahead(ctx context.Context, addr string, n int) {
	a := &d.ahead
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns == nil {
		a.conns = map[string][]*early{}
	}
	for range n - len(a.conns[addr]) {
		timed, cancel := context.WithTimeout(ctx, aheadFor)
		e := &early{}
		stop := context.AfterFunc(timed, func() {
			if c := a.remove(addr, e); c != nil {
				c.Close()
			}
		})
		e.end = func() bool {
			defer cancel()
			return stop()
		}
		a.conns[addr] = append(a.conns[addr], e)
		go func() {
			conn, err := d.dial(timed, addr)
			if err != nil {
				a.remove(addr, e)
				e.end()
			} else if !a.made(addr, e, conn) {
				conn.Close()
			}
		}()
	}
}

// made notes a connection that is there now; false when nobody wants it any more.
func (a *ahead) made(addr string, e *early, conn net.Conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := slices.Contains(a.conns[addr], e)
	if wanted {
		e.conn = conn
	}
	return wanted
}

func (a *ahead) remove(addr string, e *early) net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := slices.Index(a.conns[addr], e); at >= 0 {
		a.conns[addr] = slices.Delete(a.conns[addr], at, at+1)
	}
	return e.conn
}

// take gives one that is there, or nil.
func (a *ahead) take(addr string) net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	for at, e := range a.conns[addr] {
		if e.conn != nil && e.end() {
			a.conns[addr] = slices.Delete(a.conns[addr], at, at+1)
			return e.conn
		}
	}
	return nil
}
