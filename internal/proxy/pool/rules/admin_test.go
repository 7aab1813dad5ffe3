package rules

import (
	"slices"
	"testing"
	"time"
)

func TestPauseAndResume(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 2, QueueTimeout: time.Minute})
	a, other := d.attach("orders", "app"), d.attach("stock", "app")
	busy := d.want(a)
	d.give(d.want(a))
	out, err := d.b.Pause("orders", nil)
	if d.do(out); err != nil {
		t.Fatal(err)
	}
	id, out := d.b.Await("orders", Quiet, nil)
	d.do(out)
	held := d.want(a)
	d.expect(held, "waits")
	d.expect(d.want(other), "server")
	if len(d.done) != 0 {
		t.Fatal("paused while a transaction is open")
	}
	d.give(busy)
	if !slices.Equal(d.done, []uint64{id}) {
		t.Fatalf("%v", d.done)
	}
	if _, err = d.b.Pause("orders", nil); err == nil { // if that were cancelled, whose PAUSE would it end?
		t.Error("paused twice")
	}
	if out, err = d.b.Resume(d.now, "orders", nil); err != nil {
		t.Fatal(err)
	}
	d.do(out)
	d.expect(held, "server")
	if _, err = d.b.Resume(d.now, "orders", nil); err == nil {
		t.Error("resumed twice")
	}
}

// A database that is paused before its first client comes.
func TestPauseBeforeTheFirstClient(t *testing.T) {
	d := newDesk(t, 10, Settings{QueueTimeout: time.Minute})
	out, _ := d.b.Pause("", nil)
	d.do(out)
	c := d.want(d.attach("orders", "app"))
	d.expect(c, "waits")
	d.wait(2 * time.Minute)
	d.expect(c, "53300")
	if e := d.denied[c]; e.Detail != `Database "orders" is paused at this proxy's console.` {
		t.Errorf("%+v", e)
	}
}

func TestKill(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 1})
	a := d.attach("orders", "app")
	busy, queued := d.want(a), d.want(a)
	d.do(d.b.Kill("orders", nil))
	d.expect(queued, "57P01 terminating connection due to administrator command")
	if v := d.b.Pools(d.now)[0]; v.Active+v.Idle+v.Login != 0 || d.closed != 1 {
		t.Errorf("%+v", v)
	}
	d.do(d.b.Gave(d.now, d.handed[busy], true, nil)) // which the client may still do
	again := d.want(a)
	d.expect(again, "waits")
	out, err := d.b.Resume(d.now, "orders", nil)
	if d.do(out); err != nil {
		t.Fatal(err)
	}
	d.expect(again, "server")
}

func TestDisable(t *testing.T) {
	d := newDesk(t, 10, Settings{})
	a := d.attach("orders", "app")
	d.b.Disable("orders")
	if _, err, _ := d.b.Attach(d.now, "orders", "app", anyone, nil); err == nil || err.Code != "55000" {
		t.Errorf("%v", err)
	}
	d.expect(d.want(a), "server") // those who are in stay in
	d.b.Enable("orders")
	d.attach("orders", "app")
}

func TestReconnectAndWaitClose(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 3})
	a := d.attach("orders", "app")
	busy := d.want(a)
	d.give(d.want(a))
	d.do(d.b.Reconnect(d.now, "orders", nil))
	id, out := d.b.Await("orders", Fresh, nil)
	d.do(out)
	fresh := d.want(a)
	d.expect(fresh, "server")
	if d.closed != 1 || len(d.done) != 0 {
		t.Fatalf("%d closed, %v", d.closed, d.done)
	}
	d.give(busy)
	if d.closed != 2 || !slices.Equal(d.done, []uint64{id}) {
		t.Errorf("%d closed, %v", d.closed, d.done)
	}
}
