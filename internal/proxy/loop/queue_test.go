package loop

import (
	"io"
	"net"
	"testing"

	"manada/internal/proxy/conv"
)

// asks is a client that has sent a query, and whose end may have come with it.
func asks(t *testing.T, g *Group, end bool) (*owner, net.Conn) {
	t.Helper()
	ours, theirs := pair(t)
	if _, err := theirs.Write(frame('Q', []byte("select 1\x00"))); err != nil {
		t.Fatal(err)
	}
	if end {
		sendsNoMore(t, theirs)
	}
	o, talk := newOwner(), conv.New(&conv.Config{Mode: conv.Transaction})
	talk.Shown(conv.NewReport(map[string]string{"TimeZone": "UTC"}))
	g.Serve(Arrival{Socket: take(t, ours), Conv: talk, Owner: o})
	return o, theirs
}

func sendsNoMore(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// known is what a client hears that sends no more: a setting that it has.
var known = frame('S', []byte("TimeZone\x00UTC\x00"))

// A query and the end of the stream behind it: the client waits for a server, as long as
// it takes, and is answered.
func TestQueryAndItsEnd(t *testing.T) {
	g, _ := start(t, 1)
	o, theirs := asks(t, g, true)
	client := wait(t, o.wants)
	expect(t, theirs, known)
	g.loops[0].post(func(l *Loop) {
		if c := l.find(client); c == nil {
			t.Error("it has left the queue")
		} else {
			c.due[leftTimer] = l.clock() // it is asked once more
			c.wake = 0
			l.wakeClient(c)
		}
	})
	expect(t, theirs, known)
	up, far := pair(t)
	answer := append(frame('C', []byte("SELECT 1\x00")), frame('Z', []byte("I"))...)
	go func() {
		io.ReadFull(far, make([]byte, len(frame('Q', []byte("select 1\x00")))))
		far.Write(answer)
	}()
	k := newKeeper()
	client.Grant(conv.Main, &Server{Socket: take(t, up), Link: conv.NewLink("db1", 7, map[string]string{"TimeZone": "UTC"}, 'I'), Keeper: k}, func() { t.Error("not wanted") })
	expect(t, theirs, answer)
	wait(t, k.gave).End()
	wait(t, k.closed)
	<-o.ended
}

// A client that leaves while it waits leaves the queue at once, whether or not it had
// sent more; one that sent no more for a while before, when it is asked again.
func TestWhoLeavesLeavesTheQueue(t *testing.T) {
	for _, what := range []string{"", "select 2\x00", "half"} {
		g, _ := start(t, 1)
		o, theirs := asks(t, g, false)
		wait(t, o.wants)
		switch what {
		case "":
		case "half":
			sendsNoMore(t, theirs)
			expect(t, theirs, known)
		default:
			if _, err := theirs.Write(frame('Q', []byte(what))); err != nil {
				t.Fatal(err)
			}
		}
		theirs.Close()
		<-o.ended
	}
}
