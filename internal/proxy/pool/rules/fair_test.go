package rules

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// 10,000 clients of one pool share 100 connections: each has about as many
// transactions as any other.
func TestManyClientsFewConnections(t *testing.T) {
	d := newDesk(t, 100, Settings{QueueTimeout: 2 * time.Minute})
	a := d.attach("orders", "app")
	const clients = 10000
	served := make([]int, clients)
	claims := make([]*Claim, clients)
	for i := range claims {
		claims[i] = &Claim{Data: i}
		d.do(d.b.Want(d.now, claims[i], a, nil, i%2, nil))
	}
	for range 3000 { // each turn all that have a server finish, and ask again
		d.now += time.Millisecond
		var holders []*Claim
		for c := range d.handed {
			holders = append(holders, c)
		}
		for _, c := range holders {
			served[c.Data.(int)]++
			d.give(c)
			d.do(d.b.Want(d.now, c, a, nil, c.Data.(int)%2, nil))
		}
	}
	if len(d.denied) > 0 || len(d.opens) != 100 {
		t.Errorf("%d denied, %d connections", len(d.denied), len(d.opens))
	}
	slices.Sort(served)
	if least, median := served[0], served[clients/2]; 3*least < median || median < 20 {
		t.Errorf("slowest %d, median %d", least, median)
	}
}

// starving is a lone client of one database beside a thousand of another on a full
// node. It gives the longest wait of the lone client and how many log-ins there were.
func starving(d *desk, turns int) (longest Moment, logins int) {
	crowd, lone := d.attach("orders", "app"), d.attach("stock", "app")
	for range 1000 {
		d.want(crowd)
	}
	c := d.want(lone)
	asked := d.now
	for range turns {
		d.wait(time.Millisecond)
		for h := range d.handed {
			if h == c {
				longest = max(longest, d.now-asked)
				d.give(c)
				c, asked = d.want(lone), d.now
				continue
			}
			d.give(h)
			d.want(crowd)
		}
	}
	return max(longest, d.now-asked), len(d.opens)
}

func TestNobodyStarvesBesideACrowd(t *testing.T) {
	longest, logins := starving(newDesk(t, 20, Settings{}), 5000)
	if longest > 200*time.Millisecond || logins > 100 {
		t.Errorf("waited %s, %d log-ins in 5 s", longest, logins)
	}
	d := newDesk(t, 20, Settings{})
	d.b.without = sharing
	if without, _ := starving(d, 5000); without < time.Second {
		t.Errorf("without the rule it waits %s only: nothing is tested", without)
	}
}

// More pools than connections: all are served, in turn.
func TestMorePoolsThanConnections(t *testing.T) {
	d := newDesk(t, 10, Settings{})
	served := map[*Account]int{}
	of := map[*Claim]*Account{}
	for i := range 100 {
		a := d.attach("orders", fmt.Sprintf("u%d", i))
		for range 3 {
			of[d.want(a)] = a
		}
	}
	for range 10000 {
		d.wait(time.Millisecond)
		for h := range d.handed {
			a := of[h]
			served[a]++
			d.give(h)
			of[d.want(a)] = a
		}
	}
	var n []int
	for _, k := range served {
		n = append(n, k)
	}
	slices.Sort(n)
	if len(n) != 100 || 3*n[0] < n[50] {
		t.Errorf("%d of 100 pools served, %v", len(n), n)
	}
}

// A transaction costs nothing on the heap, whether it waits or not.
func TestNothingIsAllocated(t *testing.T) {
	d := newDesk(t, 1, Settings{QueueTimeout: time.Minute, IdleTimeout: time.Minute, Lifetime: time.Hour})
	a := d.attach("orders", "app")
	var one, two Claim
	out := make([]Decision, 0, 8)
	d.give(d.want(a))
	n := testing.AllocsPerRun(1000, func() {
		out = d.b.Want(d.now, &one, a, nil, 0, out[:0])
		s := out[0].Server
		out = d.b.Want(d.now, &two, a, nil, 1, out[:0])
		out = d.b.Gave(d.now, s, true, out[:0])
		if len(out) != 1 || out[0].Claim != &two || out[0].From != 0 {
			t.Fatal(out)
		}
		out = d.b.Gave(d.now, s, true, out[:0])
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWantAndGive(b *testing.B) {
	book := New(Config{Default: Settings{QueueTimeout: time.Minute, IdleTimeout: time.Minute, Lifetime: time.Hour}}, 2)
	n := book.Node("a")
	book.SetNode(0, n, 10, 1, nil)
	book.Lead(0, n, "", nil)
	a, _, _ := book.Attach(0, "orders", "app", anyone, nil)
	var c Claim
	out := book.Want(0, &c, a, nil, 0, nil)
	s := out[0].Server
	book.Gave(0, s, true, book.Opened(0, s, 0, nil))
	b.ReportAllocs()
	for b.Loop() {
		out = book.Want(0, &c, a, nil, 0, out[:0])
		out = book.Gave(0, s, true, out[:0])
	}
}
