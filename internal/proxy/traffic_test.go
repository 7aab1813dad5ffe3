package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5"
)

// What passes through a session arrives as it would without the proxy.
func TestTraffic(t *testing.T) {
	for _, mode := range []string{"disable", "require"} {
		t.Run(mode, func(t *testing.T) {
			f := start(t, nil)
			role := f.role(t, "login password 'pw'")
			f.admin(t, "grant create, usage on schema public to "+role)
			dsn := f.dsn(session.ReadWrite, role, "pw", "sslmode="+mode)
			c := connect(t, dsn)
			if _, err := c.Exec(t.Context(), "create temp table big(i int, s text)"); err != nil {
				t.Fatal(err)
			}
			// COPY in, 20 MB, and out again.
			var in bytes.Buffer
			for i := range 20000 {
				fmt.Fprintf(&in, "%d\t%s\n", i, strings.Repeat("x", 1000))
			}
			want := in.Len()
			if tag, err := c.PgConn().CopyFrom(t.Context(), bytes.NewReader(in.Bytes()), "copy big from stdin"); err != nil || tag.RowsAffected() != 20000 {
				t.Fatalf("copy in: %v %v", tag, err)
			}
			var out bytes.Buffer
			if _, err := c.PgConn().CopyTo(t.Context(), &out, "copy big to stdout"); err != nil || out.Len() != want || !bytes.Equal(out.Bytes(), in.Bytes()) {
				t.Fatalf("copy out: %d of %d bytes, %v", out.Len(), want, err)
			}
			// A failing COPY leaves the session usable.
			if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("no number\n"), "copy big from stdin"); code(err) != "22P02" {
				t.Errorf("bad copy: %v", err)
			}
			if n := query[int](t, c, "select count(*) from big where length(s)=1000"); n != 20000 {
				t.Errorf("%d rows", n)
			}
			// Pipelining: many statements in one batch, one of them failing.
			b := &pgx.Batch{}
			for i := range 500 {
				b.Queue("select $1::int", i)
			}
			results := c.SendBatch(t.Context(), b)
			for i := range 500 {
				var got int
				if err := results.QueryRow().Scan(&got); err != nil || got != i {
					t.Fatalf("batch item %d: %d, %v", i, got, err)
				}
			}
			results.Close()
			// One value larger than every buffer.
			if s := query[string](t, c, "select repeat('y', 5000000)"); len(s) != 5000000 {
				t.Errorf("%d bytes", len(s))
			}
			// Notifications come with the process id that the client was told.
			if _, err := c.Exec(t.Context(), "listen news"); err != nil {
				t.Fatal(err)
			}
			if _, err := connect(t, dsn).Exec(t.Context(), "notify news, 'hi'"); err != nil {
				t.Fatal(err)
			}
			if n, err := c.WaitForNotification(t.Context()); err != nil || n.Payload != "hi" {
				t.Errorf("%v, %v", n, err)
			}
			if _, err := c.Exec(t.Context(), "notify news"); err != nil {
				t.Fatal(err)
			}
			if n, err := c.WaitForNotification(t.Context()); err != nil || n.PID != c.PgConn().PID() {
				t.Errorf("own notification %v, pid %d, %v", n, c.PgConn().PID(), err)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	for port := range map[session.Port]bool{session.ReadWrite: true, session.ReadOnly: true} {
		c := connect(t, f.dsn(port, role, "pw", "sslmode=disable"))
		other := connect(t, f.dsn(port, role, "pw", "sslmode=disable"))
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "select pg_sleep(20)")
			done <- err
		}()
		eventually(t, "sleeping", func() bool {
			return query[int](t, other, "select count(*) from pg_stat_activity where wait_event='PgSleep' and pid=$1", c.PgConn().PID()) == 1
		})
		// A wrong key cancels nothing.
		key := bytes.Clone(c.PgConn().SecretKey())
		key[0]++
		raw := f.dial(t, port)
		raw.Write(wire.AppendCancel(nil, c.PgConn().PID(), key))
		io.Copy(io.Discard, raw)
		select {
		case err := <-done:
			t.Fatalf("a false key ended the query: %v", err)
		default:
		}
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; code(err) != "57014" {
			t.Errorf("%s: %v, want query_canceled", port, err)
		}
		if query[int](t, c, "select 1") != 1 {
			t.Error("the session did not survive the cancel")
		}
	}
}

func (f *fixture) dial(t testing.TB, port session.Port) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", f.Addr(port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func startup(version uint32, params ...string) []byte {
	var ps []wire.Param
	for i := 0; i < len(params); i += 2 {
		ps = append(ps, wire.Param{Name: params[i], Value: params[i+1]})
	}
	b := wire.AppendStartup(nil, ps)
	binary.BigEndian.PutUint32(b[4:], version)
	return b
}

