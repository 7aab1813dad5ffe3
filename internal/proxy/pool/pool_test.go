package pool

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy/scram"
	"manada/internal/proxy/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a PostgreSQL that logs everybody in and answers look-ups with the
// secret it holds at that moment, one at a time, when it is let.
type fake struct {
	addr string

	mu       sync.Mutex
	secret   string
	third    string // column of the answer
	full     bool   // the others of a look-up are there too, NULL
	asked    int
	logins   int
	conns    map[net.Conn]bool // that are open
	accepted int
	arrived  chan struct{} // a query has been read
	let      chan struct{} // it may be answered
}

func newFake(t *testing.T) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{addr: l.Addr().String(), secret: "one", third: "f", arrived: make(chan struct{}, 100), let: make(chan struct{}, 100), conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.accepted++
			f.conns[c] = true
			f.mu.Unlock()
			wg.Go(func() {
				f.serve(c)
				f.mu.Lock()
				delete(f.conns, c)
				f.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(f.let)
		f.hangUp()
		wg.Wait()
	})
	return f
}

// hangUp closes all connections.
func (f *fake) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

// open counts those that the other side has not closed.
func (f *fake) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	if _, err := wire.ReadStartup(c); err != nil {
		return
	}
	f.mu.Lock()
	f.logins++
	f.mu.Unlock()
	ready := wire.AppendMessage(nil, wire.TypeReady, []byte("I"))
	c.Write(append(wire.AppendBackendKey(wire.AppendAuth(nil, wire.AuthOK, nil), 1, []byte("abcd")), ready...))
	for {
		typ, _, err := wire.ReadMessage(c, 10000)
		if err != nil {
			return
		}
		if typ != wire.TypeSync {
			continue
		}
		f.mu.Lock()
		f.asked++
		secret, third, full := f.secret, f.third, f.full
		f.mu.Unlock()
		f.arrived <- struct{}{}
		<-f.let
		row := []byte{0, 3, 0, 0, 0, 1, 'u'}
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(secret))), secret...)
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(third))), third...)
		for ; full && row[1] < lookupColumns; row[1]++ {
			row = append(row, 0xff, 0xff, 0xff, 0xff) // NULL
		}
		if _, err := c.Write(append(wire.AppendMessage(nil, wire.TypeDataRow, row), ready...)); err != nil {
			return
		}
	}
}

func (f *fake) set(s string) { f.mu.Lock(); f.secret = s; f.mu.Unlock() }

func verifiers(t *testing.T, ttl time.Duration) *Verifiers {
	d := &Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second}
	v := &Verifiers{Dialer: d, User: "p", Database: "d", TTL: ttl, Timeout: 5 * time.Second}
	t.Cleanup(v.Close)
	return v
}

