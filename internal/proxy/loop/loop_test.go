package loop

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/tlsmem"
	"manada/internal/proxy/wire"
)

// owner records what the loop tells of a client.
type owner struct {
	wants chan *Client
	back  chan conv.How
	ended chan struct{}
	hand  atomic.Pointer[Server] // that is at hand, once
}

func newOwner() *owner {
	return &owner{wants: make(chan *Client, 8), back: make(chan conv.How, 8), ended: make(chan struct{})}
}

func (o *owner) AtHand(*Client) *Server { return o.hand.Swap(nil) }

func (o *owner) Want(c *Client, _ conv.Side) (*Server, bool) { o.wants <- c; return nil, true }
func (o *owner) Withdraw(conv.Side)                          {}
func (o *owner) Back(_ conv.Side, _ *Server, how conv.How)   { o.back <- how }
func (o *owner) Ask(*Client, *conv.Effect, *Server)          {}
func (o *owner) Cancel(*Client, conv.Side, *Server)          {}
func (o *owner) Note(conv.EffectKind, string)                {}
func (o *owner) Count(*conv.Counts, *Server)                 {}
func (o *owner) Lost(conv.Side, *Server, conv.Why, bool)     {}
func (o *owner) Ended()                                      { close(o.ended) }

// start starts loops that have to leave nothing behind.
func start(t testing.TB, n int) (*Group, *[2]Traffic) {
	t.Helper()
	pair(t) // Go's own poller opens files with the first connection
	files := openFiles(t)
	before := runtime.NumGoroutine()
	traffic := [2]Traffic{{new(atomic.Int64), new(atomic.Int64)}, {new(atomic.Int64), new(atomic.Int64)}}
	g, err := Start(n, slog.New(slog.DiscardHandler), traffic)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.EndAll(wire.Fatal("57P01", "the test is over", ""))
		g.Wait()
		g.Close()
		eventually(t, "files are left open", func() bool { return openFiles(t) <= files })
		eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= before })
	})
	return g, &traffic
}

func openFiles(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// pair are the two ends of a connection; the test's is closed with it.
func pair(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if theirs, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ours.Close() // usually taken
		theirs.Close()
	})
	return ours, theirs
}

// secured shakes hands over both ends.
func secured(t testing.TB, ours, theirs net.Conn, version uint16) (near, far *tls.Conn) {
	t.Helper()
	near = tlsmem.Server(ours, tlsmem.Prepare(&tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: version, MaxVersion: version}), nil)
	far = tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
	var g sync.WaitGroup
	g.Go(func() {
		if err := far.Handshake(); err != nil {
			t.Error(err)
		}
	})
	if err := near.Handshake(); err != nil {
		t.Fatal(err)
	}
	g.Wait()
	return near, far
}

func take(t testing.TB, conn net.Conn) *Socket {
	t.Helper()
	s, err := Take(conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// served is a client in a loop and the far ends of its connections.
type served struct {
	*owner
	handle         *Client
	client, server net.Conn
}

const plain = 0

// serve brings a client and its server into a loop. version is TLS's.
func serve(t testing.TB, g *Group, version uint16) *served {
	t.Helper()
	ours, theirs := pair(t)
	up, far := pair(t)
	s := &served{owner: newOwner(), client: theirs, server: far}
	if version != plain {
		ours, s.client = secured(t, ours, theirs, version)
		up, s.server = secured(t, up, far, version)
	}
	s.handle = g.Serve(Arrival{Socket: take(t, ours), Conv: &frames{}, Owner: s.owner,
		Main: &Server{Socket: take(t, up), Link: &conv.Link{Node: "db1", Epoch: 7}}})
	return s
}

func (s *served) over(t testing.TB) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the conversation does not end")
	}
	select {
	case how := <-s.back:
		if how != conv.Close {
			t.Errorf("the server came back %v, want Close", how)
		}
	case <-time.After(20 * time.Second):
		t.Error("the server does not come back")
	}
}

// echo answers what it reads until the end.
func echo(conn net.Conn) {
	io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}) // without a pipe of the kernel's, which Go keeps
	conn.Close()
}

func expect(t testing.TB, r io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %.80q, want %.80q", got, want)
	}
}

var versions = map[string]uint16{"plain": plain, "TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// Messages arrive whole wherever what bears them is cut.
func TestEverySplit(t *testing.T) {
	g, _ := start(t, 1)
	var all []byte
	for i, n := range []int{0, 1, 30, 999, large + 10} {
		all = append(all, frame('Q', bytes.Repeat([]byte{byte('a' + i)}, n))...)
	}
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			s := serve(t, g, version)
			go echo(s.server)
			step := 1
			if version != plain {
				step = 7
			}
			for at := 0; at <= len(all); at += step {
				s.client.Write(all[:at])
				s.client.Write(all[at:])
				expect(t, s.client, all)
			}
			for i := range all { // byte by byte
				s.client.Write(all[i : i+1])
			}
			s.client.Write(bytes.Repeat(all, 20)) // and all at once
			expect(t, s.client, bytes.Repeat(all, 21))
			s.client.Close()
			s.over(t)
		})
	}
}

