package rules

import (
	"slices"
	"testing"
	"time"

	"manada/internal/proxy/wire"
)

// Who waits for any node to read from is sent to look again, in the order in which they
// came; who waits for the primary waits on.
func TestNowhere(t *testing.T) {
	d := newDesk(t, 1, Settings{QueueTimeout: time.Minute})
	a := d.attach("orders", "app")
	d.do(d.b.Lead(d.now, nil, "db1 fell", nil))
	writer := d.want(a)
	var looked []*Claim
	for range 2 {
		c := &Claim{}
		d.do(d.b.Want(d.now, c, a, d.b.Nowhere(), 0, nil))
		d.expect(c, "waits")
		looked = append(looked, c)
	}
	out := d.b.Look(nil)
	if len(out) != 2 || out[0].Claim != looked[0] || out[1].Claim != looked[1] || out[0].Kind != Deny || out[0].Err != nil || looked[0].Waiting() {
		t.Errorf("%+v", out)
	}
	d.expect(writer, "waits")
	late := &Claim{}
	d.do(d.b.Want(d.now, late, a, d.b.Nowhere(), 0, nil))
	d.do(d.b.Lead(d.now, d.n, "", nil))
	d.expect(writer, "server")
	d.expect(late, "waits")
	away, at := d.b.Node("b"), &Claim{} // a node that leaves while somebody waits there
	d.do(d.b.SetNode(d.now, away, 1, 1, nil))
	d.slow = true
	d.do(d.b.Want(d.now, at, a, away, 0, nil))
	d.expect(at, "waits")
	for range 2 { // and who comes later
		if out = d.b.SetNode(d.now, away, 0, 1, nil); len(out) == 0 {
			out = d.b.Want(d.now, at, a, away, 0, nil)
		}
		if at.Waiting() || !slices.ContainsFunc(out, func(x Decision) bool { return x.Kind == Deny && x.Claim == at && x.Err == nil }) {
			t.Errorf("%+v", out)
		}
	}
	d.wait(2 * time.Minute)
	d.expect(late, "57P03 no standby could be read from within 1m0s")
	d.slow = false // one that has a server, and gets no other
	d.open(d.opens[len(d.opens)-1])
	d.do(d.b.SetNode(d.now, away, 2, 2, nil))
	d.do(d.b.Want(d.now, at, a, away, 0, nil))
	d.expect(at, "server")
	d.fails = wire.Fatal("25006", "it is none any more", "")
	second := &Claim{}
	d.do(d.b.Want(d.now, second, a, away, 0, nil))
	d.expect(second, "25006")
}
