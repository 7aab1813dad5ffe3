package session

import (
	"context"
	"net"
	"testing"
	"time"

	"manada/internal/proxy/loop"
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

// ConnectWait bounds retries, and a change of the topology ends a pause at once.
func TestRetry(t *testing.T) {
	top := &route.Holder{}
	_, conn := pair(t)
	c := &client{Server: &Server{Options: Options{ConnectWait: 200 * time.Millisecond}, Topology: top}, guest: loop.NewGuest(conn), conn: conn}
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