// TLS records that are cut anywhere are no other than whole ones.
func TestSplitRecords(t *testing.T) {
	g, _ := start(t, 1)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ours, theirs := pair(t)
		cut := &cutter{Conn: theirs}
		near, far := secured(t, ours, cut, version)
		up, server := pair(t)
		go echo(server)
		o := newOwner()
		g.Serve(Arrival{Socket: take(t, near), Conv: &frames{}, Owner: o, Main: &Server{Socket: take(t, up), Link: &conv.Link{}}})
		msg := frame('Q', bytes.Repeat([]byte("x"), 100))
		for cut.at = 1; cut.at < 140; cut.at++ {
			far.Write(msg)
			expect(t, far, msg)
		}
		cut.at = -1 // byte by byte
		big := frame('Q', bytes.Repeat([]byte("y"), 5000))
		far.Write(big)
		expect(t, far, big)
		far.Close()
		<-o.ended
	}
}

// cutter sends what it is given in two pieces, cut at a byte, or byte by byte.
type cutter struct {
	net.Conn
	at int
}

func (c *cutter) Write(b []byte) (int, error) {
	switch {
	case c.at < 0:
		for i := range b {
			if _, err := c.Conn.Write(b[i : i+1]); err != nil {
				return i, err
			}
		}
	case c.at > 0 && c.at < len(b):
		if _, err := c.Conn.Write(b[:c.at]); err != nil {
			return 0, err
		}
		time.Sleep(100 * time.Microsecond) // most often two packets; a whole record is right too
		if _, err := c.Conn.Write(b[c.at:]); err != nil {
			return c.at, err
		}
	default:
		return c.Conn.Write(b)
	}
	return len(b), nil
}

// What comes together with the end of the handshake waits inside TLS, where epoll
// does not see it.
func TestBytesBehindTheHandshake(t *testing.T) {
	for name, version := range versions {
		if version == plain {
			continue
		}
		t.Run(name, func(t *testing.T) {
			g, _ := start(t, 1)
			ours, theirs := pair(t)
			near, far := secured(t, ours, theirs, version)
			early := bytes.Repeat(frame('Q', bytes.Repeat([]byte("z"), 900)), 3)
			far.Write(early)
			one := make([]byte, 1)
			if _, err := near.Read(one); err != nil { // the records are inside now
				t.Fatal(err)
			}
			s, err := Take(near, one)
			if err != nil {
				t.Fatal(err)
			}
			up, server := pair(t)
			go echo(server)
			o := newOwner()
			g.Serve(Arrival{Socket: s, Conv: &frames{}, Owner: o, Main: &Server{Socket: take(t, up), Link: &conv.Link{}}})
			expect(t, far, early)
			late := frame('Q', []byte("select"))
			far.Write(late)
			expect(t, far, late)
		})
	}
}

// stopped waits until a counter stands still, and returns it.
func stopped(t testing.TB, n *atomic.Int64) int64 {
	t.Helper()
	last := int64(-1)
	eventually(t, "nobody is stopped", func() bool {
		now := n.Load()
		still := now == last && now > 0
		if last = now; !still {
			time.Sleep(50 * time.Millisecond)
		}
		return still
	})
	return last
}

// A client that does not read stops its server, and nobody else.
func TestSlowReader(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			g, traffic := start(t, 1)
			slow, other := serve(t, g, version), serve(t, g, version)
			go echo(other.server)
			const total = 48 << 20
			sum := make(chan [32]byte, 1)
			go func() {
				h := sha256.New()
				block := make([]byte, 64<<10)
				for i := 0; i < total; i += len(block) {
					copy(block, fmt.Sprint(i))
					h.Write(block)
					if _, err := slow.server.Write(block); err != nil {
						t.Error(err)
						return
					}
				}
				sum <- [32]byte(h.Sum(nil))
			}()
			moved := stopped(t, traffic[0].To)
			if moved > total/2 {
				t.Errorf("%d bytes were taken for a client that does not read", moved)
			}
			msg := frame('Q', []byte("select"))
			other.client.Write(msg)
			expect(t, other.client, msg)
			h := sha256.New()
			if _, err := io.CopyN(h, slow.client, total); err != nil {
				t.Fatal(err)
			}
			if want := <-sum; want != [32]byte(h.Sum(nil)) {
				t.Error("what arrived is not what was sent")
			}
		})
	}
}

// A server that does not read stops its client; when the client vanishes then, the
// server gets all it sent and then the end.
func TestSlowServer(t *testing.T) {
	g, traffic := start(t, 1)
	s := serve(t, g, plain)
	body := bytes.Repeat([]byte("d"), 24<<20)
	go func() {
		s.client.Write(frame('d', body))
		s.client.Close()
	}()
	moved := stopped(t, traffic[0].From)
	if moved > 20<<20 {
		t.Errorf("%d bytes were taken for a server that does not read", moved)
	}
	expect(t, s.server, frame('d', body))
	if n, err := s.server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("behind the last byte: %d, %v", n, err)
	}
	s.over(t)
}