func TestNegotiation(t *testing.T) {
	f := start(t, nil)
	// GSS is refused, then TLS still possible; asking twice is a violation.
	c := f.dial(t, session.ReadWrite)
	gss := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 1234<<16|5680)
	c.Write(gss)
	answer := make([]byte, 1)
	if io.ReadFull(c, answer); answer[0] != 'N' {
		t.Fatalf("GSS: %q", answer)
	}
	c.Write(wire.AppendSSLRequest(nil))
	if io.ReadFull(c, answer); answer[0] != 'S' {
		t.Fatalf("TLS after GSS: %q", answer)
	}
	for _, x := range []struct {
		version, told uint32
		params        []string
	}{
		{wire.Version30, 0, nil},
		{wire.Version32, 0, nil},
		{3<<16 | 9999, wire.Version32, []string{"_pq_.test_protocol_negotiation", ""}},
		{wire.Version30, wire.Version30, []string{"_pq_.x", "1"}},
	} {
		c := f.dial(t, session.ReadWrite)
		c.Write(startup(x.version, append([]string{"user", "postgres"}, x.params...)...))
		typ, body, err := wire.ReadMessage(c, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if x.told != 0 {
			if typ != wire.TypeNegotiate || binary.BigEndian.Uint32(body) != x.told || !strings.Contains(string(body), x.params[0]) {
				t.Errorf("%x: %q %q", x.version, typ, body)
			}
			if typ, body, err = wire.ReadMessage(c, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if want := "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"; typ != wire.TypeAuth || string(body) != want {
			t.Errorf("%x: %q %q, want only SCRAM-SHA-256", x.version, typ, body)
		}
	}
	c = f.dial(t, session.ReadWrite)
	c.Write(startup(2<<16, "user", "postgres"))
	if typ, body, err := wire.ReadMessage(c, 1000); err != nil || typ != wire.TypeError || wire.ParseError(body).Code != "0A000" {
		t.Errorf("protocol 2: %q %q %v", typ, body, err)
	}
}

// Protocol 3.2 gives long cancel keys, and they work.
func TestProtocol32(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	c := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable&max_protocol_version=3.2"))
	if n := len(c.PgConn().SecretKey()); n != 32 {
		t.Errorf("key of %d bytes", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	time.AfterFunc(200*time.Millisecond, func() { c.PgConn().CancelRequest(ctx) })
	if _, err := c.Exec(ctx, "select pg_sleep(20)"); code(err) != "57014" {
		t.Errorf("%v", err)
	}
}

// A client that closes only its sending side still gets its answer.
func TestHalfClose(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	pc, err := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Conn.Close()
	conn := pc.Conn.(*net.TCPConn)
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	conn.Write(wire.AppendMessage(nil, wire.TypeQuery, []byte("select pg_sleep(0.2), 'the answer'\x00")))
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(b, []byte("the answer")) || !bytes.HasSuffix(b, []byte("Z\x00\x00\x00\x05I")) {
		t.Errorf("%q, %v", b, err)
	}
}

// The server's answer does not pile up in the proxy when the client does not read.
func TestBackpressure(t *testing.T) {
	for _, split := range []bool{false, true} { // the primary's answer, and a standby's
		t.Run(fmt.Sprintf("split %v", split), func(t *testing.T) { backpressure(t, split) })
	}
}

func backpressure(t *testing.T, split bool) {
	f := start(t, func(c *proxy.Config) { c.Split = split })
	role := f.role(t, "login password 'pw'")
	pc, err := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Conn.Close()
	pc.Conn.Write(wire.AppendMessage(nil, wire.TypeQuery, []byte("select repeat('z', 1000) from generate_series(1, 100000)\x00")))
	node := f.primary.addr()
	if split {
		node = f.standby.addr()
	}
	admin := connect(t, superuser(node))
	eventually(t, "the backend waits for its client", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename=$1 and wait_event='ClientWrite'", role) == 1
	})
	n, zs := 0, 0
	buf := make([]byte, 1<<20)
	for zs < 100000*1000 {
		m, err := pc.Conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += m
		zs += bytes.Count(buf[:m], []byte("z"))
	}
	if n < 100000*1000 {
		t.Errorf("%d bytes", n)
	}
}

func TestManyClients(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.MaxClientConn, c.ConnectWait, c.MaxServerLogins = 80, 30*time.Second, 8 })
	role := f.role(t, "login password 'pw'")
	dsn := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
	var mu sync.Mutex
	var conns []*pgx.Conn
	var refused int
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			c, err := pgx.Connect(t.Context(), dsn)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				conns = append(conns, c)
			case code(err) == "53300" && strings.Contains(err.Error(), "proxy.max_clients"):
				refused++
			default:
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if len(conns) != 80 || refused != 20 {
		t.Errorf("%d connected, %d refused; want 80 and 20", len(conns), refused)
	}
	for i, c := range conns {
		wg.Go(func() {
			defer c.Close(context.Background())
			for range 20 {
				var got int
				if err := c.QueryRow(t.Context(), "select $1::int", i).Scan(&got); err != nil || got != i {
					t.Errorf("session %d got %d, %v", i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all gone", func() bool { return f.Status().Ports["read_write"].Clients == 0 })
	connect(t, dsn)
}

// Whoever connects and says nothing is not served for ever.
func TestSilentClient(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.LoginTimeout = 200 * time.Millisecond })
	for _, say := range [][]byte{nil, {0, 0}, startup(wire.Version30, "user", "postgres")} {
		c := f.dial(t, session.ReadWrite)
		c.Write(say)
		b, err := io.ReadAll(c)
		if err != nil || !bytes.Contains(b, []byte("log-in not completed within")) {
			t.Errorf("%q: %q, %v", say, b, err)
		}
	}
}

func TestGarbage(t *testing.T) {
	f := start(t, nil)
	for _, say := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x05x", "\x16\x03\x01 no TLS really", "\xff\xff\xff\xff"} {
		c := f.dial(t, session.ReadWrite)
		io.WriteString(c, say)
		if w, ok := c.(*net.TCPConn); ok {
			w.CloseWrite()
		}
		io.Copy(io.Discard, c) // ends: the proxy closes
	}
	connect(t, superuser(f.Addr(session.ReadWrite).String()))
}
