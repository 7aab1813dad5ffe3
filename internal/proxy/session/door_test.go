package session

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"manada/internal/cluster"
)

// from is a connection that only has an address.
type from struct {
	net.Conn
	addr   string
	closed bool
}

func (f *from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr))
}
func (f *from) Close() error { f.closed = true; return nil }

func TestDoor(t *testing.T) {
	d := &door{limit: 4}
	enter := func(addr string) (*visitor, *from) {
		c := &from{addr: addr}
		return d.enter(c), c
	}
	_, first := enter("10.0.0.1:1")
	v, second := enter("10.0.0.1:2")
	_, quiet := enter("10.0.0.2:1")
	v.working(true)
	_, third := enter("10.0.0.1:3")
	if _, c := enter("10.0.0.3:1"); !first.closed || c.closed {
		t.Error("the oldest of the address with most goes first")
	}
	_, c4 := enter("10.0.0.1:4")
	if !third.closed || second.closed || quiet.closed || c4.closed {
		t.Errorf("who waits for us stays: %v %v %v", third.closed, second.closed, quiet.closed)
	}
	v.working(false)
	v.leave()
	v.leave()
	if d.n != 3 {
		t.Errorf("%d inside", d.n)
	}
	// Everybody waits for us: an address with its share gets no more, another does.
	d = &door{limit: 3}
	var last *from
	for _, a := range []string{"10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"} {
		v, last = enter(a)
		v.working(true)
	}
	if v, _ := enter("10.0.0.1:4"); v != nil {
		t.Error("one more than its share")
	}
	if v, _ := enter("[fd00::1]:4"); v == nil || !last.closed {
		t.Error("another address is kept out")
	}
	if a, b := cluster.HostOf("[fd00::99]:1"), cluster.HostOf("[fd00::1]:2"); a != b {
		t.Errorf("%s and %s of one network", a, b)
	}
}

func TestGuesses(t *testing.T) {
	at := time.Unix(1000, 0)
	g := guesses{now: func() time.Time { return at }}
	here, there := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32")
	wrong, right := func() bool { return false }, func() bool { return true }
	var took time.Duration
	for range 20 {
		for {
			wait := g.attempt(here, "app", wrong)
			if wait == 0 {
				break
			}
			at, took = at.Add(wait), took+wait
		}
	}
	if took < 30*time.Second || took > 80*time.Second {
		t.Errorf("20 guesses take %s", took)
	}
	if g.attempt(here, "app", right) == 0 {
		t.Error("looked at before its turn")
	}
	if g.attempt(there, "app", right) != 0 || g.attempt(here, "other", right) != 0 {
		t.Error("others are slowed")
	}
	at = at.Add(longestPause)
	if g.attempt(here, "app", right) != 0 || g.attempt(here, "app", wrong) != 0 || g.attempt(here, "app", right) != 0 {
		t.Error("slowed after the right one")
	}
	// Names that are invented slow their address.
	for i := range freeOfAddress {
		g.attempt(there, string(rune('a'+i%26))+string(rune('a'+i/26)), wrong)
	}
	if g.attempt(there, "one more", wrong) == 0 {
		t.Error("a spray is not slowed")
	}
	for i := range 2 * maxGuessKeys {
		g.attempt(netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32), "x", wrong)
		at = at.Add(time.Second)
	}
	if len(g.keys) > maxGuessKeys+2 {
		t.Errorf("%d keys are kept", len(g.keys))
	}
	// Whoever would wait too long is told without a look, and nobody waits for one that left.
	for range 20 {
		g.attempt(here, "late", wrong)
		at = at.Add(longestPause)
	}
	g.attempt(here, "late", wrong)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if g.try(ctx, here, "late", right) {
		t.Error("looked at for somebody who left")
	}
}
