package desk

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake are connections that only know whether they are open and who has them.
type fake struct {
	t    *testing.T
	desk *Desk

	mu     sync.Mutex
	open   int
	most   int
	opened int
	parked int
	fails  func() *wire.Error
	block  chan struct{} // Open waits for it; nil: not
}

type conn struct {
	closed atomic.Bool
	used   atomic.Int32
}

func (f *fake) Open(ctx context.Context, _ *rules.Server, how How) (any, *wire.Error) {
	if how.Node != "10.0.0.1:5432" || how.Epoch != 1 {
		f.t.Errorf("opened by %+v", how)
	}
	f.mu.Lock()
	block, fails := f.block, f.fails
	f.opened++
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, wire.Fatal("08006", "canceled", "")
		}
	}
	if fails != nil {
		if err := fails(); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	f.most = max(f.most, f.open)
	return &conn{}, nil
}

func (f *fake) Park(*rules.Server, int) { f.mu.Lock(); f.parked++; f.mu.Unlock() }

func (f *fake) Close(s *rules.Server) {
	if s.Data.(*conn).closed.Swap(true) {
		f.t.Error("closed twice")
	}
	f.mu.Lock()
	f.open--
	f.mu.Unlock()
	f.desk.Closed(s)
}

func newDesk(t *testing.T, limit int, s rules.Settings) (*Desk, *fake, *rules.Node) {
	t.Helper()
	f := &fake{t: t}
	f.desk = New(rules.Config{Default: s}, 2, f)
	t.Cleanup(func() {
		f.desk.Close()
		if f.open != 0 {
			t.Errorf("%d connections are left", f.open)
		}
	})
	n := f.desk.Node("a", "10.0.0.1:5432", limit, 1)
	f.desk.Lead(n, "")
	return f.desk, f, n
}

// taker passes on what it is told.
type taker struct {
	servers chan *rules.Server
	errors  chan *wire.Error
}

func newTaker() *taker { return &taker{make(chan *rules.Server, 1), make(chan *wire.Error, 1)} }

func (k *taker) Take(s *rules.Server, _ int) { k.servers <- s }
func (k *taker) Denied(e *wire.Error)        { k.errors <- e }

var anyone = rules.Rights{Login: true, Exists: true, Allowed: true, Connect: true, RoleLimit: -1, DatabaseLimit: -1}

// get waits for a server.
func (k *taker) get(t *testing.T, d *Desk, c *rules.Claim, a *rules.Account, loop int) (*rules.Server, *wire.Error) {
	c.Data = k
	if s, _ := d.Want(c, a, nil, loop); s != nil {
		return s, nil
	}
	select {
	case s := <-k.servers:
		return s, nil
	case e := <-k.errors:
		return nil, e
	case <-time.After(20 * time.Second):
		t.Error("neither a server nor a word")
		return nil, nil
	}
}

// Many clients on few connections, from many threads: no connection has two of them,
// none is left open, and the limit holds.
func TestManyAtOnce(t *testing.T) {
	d, f, _ := newDesk(t, 5, rules.Settings{QueueTimeout: time.Minute, IdleTimeout: time.Minute})
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 0))
			user := []string{"app", "web", "etl"}[i%3]
			a, err := d.Attach("orders", user, anyone, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Detach(a)
			k, c := newTaker(), &rules.Claim{}
			for range 200 {
				s, err := k.get(t, d, c, a, i%2)
				if err != nil || s == nil {
					t.Error(err)
					return
				}
				v := s.Data.(*conn)
				if v.used.Add(1) != 1 {
					t.Error("two clients on one connection")
				}
				if v.closed.Load() {
					t.Error("a closed connection is handed out")
				}
				if s.Pool.Account != a {
					t.Error("another account's")
				}
				v.used.Add(-1)
				d.Gave(s, r.IntN(20) > 0)
			}
		})
	}
	clients.Wait()
	if f.most > 5 {
		t.Errorf("%d connections at once", f.most)
	}
}

func TestFailureIsTold(t *testing.T) {
	d, f, _ := newDesk(t, 5, rules.Settings{QueueTimeout: time.Minute})
	f.fails = func() *wire.Error { return wire.Fatal("28000", "role is not permitted to log in", "") }
	a, _ := d.Attach("orders", "app", anyone, "keys")
	defer d.Detach(a)
	if a.Data != "keys" {
		t.Error("the account has no keys")
	}
	if _, e := newTaker().get(t, d, &rules.Claim{}, a, 0); e == nil || e.Code != "28000" {
		t.Error(e)
	}
}

