package loop

import (
	"io"
	"net"
	"testing"
	"time"

	"manada/internal/proxy/conv"
)

// keeper records what comes to it.
type keeper struct{ gave, closed chan *Server }

func newKeeper() *keeper { return &keeper{make(chan *Server, 8), make(chan *Server, 8)} }

func (k *keeper) Gave(s *Server)   { k.gave <- s }
func (k *keeper) Closed(s *Server) { k.closed <- s }

func wait[T any](t testing.TB, ch chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing comes")
	}
	return v
}

// keptServer is a server of a keeper's, and its far end.
func keptServer(t testing.TB, k *keeper, version uint16) (*Server, net.Conn) {
	t.Helper()
	up, far := pair(t)
	if version != plain {
		up, far = secured(t, up, far, version)
	}
	return &Server{Socket: take(t, up), Link: conv.NewLink("db1", 7, nil, 'I'), Keeper: k}, far
}

// turns gives its server back after each answer.
type turns struct {
	frames
	how conv.How
}

func (s *turns) Step(ev conv.Event, fx *conv.Effects) int {
	n := s.frames.Step(ev, fx)
	if ev.Kind == conv.Bytes && ev.Side == conv.Main {
		s.main = false
		fx.List = append(fx.List, conv.Effect{Kind: conv.Give, Side: conv.Main, How: s.how})
	}
	return n
}

// A server goes from client to client, and from loop to loop, as it is.
func TestServerChangesHands(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			g, _ := start(t, 2)
			k := newKeeper()
			server, far := keptServer(t, k, version)
			go echo(far)
			g.Park(server, 1)
			t.Cleanup(func() { server.End(); wait(t, k.closed) })
			for i := range 20 {
				ours, theirs := pair(t)
				o := newOwner()
				g.Serve(Arrival{Socket: take(t, ours), Conv: &turns{}, Owner: o})
				msg := frame('Q', []byte{byte(i)})
				for range 3 {
					theirs.Write(msg)
					wait(t, o.wants).Grant(conv.Main, server, func() { t.Error("not wanted") })
					expect(t, theirs, msg)
					if how := wait(t, o.back); how != conv.Clean {
						t.Errorf("given back %v", how)
					}
					if wait(t, k.gave) != server {
						t.Error("another server")
					}
				}
			}
		})
	}
}

// A server that waits on the client's loop is offered with what the client says: it is
// taken without a word to anybody, or goes back. One of which there is something to tell
// is not offered.
func TestServerAtHand(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			g, _ := start(t, 1)
			k := newKeeper()
			server, far := keptServer(t, k, version)
			go echo(far)
			g.Park(server, 0)
			talks := &turns{}
			talks.takes = true
			theirs, o := without(t, g, talks)
			msg := frame('Q', []byte("x"))
			for range 3 {
				o.hand.Store(server)
				theirs.Write(msg)
				expect(t, theirs, msg)
				wait(t, o.back)
				wait(t, k.gave)
			}
			if n := g.Stats()[0]; n.Assignments != 3 || n.Wait.Total() != 3 || len(o.wants) > 0 {
				t.Errorf("%d servers given, %d waits, %d wanted", n.Assignments, n.Wait.Total(), len(o.wants))
			}

			other, leaves := without(t, g, &turns{})
			leaves.hand.Store(server)
			other.Write(msg)
			wait(t, leaves.wants)
			if wait(t, k.gave) != server {
				t.Error("another server")
			}

			g.Won(8) // its keeper has not heard of that
			old, _ := keptServer(t, k, version)
			o.hand.Store(old)
			theirs.Write(msg)
			wait(t, o.wants)
			if wait(t, k.closed) != server || wait(t, k.gave) != old {
				t.Error("another server")
			}
			old.End()
			wait(t, k.closed)
		})
	}
}

// without brings a client that has no server.
func without(t testing.TB, g *Group, c Conversation) (net.Conn, *owner) {
	t.Helper()
	ours, theirs := pair(t)
	o := newOwner()
	g.Serve(Arrival{Socket: take(t, ours), Conv: c, Owner: o})
	return theirs, o
}

// One that ends while nobody has it, or says something unasked, is closed.
func TestParkedServerEnds(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			g, _ := start(t, 1)
			k := newKeeper()
			for _, ends := range []func(net.Conn){func(c net.Conn) { c.Close() }, func(c net.Conn) { c.Write([]byte("S")) }} {
				s, far := keptServer(t, k, version)
				g.Park(s, 0)
				ends(far)
				wait(t, k.closed)
				s.End() // nothing more
			}
			s, _ := keptServer(t, k, version)
			s.End() // nobody has had it
			wait(t, k.closed)
			s, far := keptServer(t, k, version)
			g.Park(s, 0)
			g.Won(8)
			wait(t, k.closed)
			if n, _ := far.Read(make([]byte, 1)); n != 0 {
				t.Error("it is not closed")
			}
		})
	}
}

