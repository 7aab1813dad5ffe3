package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/health"
	"manada/internal/postgres"
)

// drainingAgent leads epoch 2 and hands it over; the proxies that hear it are in
// the map that it returns.
func drainingAgent(t *testing.T) (*Agent, map[string]string) {
	a, proxies := newTestAgent(t), map[string]string{}
	a.listening = func() map[string]string { return proxies }
	a.seen = observed{state: cluster.PostgresPrimary, timeline: 2, postmaster: 11, instance: "m"}
	a.take(snapshot(twoEpochs(), 5))
	a.drain = &draining{id: "d1", to: "slave", request: "r1", answers: map[string]cluster.DrainAnswer{}, held: func() {}}
	return a, proxies
}

func (a *Agent) drainNow() decide.LocalDrain {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drainView(a.rec.snap.Term, time.Now())
}

// phase is what the record says next.
func phase(a *Agent, id string, hold bool) {
	n := twoEpochs()
	n.Drain = &cluster.Drain{ID: id, Epoch: 2, To: "slave", Hold: hold}
	a.take(snapshot(n, 6))
	a.drainNow()
}

// A phase begins when it stands in the record, however this run learned so (its
// own swap may have had an unknown outcome), once, and only by its own drain.
func TestDrainPhases(t *testing.T) {
	a, _ := drainingAgent(t)
	ended := 0
	a.drain.held = func() { ended++ }
	if d := a.drainNow(); d.ID != "d1" || d.Age != 0 || d.Hold || d.Looked < time.Hour {
		t.Errorf("before the first swap: %+v", d)
	}
	phase(a, "of somebody else", true)
	if d := a.drainNow(); d.Age != 0 || d.Hold {
		t.Errorf("by another drain: %+v", d)
	}
	phase(a, "d1", false)
	if ended != 0 {
		t.Error("what is done until the hold has ended before")
	}
	phase(a, "d1", true)
	held := a.drain.heldAt
	if ended != 1 {
		t.Error("the WAL segment is filled in the hold, too")
	}
	phase(a, "d1", true) // put back
	if d := a.drainNow(); d.Age <= 0 || !d.Hold || d.HoldAge > d.Age || a.drain.heldAt != held {
		t.Errorf("in the hold: %+v", d)
	}
	a.drain.looked, a.drain.clients = time.Now().Add(-time.Second), postgres.Clients{Open: 3, InCommit: 1, Oldest: time.Minute}
	if d := a.drainNow(); d.Looked < time.Second || d.Looked > time.Minute || d.Open != 3 || d.InCommit != 1 || d.Oldest != time.Minute {
		t.Errorf("a look: %+v", d)
	}
	next := twoEpochs()
	next.Epoch, next.Leader = 3, "slave"
	a.take(snapshot(next, 7))
	if d := a.drainNow(); d.ID != "" {
		t.Errorf("in the next epoch: %+v", d)
	}
}

// The proxies that hear this host are waited for until each has said that it
// holds; whoever does not hear it is not, and can say nothing.
func TestDrainWaitsForProxies(t *testing.T) {
	a, proxies := drainingAgent(t)
	phase(a, "d1", false)
	answer := func(boot, host string, hold bool) bool {
		return a.takeAnswer(cluster.DrainAnswer{ID: "d1", Proxy: host, Boot: boot, Hold: hold})
	}
	proxies["b1"], proxies["b2"], proxies["b3"] = "p1", "p2", "p2" // one of p2 was just started again
	if !answer("b1", "p1", false) {
		t.Error("an answer in the first phase was not taken")
	}
	phase(a, "d1", true)
	if d := a.drainNow(); !slices.Equal(d.Unheld, []string{"p1", "p2"}) || d.HeldFor != 0 {
		t.Errorf("nobody holds yet: %+v", d)
	}
	for _, x := range []cluster.DrainAnswer{
		{ID: "d0", Proxy: "p1", Boot: "b1", Hold: true},   // of another drain
		{ID: "d1", Proxy: "p9", Boot: "b9", Hold: true},   // that does not hear us
		{ID: "d1", Proxy: "p2", Boot: "b1", Hold: true}} { // in another's name
		if a.takeAnswer(x) {
			t.Errorf("taken: %+v", x)
		}
	}
	answer("b1", "p1", true)
	answer("b2", "p2", true)
	if d := a.drainNow(); !slices.Equal(d.Unheld, []string{"p2"}) || d.HeldFor != 0 {
		t.Errorf("one does not hold: %+v", d)
	}
	before := time.Now()
	answer("b3", "p2", true)
	if d := a.drainNow(); len(d.Unheld) > 0 || d.HeldFor <= 0 || d.HeldFor > time.Since(before) {
		t.Errorf("all hold: %+v", d)
	}
	answered := a.drain.answered
	answer("b1", "p1", true) // its numbers changed, nothing else
	if a.drain.answered != answered {
		t.Error("a repeated answer counts as a new one: a look before it would be of no use")
	}
	delete(proxies, "b3")
	proxies["b4"] = "p3" // that came in the middle of it
	if d := a.drainNow(); !slices.Equal(d.Unheld, []string{"p3"}) {
		t.Errorf("a new one: %+v", d)
	}
	delete(proxies, "b4")
	if d := a.drainNow(); len(d.Unheld) > 0 {
		t.Errorf("it has gone: %+v", d)
	}
	if select1(a.drainNews) {
		a.endDrain()
	} else {
		t.Error("the looks are not told of an answer")
	}
	if answer("b1", "p1", true) {
		t.Error("an answer was taken after the drain was withdrawn")
	}
}

// While it lasts the beat, and with it `status`, says what is waited for.
func TestDrainIsTold(t *testing.T) {
	a, proxies := drainingAgent(t)
	proxies["b1"] = "p1"
	told := func() string {
		v := a.view()
		d := decide.Decision{Reason: "switchover to slave: waiting for transactions older than 300ms"}
		a.publish(v, d)
		for _, c := range a.Self().Conditions {
			if c.Code == string(health.HandingOver) {
				if c.Text != a.Self().Op || c.Node != "slave" {
					t.Errorf("condition %+v, op %q", c, a.Self().Op)
				}
				return c.Text
			}
		}
		return ""
	}
	phase(a, "d1", false)
	a.drain.clients = postgres.Clients{Open: 2, Oldest: 2500 * time.Millisecond}
	if got := told(); !strings.Contains(got, "older than 300ms (for 0.0 s; 2 transactions open, the oldest for 2.5 s)") {
		t.Errorf("told %q", got)
	}
	a.endDrain()
	if got := told(); got != "" || a.Self().Op != "" {
		t.Errorf("after it was given up: %q, %q", got, a.Self().Op)
	}
}

func select1(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
