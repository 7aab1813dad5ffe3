package store_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"manada/internal/store"
	"manada/internal/store/storetest"
	"manada/internal/store/voter"
)

// wire is a TCP relay in front of a member whose two directions can be stopped:
// what is sent meanwhile is kept and delivered afterwards.
type wire struct {
	url      string
	up, down gate // towards the member, towards the client
}

type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed: traffic passes
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		if !open {
			g.open = make(chan struct{})
		}
	default:
		if open {
			close(g.open)
		}
	}
}

func (g *gate) wait() {
	g.mu.Lock()
	ch := g.open
	g.mu.Unlock()
	<-ch
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: "https://" + l.Addr().String()}
	for _, g := range []*gate{&w.up, &w.down} {
		g.open = make(chan struct{})
		close(g.open)
	}
	t.Cleanup(func() { _ = l.Close(); w.up.set(true); w.down.set(true) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", target)
			if err != nil {
				_ = c.Close()
				continue
			}
			go relay(s, c, &w.up)
			go relay(c, s, &w.down)
		}
	}()
	return w
}

func relay(to, from net.Conn, g *gate) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		g.wait()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = from.Close()
			}
			return
		}
	}
}

// oneMember runs a member in this process and returns how to reach it.
func oneMember(t *testing.T) (h *storetest.Herd, hostport string) {
	t.Helper()
	h = storetest.NewHerd(t, "one")
	cfg := h.Config(t, "one")
	cfg.Found = true
	v, err := voter.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return h, cfg.ListenClient
}

