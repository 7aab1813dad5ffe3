package conversation

import (
	"net"
	"slices"
	"testing"
)

// Whoever has hung up before all was written to him ends once.
func TestWhatIsNotTakenEndsOnce(t *testing.T) {
	for _, kind := range []Step{{Kind: Wait, Text: "Z", N: 1}, {Kind: Send}, {Kind: Fin}} {
		ours, theirs := net.Pipe()
		theirs.Close()
		c := newClient(ours, Target{})
		c.gather = []byte("S")
		p := &play{Player: &Player{}, clients: []*client{c}}
		if err := p.step(t.Context(), kind); err != nil {
			t.Error(err)
		}
		if want := []string{"not taken", "end"}; !slices.Equal(c.lines, want) {
			t.Errorf("step %v: %q, want %q", kind.Kind, c.lines, want)
		}
		ours.Close()
	}
}
