package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/scram"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5"
)

// rawClient is a client that speaks by bytes.
type rawClient struct {
	net.Conn // TLS or not
	tcp      *net.TCPConn
}

// comes opens a connection, over TLS where it is asked for. Every read and write has an end.
func (f *fixture) comes(t *testing.T, port session.Port, secure bool) *rawClient {
	t.Helper()
	b := &rawClient{}
	b.Conn = f.dial(t, port)
	b.tcp = b.Conn.(*net.TCPConn)
	b.SetDeadline(time.Now().Add(30 * time.Second))
	if !secure {
		return b
	}
	b.Write(wire.AppendSSLRequest(nil))
	yes := make([]byte, 1)
	if _, err := io.ReadFull(b.Conn, yes); err != nil || yes[0] != 'S' {
		t.Fatalf("TLS: %q, %v", yes, err)
	}
	b.Conn = tls.Client(b.tcp, &tls.Config{InsecureSkipVerify: true})
	return b
}

// next is the next message that is no notice.
func (b *rawClient) next(t *testing.T) (byte, []byte) {
	t.Helper()
	for {
		typ, body, err := wire.ReadMessage(b, 1<<24)
		if err != nil {
			t.Fatalf("the next message: %v", err)
		}
		if typ != wire.TypeNotice {
			return typ, body
		}
	}
}

// until reads to the first message of a type.
func (b *rawClient) until(t *testing.T, want byte) []byte {
	t.Helper()
	for {
		typ, body := b.next(t)
		if typ == want {
			return body
		}
		if typ == wire.TypeError {
			t.Fatalf("instead of %q: %v", want, wire.ParseError(body))
		}
	}
}

func (b *rawClient) says(typ byte, body string) {
	b.Write(wire.AppendMessage(nil, typ, []byte(body)))
}

// asks logs in up to the proof, which is given.
func (b *rawClient) asks(t *testing.T, role, database string) {
	t.Helper()
	s := scram.NewPasswordClient("x")
	b.Write(startup(wire.Version30, "user", role, "database", database))
	b.until(t, wire.TypeAuth)
	b.Write(wire.AppendSASLInitial(nil, scram.Mechanism, s.First()))
	proof, err := s.Final(b.until(t, wire.TypeAuth)[4:])
	if err != nil {
		t.Fatal(err)
	}
	b.says(wire.TypePassword, string(proof))
}

// moment is how far a client has come when it breaks.
type moment struct {
	name string
	come func(t *testing.T, b *rawClient, role string)
	not  func(mode rules.Mode, port session.Port) bool // nil: always possible
}

func logsIn(t *testing.T, b *rawClient, role string) {
	b.asks(t, role, "postgres")
	b.until(t, wire.TypeReady)
}

var moments = []moment{
	{name: "nothing said", come: func(*testing.T, *rawClient, string) {}},
	{name: "password", come: func(t *testing.T, b *rawClient, role string) {
		b.Write(startup(wire.Version30, "user", role, "database", "postgres"))
		b.until(t, wire.TypeAuth)
	}},
	{name: "proof", come: func(t *testing.T, b *rawClient, role string) {
		b.Write(startup(wire.Version30, "user", role, "database", "postgres"))
		b.until(t, wire.TypeAuth)
		b.Write(wire.AppendSASLInitial(nil, scram.Mechanism, scram.NewPasswordClient("x").First()))
		b.until(t, wire.TypeAuth)
	}},
	{name: "idle", come: logsIn},
	{name: "batch", come: func(t *testing.T, b *rawClient, role string) {
		logsIn(t, b, role)
		b.says('P', "\x00select generate_series(1, 3)\x00\x00\x00")
		b.says('B', "\x00\x00\x00\x00\x00\x00\x00\x00")
		b.says('E', "\x00\x00\x00\x00\x01")
		b.says('H', "")
		b.until(t, 's')
	}},
	{name: "transaction", come: func(t *testing.T, b *rawClient, role string) {
		logsIn(t, b, role)
		b.says('Q', "begin\x00")
		b.until(t, wire.TypeReady)
	}, not: func(mode rules.Mode, _ session.Port) bool { return mode == rules.Statement }},
	{name: "copy in", come: func(t *testing.T, b *rawClient, role string) {
		logsIn(t, b, role)
		b.says('Q', "copy broken from stdin\x00")
		b.until(t, 'G')
		b.says('d', "1\tone\n")
	}, not: func(_ rules.Mode, port session.Port) bool { return port == session.ReadOnly }},
	{name: "copy out", come: func(t *testing.T, b *rawClient, role string) {
		logsIn(t, b, role)
		b.says('Q', "copy (select repeat('z', 1000) from generate_series(1, 15000)) to stdout\x00")
		b.until(t, 'H')
	}},
}

// way is what a client does that breaks. Those that stay are told why they end.
type way struct {
	name string
	raw  string
	goes func(b *rawClient) // nil: it stays
}

var ways = []way{
	{name: "an unknown type", raw: "\xfe\x00\x00\x00\x04"},
	{name: "a length of -1", raw: "Q\xff\xff\xff\xff"},
	{name: "a length of 2 GB", raw: "Q\x7f\xff\xff\xff"},
	{name: "a length of 0", raw: "d\x00\x00\x00\x00"},
	{name: "half a message", raw: "Q\x00\x00\x00\x40select", goes: func(b *rawClient) { b.tcp.Close() }},
	{name: "no more, by its host", raw: "Q\x00\x00", goes: func(b *rawClient) { b.tcp.SetLinger(0); b.tcp.Close() }},
	{name: "no more", goes: func(b *rawClient) { b.tcp.CloseWrite(); io.Copy(io.Discard, b.tcp); b.tcp.Close() }},
}

