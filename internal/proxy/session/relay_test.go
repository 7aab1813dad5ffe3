package session

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a connected pair of TCP sockets.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close(); y.Close() })
	for _, c := range []net.Conn{x, y} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return x.(*net.TCPConn), y.(*net.TCPConn)
}

// relayed starts a session and returns its two ends, the application's and PostgreSQL's.
func relayed(t testing.TB) (s *session, app, db *net.TCPConn, done chan struct{}) {
	t.Helper()
	app, conn := pair(t)
	server, db := pair(t)
	srv := &Server{Topology: &route.Holder{}, Log: slog.New(slog.DiscardHandler)}
	c := newClient(srv, conn)
	s = newSession(c, &pool.Backend{Conn: server, Status: 'I', PID: 7},
		destination{node: route.Node{Name: "master", Addr: "x"}, epoch: 7, primary: true}, pool.Login{})
	srv.registry.add(s, wire.Version30)
	done = make(chan struct{})
	go func() {
		defer close(done)
		s.relay()
		s.registry.remove(s)
		conn.Close()
	}()
	return s, app, db, done
}

func newClient(s *Server, conn net.Conn) *client { return &client{Server: s, conn: conn, user: "u"} }

var (
	queryMsg = wire.AppendMessage(nil, wire.TypeQuery, []byte("select 1\x00"))
	answer   = wire.AppendMessage(wire.AppendMessage(wire.AppendMessage(nil, wire.TypeDataRow, make([]byte, 20)),
		'C', []byte("SELECT 1\x00")), wire.TypeReady, []byte("I"))
)

// What the server sent with its log-in, and what is split in awkward places, arrives whole.
func TestRelayHoldsBackOnlyWhatItMust(t *testing.T) {
	_, app, db, done := relayed(t)
	notice := wire.AppendMessage(nil, wire.TypeNotice, []byte("SNOTICE\x00VNOTICE\x00C00000\x00Mcanceling wait for synchronous replication, not really\x00\x00"))
	in := append(bytes.Clone(notice), answer...)
	go func() {
		for i := range in {
			db.Write(in[i : i+1])
		}
	}()
	got := make([]byte, len(in))
	if _, err := io.ReadFull(app, got); err != nil || !bytes.Equal(got, in) {
		t.Errorf("%q, %v", got, err)
	}
	app.Close()
	if b, err := io.ReadAll(db); err != nil || len(b) != 0 {
		t.Errorf("the client's end of stream: %q, %v", b, err)
	}
	db.Close()
	<-done
}

// In the middle of a message nothing can be said: the connection just ends.
func TestEndInTheMiddleOfAMessage(t *testing.T) {
	s, app, db, done := relayed(t)
	part := answer[:10]
	db.Write(part)
	got := make([]byte, len(part))
	if _, err := io.ReadFull(app, got); err != nil {
		t.Fatal(err)
	}
	s.end(endDeposed)
	if b, err := io.ReadAll(app); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	<-done
	if s.Stats.Deposed.Load() != 1 {
		t.Error("not counted")
	}
}

// A client that does not read cannot hold up the end of its session.
func TestEndOfClientThatDoesNotRead(t *testing.T) {
	s, _, db, done := relayed(t)
	huge := wire.AppendMessage(nil, wire.TypeDataRow, make([]byte, 32<<20))
	go db.Write(huge)
	for last := int64(-1); s.Stats.ToClients[0].Load() != last || last == 0; time.Sleep(50 * time.Millisecond) {
		last = s.Stats.ToClients[0].Load() // until the sockets are full
	}
	s.end(endDeposed)
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("still relaying")
	}
}

func TestSweep(t *testing.T) {
	s, app, db, done := relayed(t)
	s.Sweep(route.View{Known: true, Epoch: 7, Open: true})
	s.Sweep(route.View{Epoch: 9}) // not known
	s.Sweep(route.View{Known: true, Epoch: 6})
	if s.ending.Load() != endNot {
		t.Fatal("ended by a view that does not depose its primary")
	}
	if s.registry.find(s.key) != s || s.registry.find(cancelKey{7, "guess"}) != nil {
		t.Error("cancel keys")
	}
	s.Sweep(route.View{Known: true, Epoch: 8})
	if b, err := io.ReadAll(app); err != nil || !bytes.Contains(b, []byte("C57P01")) {
		t.Errorf("%q, %v", b, err)
	}
	app.Close()
	db.Close()
	<-done
	if s.registry.find(s.key) != nil || len(s.Backends()) != 0 {
		t.Error("the session is still registered")
	}
}

// ConnectWait bounds retries, and a change of the topology ends a pause at once.
func TestRetry(t *testing.T) {
	top := &route.Holder{}
	_, conn := pair(t)
	c := &client{Server: &Server{Options: Options{ConnectWait: 200 * time.Millisecond}, Topology: top}, conn: conn}
	tries := 0
	err := c.retry(t.Context(), func(context.Context) error { tries++; return errNoNode })
	if e, ok := err.(*wire.Error); !ok || e.Code != "57P03" || tries < 2 || c.waited < 200*time.Millisecond {
		t.Errorf("%v after %d tries and %s", err, tries, c.waited)
	}
	tries = 0 // the budget is spent: one more attempt, no more waiting
	if err := c.retry(t.Context(), func(context.Context) error { tries++; return errNoNode }); err == nil || tries != 1 {
		t.Errorf("%v after %d tries", err, tries)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if e, ok := c.retry(ctx, func(context.Context) error { return errNoNode }).(*wire.Error); !ok || e.Code != "57P01" {
		t.Errorf("stopping: %v", e)
	}
}