func dial(t *testing.T, h *storetest.Herd, urls ...string) *store.Client {
	t.Helper()
	c, err := store.Open(t.Context(), store.Config{Cluster: "herd", Endpoints: urls, TLS: h.Certs.TLS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestDeadEndpoints: with one or two members dead in different ways the others
// answer fast, to a client that never talked to them before as well.
func TestDeadEndpoints(t *testing.T) {
	h, hostport := oneMember(t)
	good := h.Hosts["one"].Client
	refused := "https://" + storetest.FreePort(t)
	silent := newWire(t, hostport) // accepts, and nothing ever comes back
	silent.down.set(false)
	for name, urls := range map[string][]string{
		"refused":            {refused, good},
		"black hole":         {silent.url, good},
		"refused, hole":      {refused, silent.url, good},
		"unroutable (drops)": {"https://192.0.2.1:2379", silent.url, good},
	} {
		t.Run(name, func(t *testing.T) {
			c, ctx := dial(t, h, urls...), t.Context()
			for i := range 3 {
				start := time.Now()
				s, err := c.Read(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 500*time.Millisecond {
					t.Errorf("read %d took %s", i, took)
				}
				start = time.Now()
				if s.Term == nil {
					_, err = c.Create(ctx, term(1))
				} else {
					_, err = c.Touch(ctx, s.TermRev)
				}
				if took := time.Since(start); err != nil || took > 300*time.Millisecond {
					t.Errorf("write %d took %s: %v", i, took, err)
				}
			}
		})
	}
}

// TestNothingListens: certainly not sent is said to be, within the deadline.
func TestNothingListens(t *testing.T) {
	h := storetest.NewHerd(t, "one")
	c := dial(t, h, "https://"+storetest.FreePort(t), "https://"+storetest.FreePort(t))
	start := time.Now()
	_, err := c.Create(t.Context(), term(1))
	if wantErr(t, err, store.ErrUnreachable); errors.Is(err, store.ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	_, err = c.Read(t.Context())
	wantErr(t, err, store.ErrUnreachable)
	if _, err := c.Status(t.Context()); err == nil {
		t.Fatal("nobody has a status")
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Fatalf("three calls took %s", took)
	}
}

// TestH1_DelayedSwapOnTheWire: the same finding over TCP. The swap leaves this
// process and is held back on the way; meanwhile its sender gives up and writes
// through another connection.
func TestH1_DelayedSwapOnTheWire(t *testing.T) {
	h, hostport := oneMember(t)
	w := newWire(t, hostport)
	slow, direct, ctx := dial(t, h, w.url), dial(t, h, h.Hosts["one"].Client), t.Context()
	rev, err := slow.Create(ctx, term(1))
	if err != nil {
		t.Fatal(err)
	}
	w.up.set(false)
	_, err = slow.Swap(ctx, rev, term(2))
	if wantErr(t, err, store.ErrUnknown); errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrConflict) {
		t.Fatalf("got %v", err)
	}
	rev = must[int64](t)(direct.Touch(ctx, rev))
	w.up.set(true) // it arrives
	storetest.Eventually(t, "the wire works again", func() error { _, err := slow.Read(ctx); return err })
	got := must[store.Snapshot](t)(direct.Read(ctx))
	if got.Term.Epoch != 1 || got.TermRev != rev {
		t.Fatalf("a delayed swap was applied: epoch %d", got.Term.Epoch)
	}
}

// TestH2_AnswerLostOnTheWire: the swap is applied and its answer is lost.
func TestH2_AnswerLostOnTheWire(t *testing.T) {
	h, hostport := oneMember(t)
	w := newWire(t, hostport)
	deaf, direct, ctx := dial(t, h, w.url), dial(t, h, h.Hosts["one"].Client), t.Context()
	rev, err := deaf.Create(ctx, term(1))
	if err != nil {
		t.Fatal(err)
	}
	w.down.set(false)
	start := time.Now()
	_, err = deaf.Swap(ctx, rev, term(2))
	wantErr(t, err, store.ErrUnknown)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > 1300*time.Millisecond {
		t.Fatalf("the deadline of 1 s took %s", took)
	}
	got := must[store.Snapshot](t)(direct.Read(ctx))
	if got.Term.Epoch != 2 {
		t.Fatalf("epoch %d: the request was lost, too", got.Term.Epoch)
	}
	must[int64](t)(direct.Touch(ctx, got.TermRev))
	w.down.set(true)
	_, err = deaf.Swap(ctx, got.TermRev, term(3))
	wantErr(t, err, store.ErrConflict)
}

// TestSetEndpoints: a client follows the members.
func TestSetEndpoints(t *testing.T) {
	h, hostport := oneMember(t)
	c := dial(t, h, "https://"+storetest.FreePort(t))
	if err := c.SetEndpoints(nil); err == nil {
		t.Fatal("no endpoints at all were taken")
	}
	if err := c.SetEndpoints([]string{"127.0.0.1:1"}); err == nil {
		t.Fatal("an endpoint without a scheme was taken")
	}
	ch := c.Watch(t.Context())
	if err := c.SetEndpoints([]string{"https://" + hostport}); err != nil {
		t.Fatal(err)
	}
	next(t, ch)
	rev := must[int64](t)(c.Create(t.Context(), term(1)))
	awaitSnapshot(t, ch, func(s store.Snapshot) bool { return s.TermRev == rev })
	if got := c.Endpoints(); len(got) != 1 || got[0] != "https://"+hostport {
		t.Fatalf("endpoints %v", got)
	}
}

// TestMutualTLS: without a certificate of the herd's CA nobody is let in.
func TestMutualTLS(t *testing.T) {
	h, _ := oneMember(t)
	stranger := storetest.NewCerts(t)
	forged := stranger.TLS.Clone()
	forged.RootCAs = h.Certs.TLS.RootCAs // trusts us; we do not trust it
	none := h.Certs.TLS.Clone()
	none.Certificates = nil
	for name, cfg := range map[string]store.Config{
		"stranger": {TLS: forged}, "no certificate": {TLS: none}, "distrusts us": {TLS: stranger.TLS},
	} {
		cfg.Cluster, cfg.Endpoints = "herd", []string{h.Hosts["one"].Client}
		cfg.Timeout = 400 * time.Millisecond
		c, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(t.Context()); err == nil {
			t.Errorf("%s: let in", name)
		}
		_ = c.Close()
	}
}

// TestCloseLeavesNothing: no goroutine outlives a client, whatever it was doing.
func TestCloseLeavesNothing(t *testing.T) {
	h, hostport := oneMember(t)
	silent := newWire(t, hostport)
	before := goleak.IgnoreCurrent()
	c, err := store.Open(t.Context(), store.Config{
		Cluster: "herd", TLS: h.Certs.TLS, Reread: 10 * time.Millisecond,
		Endpoints: []string{silent.url, "https://" + storetest.FreePort(t), h.Hosts["one"].Client},
	})
	if err != nil {
		t.Fatal(err)
	}
	ch := c.Watch(t.Context())
	next(t, ch)
	silent.down.set(false)
	next(t, ch)
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(t.Context()); err == nil {
		t.Fatal("a closed client reads")
	}
	silent.down.set(true)
	if err := goleak.Find(before); err != nil && // the member in this process has its own
		(strings.Contains(err.Error(), "manada/internal/store.") || strings.Contains(err.Error(), "clientv3")) {
		t.Fatal("the client left goroutines behind: ", err)
	}
}