// One that is ended while a client has it takes that with it, as one that ends by
// itself; one that is handed out and not wanted any more goes back.
func TestServerEndsWithClient(t *testing.T) {
	g, _ := start(t, 2)
	k := newKeeper()
	server, far := keptServer(t, k, plain)
	ours, theirs := pair(t)
	o := newOwner()
	g.Serve(Arrival{Socket: take(t, ours), Conv: &turns{}, Owner: o})
	theirs.Write(frame('Q', nil))
	c := wait(t, o.wants)
	c.Grant(conv.Main, server, func() { t.Error("not wanted") })
	expect(t, far, frame('Q', nil))
	server.End()
	wait(t, k.closed)
	wait(t, o.back)
	if b, err := io.ReadAll(theirs); err != nil || len(b) == 0 {
		t.Errorf("its last words: %q, %v", b, err)
	}
	wait(t, o.ended)

	late, _ := keptServer(t, k, plain)
	c.Grant(conv.Main, late, func() { o.back <- conv.Clean })
	wait(t, o.back)
	if wait(t, k.gave) != late {
		t.Error("another server")
	}
	late.End()
	wait(t, k.closed)
}

// A server that a client has left something in is told DISCARD ALL, and goes back once
// that has succeeded, however the answer comes. Otherwise it is closed.
func TestServerIsCleared(t *testing.T) {
	cleared := "S\x00\x00\x00\x0czone\x00GB\x00" + "N\x00\x00\x00\x08xyz\x00" + "C\x00\x00\x00\x10DISCARD ALL\x00" + "Z\x00\x00\x00\x05I"
	for _, c := range []struct {
		name, answer string
		again        bool
	}{
		{"cleared", cleared, true},
		{"refused", "E\x00\x00\x00\x0fSERROR\x00C1\x00\x00Z\x00\x00\x00\x05I", false},
		{"more than was asked for", cleared + "Z\x00\x00\x00\x05I", false},
		{"in a transaction", "Z\x00\x00\x00\x05T", false},
		{"nonsense", "R\x00\x00\x00\x08\x00\x00\x00\x00", false},
		{"ends", "C\x00\x00", false},
	} {
		for name, version := range versions {
			t.Run(c.name+", "+name, func(t *testing.T) {
				g, _ := start(t, 1)
				k := newKeeper()
				server, far := keptServer(t, k, version)
				ours, theirs := pair(t)
				o := newOwner()
				g.Serve(Arrival{Socket: take(t, ours), Conv: &turns{how: conv.Discard}, Owner: o})
				msg := frame('Q', []byte("x\x00"))
				theirs.Write(msg)
				wait(t, o.wants).Grant(conv.Main, server, func() { t.Error("not wanted") })
				expect(t, far, msg)
				far.Write(msg)
				expect(t, theirs, msg)
				expect(t, far, frame('Q', []byte("DISCARD ALL\x00")))
				select {
				case <-k.gave:
					t.Error("given on before it was cleared")
				default:
				}
				if c.name == "more than was asked for" {
					far.Write([]byte(c.answer))
				} else {
					for i := range len(c.answer) {
						far.Write([]byte(c.answer[i : i+1]))
					}
				}
				if c.name == "ends" {
					far.Close()
				}
				if !c.again {
					wait(t, k.closed)
					return
				}
				if wait(t, k.gave) != server || server.Link.Reported()["zone"] != "GB" {
					t.Error("another server, or one that was not listened to")
				}
				server.End()
				wait(t, k.closed)
			})
		}
	}
}

// One that does not answer DISCARD ALL is closed after a while.
func TestServerIsNotCleared(t *testing.T) {
	before := clearTime
	clearTime = 50 * time.Millisecond
	defer func() { clearTime = before }()
	g, _ := start(t, 1)
	k := newKeeper()
	server, far := keptServer(t, k, plain)
	ours, theirs := pair(t)
	o := newOwner()
	g.Serve(Arrival{Socket: take(t, ours), Conv: &turns{how: conv.Discard}, Owner: o})
	theirs.Write(frame('Q', nil))
	wait(t, o.wants).Grant(conv.Main, server, func() { t.Error("not wanted") })
	expect(t, far, frame('Q', nil))
	far.Write(frame('Q', nil))
	wait(t, k.closed)
}
