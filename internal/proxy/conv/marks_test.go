package conv

import (
	"testing"

	"manada/internal/proxy/wire"
)

// What is measured by the loop is marked when it begins and when it is answered.
func TestMarks(t *testing.T) {
	c := New(&Config{Mode: Transaction})
	var fx Effects
	step := func(ev Event, want Marks) {
		t.Helper()
		fx.Reset()
		c.Step(ev, &fx)
		if fx.Marks != want {
			t.Errorf("%+v, want %+v", fx.Marks, want)
		}
	}
	messages := func(words ...string) (b []byte) {
		for _, w := range words {
			m, err := message(w, true)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, m...)
		}
		return b
	}
	ready := func(tag string, status byte) []byte {
		return wire.AppendMessage(wire.AppendMessage(nil, wire.TypeComplete, []byte(tag+"\x00")), wire.TypeReady, []byte{status})
	}
	link := func() *Link { return NewLink("db1", 1, map[string]string{"standard_conforming_strings": "on"}, 'I') }

	begin := messages("Q(begin)")
	step(Event{Kind: Bytes, Side: Client, Bytes: begin}, Marks{}) // it waits for a server
	step(Event{Kind: Granted, Side: Main, Link: link()}, Marks{})
	step(Event{Kind: Bytes, Side: Client, Bytes: begin}, Marks{Began: BeganTransaction})
	step(Event{Kind: Bytes, Side: Main, Bytes: ready("BEGIN", 'T')}, Marks{Answered: 1})
	step(Event{Kind: Bytes, Side: Client, Bytes: messages("Q(commit)")}, Marks{Began: BeganUnit})
	step(Event{Kind: Bytes, Side: Main, Bytes: ready("COMMIT", 'I')}, Marks{Answered: 1, Ended: 1})

	prepare := messages("P(s|select 1)", "B(|s)", "E()", "S")
	step(Event{Kind: Bytes, Side: Client, Bytes: prepare}, Marks{})
	step(Event{Kind: Granted, Side: Main, Link: link()}, Marks{})
	step(Event{Kind: Bytes, Side: Client, Bytes: prepare}, Marks{Began: BeganTransaction, ClientParses: 1, ServerParses: 1, Binds: 1})
	answer := wire.AppendMessage(wire.AppendMessage(nil, '1', nil), '2', nil)
	step(Event{Kind: Bytes, Side: Main, Bytes: append(answer, ready("SELECT 1", 'I')...)}, Marks{Answered: 1, Ended: 1})

	// Another server is given the statement by the proxy.
	bind := messages("B(|s)", "E()", "S")
	step(Event{Kind: Bytes, Side: Client, Bytes: bind}, Marks{})
	step(Event{Kind: Granted, Side: Main, Link: link()}, Marks{})
	step(Event{Kind: Bytes, Side: Client, Bytes: bind}, Marks{Began: BeganTransaction, ServerParses: 1, Binds: 1})
	step(Event{Kind: Bytes, Side: Main, Bytes: append(answer, ready("SELECT 1", 'I')...)}, Marks{Answered: 1, Ended: 1})

	// Two in a pipeline are two.
	two := messages("Q(select 1)", "Q(select 2)")
	step(Event{Kind: Bytes, Side: Client, Bytes: two}, Marks{})
	step(Event{Kind: Granted, Side: Main, Link: link()}, Marks{})
	step(Event{Kind: Bytes, Side: Client, Bytes: two}, Marks{Began: BeganTransaction})
	step(Event{Kind: Bytes, Side: Main, Bytes: append(ready("SELECT 1", 'I'), ready("SELECT 1", 'I')...)}, Marks{Answered: 2, Ended: 2})
}
