package conv

import (
	"encoding/binary"
	"testing"
)

// TestLargeMessagesAreStreamed: of a message of 50 MB nothing is left with the
// driver, and nothing of it is kept or copied, in any mode and either way.
func TestLargeMessagesAreStreamed(t *testing.T) {
	const size, piece = 50 << 20, 64 << 10
	for _, cfg := range []*Config{{}, {Split: true}, {Mode: Transaction}, {Mode: Auto, Split: true}} {
		var fx Effects
		c := New(cfg)
		l, _ := newTestLink(Main, nil)
		if cfg.Mode == Session {
			c.Step(Event{Kind: Granted, Side: Main, Link: l}, &fx)
		}
		pass := func(side Side, head string, total int) {
			b, err := messages(head, side == Client)
			if err != nil {
				t.Fatal(err)
			}
			last := lastMessage(b)
			binary.BigEndian.PutUint32(b[last+1:], uint32(total-1))
			b = append(b, make([]byte, piece)...)
			for left := total - (len(b) - last); ; {
				fx.Reset()
				n := c.Step(Event{Side: side, Bytes: b}, &fx)
				for len(fx.List) > 0 && n < len(b) { // a server was wanted
					fx.Reset()
					c.Step(Event{Kind: Granted, Side: Main, Link: l}, &fx)
					n += c.Step(Event{Side: side, Bytes: b[n:]}, &fx)
				}
				if n != len(b) || c.over {
					t.Fatalf("%+v: %d of %d bytes are taken", *cfg, n, len(b))
				}
				if cap(fx.own) > 4*piece {
					t.Fatalf("%d bytes are copied", cap(fx.own))
				}
				if left <= 0 {
					return
				}
				b = make([]byte, min(left, piece))
				left -= len(b)
			}
		}
		pass(Client, "P(s|insert into t values ($1)|1) B(|s)", size)
		b, _ := messages("E S", true)
		fx.Reset()
		c.Step(Event{Side: Client, Bytes: b}, &fx)
		pass(Main, "1 2 D(x)", size)
	}
}

// lastMessage is where the last message of b begins.
func lastMessage(b []byte) (at int) {
	for n := 0; n < len(b); n += 1 + int(binary.BigEndian.Uint32(b[n+1:])) {
		at = n
	}
	return at
}