// Log-ins that wait together share a query, but never one that was sent before
// they asked.
func TestLookupSharesButStaysFresh(t *testing.T) {
	f := newFake(t)
	f.full = true
	v := verifiers(t, 0)
	answers := make(chan string, 10)
	ask := func() {
		s, err := v.Lookup(t.Context(), f.addr, "u", "d")
		if err != nil {
			t.Error(err)
		}
		answers <- s.Password
	}
	go ask()
	<-f.arrived // the first query is with the server, which has read "one"
	f.set("two")
	for range 5 {
		go ask()
	}
	for pending := 0; pending == 0; time.Sleep(time.Millisecond) { // all five are bound to wait for the second query
		v.mu.Lock()
		for _, l := range v.nodes[f.addr].waiting {
			pending = len(l.tell) / 5
		}
		v.mu.Unlock()
	}
	f.let <- struct{}{}
	if got := <-answers; got != "one" {
		t.Errorf("first answer %q", got)
	}
	for i := range 5 {
		f.let <- struct{}{}
		if got := <-answers; got != "two" {
			t.Errorf("answer %d: %q is older than the question", i, got)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked > 6 || f.logins != 1 {
		t.Errorf("%d queries over %d connections", f.asked, f.logins)
	}
}

func TestLookupCache(t *testing.T) {
	f := newFake(t)
	f.full = true
	v := verifiers(t, time.Minute)
	get := func() string {
		f.let <- struct{}{}
		s, err := v.Lookup(t.Context(), f.addr, "u", "d")
		if err != nil {
			t.Fatal(err)
		}
		return s.Password
	}
	get()
	f.set("two")
	if got := get(); got != "one" {
		t.Errorf("%q was not cached", got)
	}
	v.Forget("u", "d")
	if got := get(); got != "two" {
		t.Errorf("%q after Forget", got)
	}
}

func TestLookupGivesUpWithItsCaller(t *testing.T) {
	f := newFake(t)
	f.full = true
	v := verifiers(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-f.arrived; cancel() }()
	if _, err := v.Lookup(ctx, f.addr, "u", "d"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	f.let <- struct{}{}
}

// Those who wait for a node that is not the one to ask any more are told so at once,
// and its answer, when it comes, is nobody's.
func TestLookupAbandoned(t *testing.T) {
	f := newFake(t)
	f.full = true
	v := verifiers(t, 0)
	answers := make(chan error, 3)
	tell := func(_ Secret, err error) { answers <- err }
	v.Ask(f.addr, "u", "d", tell)
	<-f.arrived
	v.Ask(f.addr, "u", "d", tell)
	v.Ask(f.addr, "u", "other", tell)
	v.Abandon(f.addr)
	for range 3 {
		if err := <-answers; !errors.Is(err, ErrAbandoned) {
			t.Errorf("%v", err)
		}
	}
	f.let <- struct{}{} // it answers after all
	f.set("two")
	v.Ask(f.addr, "u", "d", func(s Secret, err error) {
		if s.Password != "two" || err != nil {
			t.Errorf("%q, %v", s.Password, err)
		}
		answers <- nil
	})
	f.let <- struct{}{}
	<-answers
}

func TestDialRefusesPlainAbroad(t *testing.T) {
	for _, d := range []*Dialer{{PlainLocal: true, LoginTimeout: time.Second}, {LoginTimeout: time.Second}} {
		addr := "192.0.2.1:5432"
		if !d.PlainLocal {
			addr = "127.0.0.1:5432"
		}
		if _, err := d.Open(t.Context(), addr, Login{}); !errors.Is(err, ErrPlain) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// Log-ins beyond MaxLogins wait for those under way, and not for ever.
func TestMaxLogins(t *testing.T) {
	d := &Dialer{MaxLogins: 1, LoginTimeout: 50 * time.Millisecond}
	done, err := d.turn(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.turn(t.Context(), "a"); err == nil {
		t.Error("two at once")
	}
	if other, err := d.turn(t.Context(), "b"); err != nil {
		t.Error("another node is held up")
	} else {
		other()
	}
	time.AfterFunc(10*time.Millisecond, done)
	if again, err := d.turn(t.Context(), "a"); err != nil {
		t.Error("the turn was not given back")
	} else {
		again()
	}
}

// A server that skips its half of SCRAM is not believed.
func TestLoginWantsServerSignature(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		wire.ReadStartup(c)
		c.Write(wire.AppendAuthSASL(nil, scram.Mechanism))
		wire.ReadMessage(c, 1000)
		c.Write(wire.AppendAuth(nil, wire.AuthOK, nil))
		io.Copy(io.Discard, c)
	}()
	d := &Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second}
	if _, err := d.Open(t.Context(), l.Addr().String(), Login{Passwords: []string{"x"}}); !errors.Is(err, scram.ErrServer) {
		t.Errorf("%v", err)
	}
	l.Close()
	<-done
}

// On a socket the password has to be asked for: pg_hba.conf may let in there whoever runs
// the proxy.
func TestSocketThatAsksForNothing(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 1000))
		c.Write(wire.AppendMessage(wire.AppendAuth(nil, wire.AuthOK, nil), wire.TypeReady, []byte("I")))
	}()
	d := &Dialer{ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second}
	_, err = d.Open(t.Context(), l.Addr().String(), Login{Params: []wire.Param{{Name: "user", Value: "app"}}, Keys: &scram.Keys{}})
	if !errors.Is(err, ErrUnasked) {
		t.Errorf("%v", err)
	}
}

// A request to cancel that PostgreSQL does not read in time may still be read.
func TestCancelThatIsNotRead(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := &Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 100 * time.Millisecond}
	if err := d.Cancel(t.Context(), l.Addr().String(), 1, []byte("1234")); !errors.Is(err, ErrUnread) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	d.LoginTimeout = time.Minute
	if err := d.Cancel(ctx, l.Addr().String(), 1, []byte("1234")); !errors.Is(err, ErrUnread) {
		t.Errorf("%v", err)
	}
	l.Close()
	if err := d.Cancel(t.Context(), l.Addr().String(), 1, []byte("1234")); err == nil || errors.Is(err, ErrUnread) {
		t.Errorf("nothing was sent: %v", err)
	}
}