// ends wants a client that stays to be told why it is ended, and then to be ended.
func (b *rawClient) ends(t *testing.T, what string) {
	t.Helper()
	for {
		typ, body, err := wire.ReadMessage(b, 1<<24)
		if err != nil {
			t.Errorf("%s: ended without a word: %v", what, err)
			return
		}
		if typ != wire.TypeError {
			continue
		}
		switch e := wire.ParseError(body); {
		case e.Severity == "ERROR" && e.Code == "08P01": // the COPY's, in front of the session's
			continue
		case e.Severity != "FATAL" || e.Code != "08P01":
			t.Errorf("%s: %v", what, e)
		}
		break
	}
	if n, err := io.Copy(io.Discard, b); n > 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%s: %d bytes behind the last word, %v", what, n, err)
	}
}

// neighbour works until stop is closed, and is to notice nothing.
func neighbour(t *testing.T, c *pgx.Conn, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		var got int
		begin := time.Now()
		if err := c.QueryRow(context.WithoutCancel(t.Context()), "select $1::int", i).Scan(&got); err != nil || got != i {
			t.Errorf("a neighbour got %d for %d: %v", got, i, err)
			return
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("a neighbour waited for %s", d)
		}
		time.Sleep(time.Millisecond)
	}
}

// Garbage, half a message and an end at any stage are told to whoever they come from, if
// it is there, and nobody else of the pool notices; the server's connection ends up as
// it was, or closed.
func TestBrokenClients(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Auto, rules.Session, rules.Transaction, rules.Statement} {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 3, func(c *proxy.Config) { c.Pool.Default.QueueTimeout = 20 * time.Second })
			role := f.role(t, "login password 'x'")
			f.table(t, role, "broken", "i int, s text")
			var neighbours []*pgx.Conn
			stop := make(chan struct{})
			var working sync.WaitGroup
			for port, more := range map[session.Port]string{session.ReadWrite: "sslmode=disable", session.ReadOnly: "sslmode=require"} {
				c := connect(t, f.dsn(port, role, "x", more))
				neighbours = append(neighbours, c)
				working.Go(func() { neighbour(t, c, stop) })
			}
			n := 0
			nodes := []*pgx.Conn{connect(t, superuser(f.primary.addr())), connect(t, superuser(f.standby.addr()))}
			for _, port := range []session.Port{session.ReadWrite, session.ReadOnly} {
				for _, m := range moments {
					for _, w := range ways {
						if m.not != nil && m.not(mode, port) {
							continue
						}
						n++
						f.breaks(t, port, n%2 == 0, role, m, w)
						for _, node := range nodes {
							quiet(t, node, role, m.name+", "+w.name)
						}
					}
				}
			}
			close(stop)
			working.Wait()
			t.Logf("%d clients", n)
			if got := query[int](t, neighbours[0], "select count(*) from broken"); got != 0 {
				t.Errorf("%d rows of a COPY that did not end", got)
			}
			f.allThere(t, role, mode, 3)
		})
	}
}

// breaks has one client come to a moment and break there.
func (f *fixture) breaks(t *testing.T, port session.Port, secure bool, role string, m moment, w way) {
	t.Helper()
	what := fmt.Sprintf("%s, TLS %v, %s, %s", port, secure, m.name, w.name)
	b := f.comes(t, port, secure)
	defer b.tcp.Close()
	m.come(t, b, role)
	raw := w.raw
	if m.name == "nothing said" { // there is no type yet
		raw = raw[min(len(raw), 1):]
	}
	io.WriteString(b, raw)
	if w.goes != nil {
		w.goes(b)
	} else {
		b.ends(t, what)
	}
	eventually(t, "the end of "+what, func() bool {
		p := f.Status().Ports
		return p["read_write"].Clients == 1 && p["read_only"].Clients == 1
	})
}

// quiet waits until nothing is under way on a node but what neighbours do.
func quiet(t *testing.T, node *pgx.Conn, role, behind string) {
	t.Helper()
	eventually(t, "nothing is left open behind "+behind, func() bool {
		return query[int](t, node, "select count(*) from pg_stat_activity where usename = $1 and state <> 'idle' and query not like 'select $1%'", role) == 0
	})
}

// allThere takes all servers of a pool of that size at once.
func (f *fixture) allThere(t *testing.T, role string, mode rules.Mode, size int) {
	t.Helper()
	free := size
	if mode == rules.Session {
		free-- // the neighbour has one
	}
	admin := connect(t, superuser(f.primary.addr()))
	must(t, admin, "select pg_advisory_lock(4711)")
	var done []<-chan error
	for range free {
		done = append(done, execs(t, connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable")), "select pg_advisory_xact_lock(4711)"))
	}
	eventually(t, "all servers of the pool work", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1 and wait_event = 'advisory'", role) == free
	})
	must(t, admin, "select pg_advisory_unlock(4711)")
	for _, one := range done {
		if err := <-one; err != nil {
			t.Error(err)
		}
	}
}
