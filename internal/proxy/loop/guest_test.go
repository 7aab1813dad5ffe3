package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guests listens for clients whose log-in is code, and gives where.
func guests(t *testing.T, g *Group, code func(*Guest)) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop, err = g.Listen(ln.(*net.TCPListener), code)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func call(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// A log-in of every kind of step: reads in pieces, what is done beside, and the rest
// outside of the loop or as a client of it; with whatever came too early.
func TestGuest(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		g, _ := start(t, 2)
		var here string
		var there sync.Map
		known := func(to, from string) bool { _, ok := there.LoadAndDelete(from); return ok && to == here }
		code := func(q *Guest) {
			var b [4]byte
			io.ReadFull(q, b[:])
			if to, from := q.LocalAddr().String(), q.RemoteAddr().String(); !known(to, from) {
				t.Errorf("from %s to %s", from, to)
			}
			var up []byte
			q.Beside(func() { time.Sleep(time.Millisecond); up = bytes.ToUpper(b[:]) })
			q.Write(up)
			if leaves {
				if err := q.Leave(); err != nil {
					t.Error(err)
				}
			}
			io.ReadFull(q, b[:])
			q.Until(func(done func()) { done() })
			q.Write(b[:])
			s, err := Take(q, nil)
			if err != nil {
				t.Error(err)
				return
			}
			g.Serve(Arrival{Socket: s, Conv: back{}, Owner: forgetful{}})
		}
		addr, _ := guests(t, g, code)
		here = addr
		var all sync.WaitGroup
		for _, step := range []int{1, 3, 100} {
			for range 20 {
				all.Go(func() {
					conn := call(t, addr)
					there.Store(conn.LocalAddr().String(), true)
					said := []byte("abcdefghijkl")
					for rest := said; len(rest) > 0; rest = rest[min(step, len(rest)):] {
						conn.Write(rest[:min(step, len(rest))])
						time.Sleep(100 * time.Microsecond)
					}
					expect(t, conn, append([]byte("ABCD"), said[4:]...))
				})
			}
		}
		all.Wait()
	}
}

// What ends a log-in that waits: its time, its end, somebody else, and Hurry.
func TestGuestWaitsInVain(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(g *Group, q *Guest, client net.Conn)
		want error
	}{
		"time":   {func(_ *Group, q *Guest, _ net.Conn) {}, os.ErrDeadlineExceeded},
		"end":    {func(_ *Group, _ *Guest, client net.Conn) { client.Close() }, io.EOF},
		"pushed": {func(_ *Group, q *Guest, _ net.Conn) { q.Close() }, net.ErrClosed},
		"hurry":  {func(g *Group, _ *Guest, _ net.Conn) { g.Hurry() }, os.ErrDeadlineExceeded},
	} {
		for _, beside := range []bool{false, true} {
			g, _ := start(t, 1)
			came, ended := make(chan *Guest), make(chan error, 1)
			letGo := make(chan bool)
			addr, _ := guests(t, g, func(q *Guest) {
				limit := time.Hour
				if name == "time" {
					limit = 30 * time.Millisecond
				}
				q.SetDeadline(time.Now().Add(2 * time.Hour)) // the last one counts
				q.SetDeadline(time.Now().Add(limit))
				go func() { came <- q }()
				if beside {
					q.Beside(func() { <-letGo })
				}
				_, err := q.Read(make([]byte, 1))
				ended <- err
				q.SetDeadline(time.Now().Add(time.Hour))
				q.Write([]byte("last words"))
			})
			client := call(t, addr)
			q := <-came
			c.do(g, q, client)
			if beside {
				time.Sleep(50 * time.Millisecond) // it has to be noticed later, too
				close(letGo)
			}
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
			if name == "time" || name == "hurry" {
				expect(t, client, []byte("last words"))
			}
		}
	}
}

// A client that says more than it was asked for, and leaves meanwhile, costs nothing
// while it has to wait.
func TestGuestIsImpatient(t *testing.T) {
	g, _ := start(t, 1)
	came, let, ended := make(chan bool), make(chan bool), make(chan int)
	addr, _ := guests(t, g, func(q *Guest) {
		q.Beside(func() { came <- true; <-let })
		n, err := io.Copy(io.Discard, q)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Log(err) // reset
		}
		go func() { ended <- int(n) }()
	})
	client := call(t, addr)
	<-came
	client.Write(make([]byte, 1000))
	client.(*net.TCPConn).CloseWrite()
	before := cpu(t)
	time.Sleep(200 * time.Millisecond)
	if took := cpu(t) - before; took > 150*time.Millisecond {
		t.Errorf("it was looked at all the time: %s", took)
	}
	close(let)
	if n := <-ended; n != 1000 {
		t.Errorf("%d bytes", n)
	}
}

// Nobody is let in after stop, and the loop serves those who were.
func TestListenStops(t *testing.T) {
	g, _ := start(t, 2)
	addr, stop := guests(t, g, func(q *Guest) {
		s, _ := Take(q, nil)
		g.Serve(Arrival{Socket: s, Conv: back{}, Owner: forgetful{}})
	})
	client := call(t, addr)
	client.Write([]byte("x"))
	expect(t, client, []byte("x"))
	stop()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("somebody was let in")
	}
	client.Write([]byte("y"))
	expect(t, client, []byte("y"))
}

// Code of the proxy's own uses a connection as if it could wait.
func TestHost(t *testing.T) {
	g, _ := start(t, 1)
	near, far := pair(t)
	wake := make(chan func(), 1)
	go func() {
		expect(t, far, []byte("question"))
		far.Write([]byte("answer"))
		(<-wake)()
	}()
	if err := g.Host(near, func(q *Guest) {
		q.Write([]byte("question"))
		b := make([]byte, 6)
		if _, err := io.ReadFull(q, b); err != nil || string(b) != "answer" {
			t.Errorf("%q, %v", b, err)
		}
		q.Until(func(done func()) { wake <- done })
		q.Close()
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("not closed: %v", err)
	}
}

// cpu is the processor time of this process.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
