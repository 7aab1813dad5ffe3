package loop

import (
	"testing"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/wire"
)

// busy is a conversation that is what its last message said, and answers with the
// phase that it knows.
type busy struct {
	frames
	is    conv.Busy
	phase conv.Phase
}

func (b *busy) Busy() conv.Busy { return b.is }

func (b *busy) Step(ev conv.Event, fx *conv.Effects) int {
	switch {
	case ev.Kind == conv.Drain:
		b.phase = ev.Phase
	case ev.Kind == conv.Bytes && ev.Side == conv.Client:
		b.is = conv.Busy(ev.Bytes[len(ev.Bytes)-1])
		fx.List = append(fx.List, conv.Effect{Kind: conv.Send, Side: conv.Client, B: []byte{byte(b.phase)}})
		return len(ev.Bytes)
	}
	return b.frames.Step(ev, fx)
}

// Every client hears of a switchover, also one that comes later, and what it has to
// wait for is counted while it lasts.
func TestSwitchover(t *testing.T) {
	g, _ := start(t, 2)
	begin := func() *served {
		ours, theirs := pair(t)
		s := &served{owner: newOwner(), client: theirs}
		s.handle = g.Serve(Arrival{Socket: take(t, ours), Conv: &busy{}, Owner: s.owner})
		return s
	}
	say := func(s *served, is conv.Busy, want conv.Phase) {
		t.Helper()
		s.client.Write([]byte{byte(is)})
		expect(t, s.client, []byte{byte(want)})
	}
	until := func(want Work) {
		t.Helper()
		for g.Work() != want {
			wait(t, g.stirred)
		}
	}
	a, b := begin(), begin()
	say(a, conv.Working, conv.NoDrain)
	say(b, conv.Quiet, conv.NoDrain)
	if w := g.Work(); w != (Work{}) {
		t.Errorf("%+v without a switchover", w)
	}
	g.Switchover(conv.Soft)
	until(Work{Phase: conv.Soft, Open: 1})
	say(b, conv.Committing, conv.Soft)
	until(Work{Phase: conv.Soft, Open: 2, Committing: 1})
	g.Switchover(conv.Hold)
	say(begin(), conv.Working, conv.Hold)
	until(Work{Phase: conv.Hold, Open: 3, Committing: 1})
	b.handle.Kill(wire.Fatal("57P01", "bye", "")) // who leaves is not waited for
	until(Work{Phase: conv.Hold, Open: 2})
	say(a, conv.Quiet, conv.Hold)
	until(Work{Phase: conv.Hold, Open: 1})
	g.Switchover(conv.NoDrain)
	until(Work{})
	say(a, conv.Working, conv.NoDrain)
	if w := g.Work(); w != (Work{}) {
		t.Errorf("%+v after the switchover", w)
	}
}
