package pool

import (
	"context"
	"testing"
	"time"
)

// Log-ins after a switchover find connections that were made before it; one that has
// died costs its log-in another, and those that nobody takes are closed.
func TestAhead(t *testing.T) {
	f := newFake(t)
	d := &Dialer{PlainLocal: true, ConnectTimeout: 10 * time.Second, LoginTimeout: 10 * time.Second}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	made := func() (n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.accepted
	}
	ready := func() (n int) {
		d.ahead.mu.Lock()
		defer d.ahead.mu.Unlock()
		for _, e := range d.ahead.conns[f.addr] {
			if e.conn != nil {
				n++
			}
		}
		return n
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for until := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal(what)
			}
		}
	}
	logIn := func() {
		t.Helper()
		b, err := d.Open(ctx, f.addr, Login{})
		if err != nil {
			t.Fatal(err)
		}
		b.Conn.Close()
	}
	d.Ahead(ctx, f.addr, 2)
	d.Ahead(ctx, f.addr, 3) // one more
	await("three are made", func() bool { return ready() == 3 && made() == 3 })
	logIn()
	if made() != 3 || ready() != 2 {
		t.Errorf("a log-in did not take what was there: %d made, %d left", made(), ready())
	}
	f.hangUp()
	logIn()
	if made() != 4 {
		t.Errorf("one on which PostgreSQL has hung up: %d made", made())
	}
	await("the other one is still there", func() bool { return ready() == 1 })
	d.Ahead(ctx, f.addr, 2)
	await("another is made", func() bool { return ready() == 2 })
	end()
	await("all are closed", func() bool { return ready() == 0 && f.open() == 0 })
}