// A client that vanishes in the middle of a message takes its server with it.
func TestVanishes(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			g, _ := start(t, 1)
			s := serve(t, g, version)
			half := frame('d', bytes.Repeat([]byte("d"), 100<<10))[:60<<10]
			s.client.Write(half)
			expect(t, s.server, half)
			if c, ok := s.client.(*net.TCPConn); ok {
				c.SetLinger(0) // resets
			}
			s.client.Close()
			s.over(t)
			if n, err := s.server.Read(make([]byte, 1)); err == nil {
				t.Errorf("the server got %d bytes more", n)
			}
		})
	}
}

// Who waits for a server and leaves is waited with no more; who stays gets what
// was held for it.
func TestWaitsForServer(t *testing.T) {
	g, _ := start(t, 1)
	arrive := func() (*owner, net.Conn) {
		ours, theirs := pair(t)
		o := newOwner()
		g.Serve(Arrival{Socket: take(t, ours), Conv: &frames{}, Owner: o})
		theirs.Write(frame('Q', []byte("select 1")))
		theirs.Write(frame('Q', []byte("select 2")))
		return o, theirs
	}
	o, leaves := arrive()
	c := <-o.wants
	leaves.Close()
	<-o.ended
	up, far := pair(t)
	c.Grant(conv.Main, &Server{Socket: take(t, up), Link: &conv.Link{}}, func() { o.back <- conv.Close })
	if how := <-o.back; how != conv.Close {
		t.Errorf("a server that comes too late is given back %v", how)
	}
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("and its socket: %v", err)
	}

	o, stays := arrive()
	c = <-o.wants
	up, far = pair(t)
	go echo(far)
	c.Grant(conv.Main, &Server{Socket: take(t, up), Link: &conv.Link{}}, func() { o.back <- conv.Close })
	expect(t, stays, append(frame('Q', []byte("select 1")), frame('Q', []byte("select 2"))...))

	o, refused := arrive()
	c = <-o.wants
	why := wire.Fatal("53300", "no room", "")
	c.Deny(conv.Main, why)
	expect(t, refused, why.Append(nil))
	if _, err := refused.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("behind its last words: %v", err)
	}
}

// Last words arrive although the client has sent what nobody reads any more.
func TestLastWords(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			g, _ := start(t, 1)
			s := serve(t, g, version)
			s.client.Write(bytes.Repeat(frame('Q', make([]byte, 1000)), 200))
			s.server.Close() // with most of it unread
			want := wire.Fatal("57P01", "the server is gone", "").Append(nil)
			got, err := io.ReadAll(s.client)
			if !bytes.Equal(got, want) {
				t.Errorf("got %q, %v", got, err)
			}
			s.over(t)
		})
	}
}

// A newer epoch ends those that talk to the primary of an older one, also when it
// was won before they came.
func TestDeposed(t *testing.T) {
	g, _ := start(t, 2)
	early := serve(t, g, plain)
	g.Won(7)
	msg := frame('Q', []byte("select 1"))
	go echo(early.server)
	early.client.Write(msg)
	expect(t, early.client, msg)
	g.Won(8)
	early.over(t)
	late := serve(t, g, plain)
	late.over(t)
}

// A client that does not read is ended all the same.
func TestKillsSlowReader(t *testing.T) {
	g, _ := start(t, 1)
	s := serve(t, g, plain)
	go func() {
		for {
			if _, err := s.server.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	time.Sleep(20 * time.Millisecond) // its buffers fill; right whenever it ends
	s.handle.Kill(wire.Fatal("57P01", "bye", ""))
	s.over(t)
	g.Wait()
}

func TestTimer(t *testing.T) {
	g, _ := start(t, 1)
	s := serve(t, g, plain)
	s.client.Write(frame('A', nil))
	expect(t, s.client, []byte("expired"))
}

func TestDrain(t *testing.T) {
	g, _ := start(t, 2)
	a, b := serve(t, g, plain), serve(t, g, tls.VersionTLS13)
	g.Drain()
	a.over(t)
	b.over(t)
	late := serve(t, g, plain)
	late.over(t)
	g.Wait()
}

// A peer that is alive and does not read is not lost, however long it takes:
// that is a backend in the middle of something.
func TestLostSparesSlowPeer(t *testing.T) {
	g, traffic := start(t, 1)
	s := serve(t, g, plain)
	if g.EndLost(0) != 0 {
		t.Error("lost when idle")
	}
	go s.client.Write(frame('d', make([]byte, 64<<20)))
	stopped(t, traffic[0].From)
	if g.EndLost(0) != 0 {
		t.Error("lost when the window is closed")
	}
}
