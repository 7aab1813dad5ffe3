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
	o := newOwner()
	g.Serve(Arrival{Socket: take(t, ours), Conv: conv.New(&conv.Config{Mode: conv.Transaction}), Owner: o})
	return o, theirs
}

func sendsNoMore(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// A query and the end of the stream behind it: the client waits for a server, and
// is answered.
func TestQueryAndItsEnd(t *testing.T) {
	g, _ := start(t, 1)
	o, theirs := asks(t, g, true)
	client := wait(t, o.wants)
	up, far := pair(t)
	answer := append(frame('C', []byte("SELECT 1\x00")), frame('Z', []byte("I"))...)
	go func() {
		io.ReadFull(far, make([]byte, len(frame('Q', []byte("select 1\x00")))))
		far.Write(answer)
	}()
	k := newKeeper()
	client.Grant(conv.Main, &Server{Socket: take(t, up), Link: conv.NewLink("db1", 7, nil, 'I'), Keeper: k}, func() { t.Error("not wanted") })
	expect(t, theirs, answer)
	wait(t, k.gave).End()
	wait(t, k.closed)
	<-o.ended
}

// A client that leaves while it waits leaves the queue.
func TestWhoLeavesLeavesTheQueue(t *testing.T) {
	g, _ := start(t, 1)
	o, theirs := asks(t, g, false)
	wait(t, o.wants)
	sendsNoMore(t, theirs)
	<-o.ended
}