// What needs time comes by the desk's own timer.
func TestTimer(t *testing.T) {
	d, f, _ := newDesk(t, 1, rules.Settings{QueueTimeout: 50 * time.Millisecond})
	a, _ := d.Attach("orders", "app", anyone, nil)
	defer d.Detach(a)
	first, _ := newTaker().get(t, d, &rules.Claim{}, a, 0)
	if _, e := newTaker().get(t, d, &rules.Claim{}, a, 0); e == nil || e.Code != "53300" {
		t.Error(e)
	}
	d.Gave(first, false)
	var tries atomic.Int32
	f.mu.Lock()
	f.fails = func() *wire.Error {
		if tries.Add(1) < 3 {
			return wire.Fatal("57P03", "the database system is starting up", "")
		}
		return nil
	}
	f.mu.Unlock()
	d.Configure(rules.Config{Default: rules.Settings{QueueTimeout: time.Minute}})
	if s, e := newTaker().get(t, d, &rules.Claim{}, a, 0); e != nil || s == nil || tries.Load() != 3 {
		t.Error(e, tries.Load())
	}
}

// A client that left, and a desk that closes, end what is being opened for nobody.
func TestOpeningForNobody(t *testing.T) {
	d, f, _ := newDesk(t, 5, rules.Settings{QueueTimeout: time.Minute})
	f.block = make(chan struct{})
	a, _ := d.Attach("orders", "app", anyone, nil)
	k, c := newTaker(), &rules.Claim{}
	c.Data = k
	if s, _ := d.Want(c, a, nil, 0); s != nil {
		t.Fatal("a server out of nothing")
	}
	d.Withdraw(c)
	close(f.block)
	for parked := 0; parked == 0; time.Sleep(time.Millisecond) { // it is kept for the next one
		f.mu.Lock()
		parked = f.parked
		f.mu.Unlock()
	}
	d.Detach(a)
	f.mu.Lock()
	f.block = make(chan struct{})
	f.mu.Unlock()
	b, _ := d.Attach("stock", "app", anyone, nil)
	c.Data = k
	d.Want(c, b, nil, 0) // never opened: the end of the test closes the desk
	d.Withdraw(c)
	d.Detach(b)
}

func TestPauseWaits(t *testing.T) {
	d, _, _ := newDesk(t, 5, rules.Settings{QueueTimeout: time.Minute})
	a, _ := d.Attach("orders", "app", anyone, nil)
	defer d.Detach(a)
	s, _ := newTaker().get(t, d, &rules.Claim{}, a, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if e := d.Pause(ctx, "orders"); e == nil || e.Code != "57014" {
		t.Fatal(e)
	}
	if e := d.Resume(t.Context(), "orders"); e == nil || e.Code != "55000" {
		t.Errorf("what was cancelled holds: %v", e)
	}
	paused := make(chan *wire.Error)
	go func() { paused <- d.Pause(t.Context(), "orders") }()
	d.Gave(s, true)
	if e := <-paused; e != nil {
		t.Error(e)
	}
	k, c := newTaker(), &rules.Claim{}
	c.Data = k
	if s, _ := d.Want(c, a, nil, 0); s != nil {
		t.Error("a paused database is served")
	}
	if e := d.Resume(t.Context(), "orders"); e != nil {
		t.Error(e)
	}
	s = <-k.servers
	d.Reconnect(t.Context(), "")
	closed := make(chan *wire.Error)
	go func() { closed <- d.WaitClose(t.Context(), "") }()
	d.Gave(s, true)
	if e := <-closed; e != nil {
		t.Error(e)
	}
	d.Disable(t.Context(), "orders")
	if _, e := d.Attach("orders", "app", anyone, nil); e == nil || e.Code != "55000" {
		t.Error(e)
	}
	d.Enable(t.Context(), "orders")
	d.Kill(t.Context(), "orders")
	if e := d.Resume(t.Context(), "stock"); e == nil {
		t.Error("what is not paused is resumed")
	}
}

// A transaction allocates nothing.
func TestNothingIsAllocated(t *testing.T) {
	d, _, _ := newDesk(t, 1, rules.Settings{QueueTimeout: time.Minute, IdleTimeout: time.Minute})
	a, _ := d.Attach("orders", "app", anyone, nil)
	defer d.Detach(a)
	k, c := newTaker(), &rules.Claim{}
	s, _ := k.get(t, d, c, a, 0)
	d.Gave(s, true)
	if n := testing.AllocsPerRun(1000, func() {
		s, _ := d.Want(c, a, nil, 0)
		d.Gave(s, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWantAndGive(b *testing.B) {
	f := &fake{}
	d := New(rules.Config{Default: rules.Settings{QueueTimeout: time.Minute, IdleTimeout: time.Minute, Lifetime: time.Hour}}, 2, f)
	f.desk = d
	defer d.Close()
	d.Lead(d.Node("a", "10.0.0.1:5432", 10, 1), "")
	a, _ := d.Attach("orders", "app", anyone, nil)
	k, c := newTaker(), &rules.Claim{}
	c.Data = k
	s, _ := d.Want(c, a, nil, 0)
	if s == nil {
		s = <-k.servers
	}
	d.Gave(s, true)
	b.ReportAllocs()
	for b.Loop() {
		s, _ := d.Want(c, a, nil, 0)
		d.Gave(s, true)
	}
}
