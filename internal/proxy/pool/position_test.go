package pool

import (
	"testing"
	"time"
)

// Those who ask together share a query, but never one that was sent before they
// asked; and a node is not taken for what it is not.
func TestPositions(t *testing.T) {
	f := newFake(t)
	f.set("0/10")
	f.mu.Lock()
	f.third = "0/20"
	f.mu.Unlock()
	p := &Positions{Dialer: &Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second},
		User: "p", Database: "d", Timeout: 5 * time.Second}
	t.Cleanup(p.Close)
	answers := make(chan Position, 10)
	ask := func() {
		at, err := p.Written(t.Context(), f.addr)
		if err != nil {
			t.Error(err)
		}
		answers <- at
	}
	go ask()
	<-f.arrived // the first query is with the server, which has read 0/10
	f.set("0/18")
	for range 5 {
		go ask()
	}
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		waits = p.nodes[f.addr].pending != nil
		p.mu.Unlock()
	}
	f.let <- struct{}{}
	if at := <-answers; at.Flushed != 0x10 || at.Inserted != 0x20 {
		t.Errorf("first answer %+v", at)
	}
	for i := range 5 {
		f.let <- struct{}{}
		if at := <-answers; at.Flushed != 0x18 {
			t.Errorf("answer %d: %+v is older than the question", i, at)
		}
	}
	f.mu.Lock()
	if f.logins != 1 {
		t.Errorf("%d connections", f.logins)
	}
	f.mu.Unlock()
	if _, err := p.Replayed(t.Context(), f.addr); err == nil {
		t.Error("a primary was taken for a standby")
	}
}
