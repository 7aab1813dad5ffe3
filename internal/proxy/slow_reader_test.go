package proxy_test

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5"
)

// heap is what the program holds of its heap, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// most is by how much the heap may grow for one client that does not read: a few
// buffers, and what the runtime rounds up.
const most = 16 << 20

// A client that reads nothing of its answer costs the proxy a buffer, and the pool one
// server, until a time-out or an order ends it: then PostgreSQL works for it no more,
// and the server's place is free.
func TestSlowReaders(t *testing.T) {
	const answer = "select repeat('z', 1000) from generate_series(1, 200000)\x00"
	for _, mode := range everyMode {
		for _, end := range []string{"query_timeout", "kill_client", "leaves"} {
			t.Run(mode.String()+"/"+end, func(t *testing.T) {
				f := pooled(t, mode, 2, func(c *proxy.Config) {
					if end == "query_timeout" {
						c.QueryTimeout = time.Second
					}
				})
				role := f.role(t, "login password 'x'")
				neighbour := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
				query[int](t, neighbour, "select 1")
				admin := connect(t, superuser(f.primary.addr()))
				con := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
				b := f.comes(t, session.ReadWrite, mode%2 == 0)
				logsIn(t, b, role)
				before := heap()
				b.says('Q', answer)
				stuck := func() bool {
					return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1 and wait_event = 'ClientWrite'", role) == 1
				}
				eventually(t, "PostgreSQL waits for the client", stuck)
				if got := heap() - before; got > most {
					t.Errorf("%d MB more are held", got>>20)
				}
				for i := range 20 {
					if got := query[int](t, neighbour, "select $1::int", i); got != i {
						t.Errorf("a neighbour got %d for %d", got, i)
					}
				}
				switch end {
				case "kill_client":
					must(t, con, fmt.Sprintf("kill_client %d", idOf(t, con, b)))
				case "leaves":
					b.tcp.Close()
				}
				eventually(t, "PostgreSQL works for it no more", func() bool { return !stuck() })
				eventually(t, "it is gone", func() bool { return f.Status().Ports["read_write"].Clients == 1 })
				f.reload(t, func(c *proxy.Config) { c.QueryTimeout = 0 })
				query[int](t, neighbour, "select 1")
				f.allThere(t, role, mode, 2)
			})
		}
	}
}

// idOf is how the console calls a client.
func idOf(t *testing.T, con *pgx.Conn, b *rawClient) any {
	t.Helper()
	for _, one := range table(t, con, "show clients") {
		if one["port"] == int32(b.tcp.LocalAddr().(*net.TCPAddr).Port) {
			return one["id"]
		}
	}
	t.Fatal("the console does not show the client")
	return nil
}

// A client that sends on and on and reads nothing is not read from any more.
func TestSenderThatDoesNotRead(t *testing.T) {
	for _, mode := range everyMode {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 2, nil)
			role := f.role(t, "login password 'x'")
			neighbour := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
			b := f.comes(t, session.ReadWrite, mode%2 == 0)
			logsIn(t, b, role)
			before := heap()
			many := bytes.Repeat(wire.AppendMessage(nil, 'Q', []byte("select repeat('z', 1000)\x00")), 1000)
			var sent atomic.Int64
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					n, err := b.Write(many)
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			}()
			last, since := int64(-1), time.Now()
			eventually(t, "nothing more is taken of it", func() bool {
				if n := sent.Load(); n != last {
					last, since = n, time.Now()
				}
				return last > 0 && time.Since(since) > 500*time.Millisecond
			})
			if got := heap() - before; got > most || last > 32<<20 {
				t.Errorf("%d MB more are held, %d MB were taken", got>>20, last>>20)
			}
			query[int](t, neighbour, "select 1")
			b.tcp.Close()
			<-ended
			eventually(t, "it is gone", func() bool { return f.Status().Ports["read_write"].Clients == 1 })
			f.allThere(t, role, mode, 2)
		})
	}
}
