package proxy_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5/pgconn"
)

// detour is a way to PostgreSQL on which requests to cancel are held up.
type detour struct {
	addr    string
	came    chan struct{} // one has come
	release chan struct{} // closed: they go on
	passed  chan struct{} // one was read by PostgreSQL
}

func newDetour(t *testing.T, to string) *detour {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &detour{l.Addr().String(), make(chan struct{}, 10), make(chan struct{}), make(chan struct{}, 10)}
	var mu sync.Mutex
	var conns []net.Conn
	var all sync.WaitGroup
	all.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				from.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, from, up)
			mu.Unlock()
			all.Go(func() { d.pass(&all, from, up) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return d
}

// pass copies both ways. A request to cancel is told by its first bytes.
func (d *detour) pass(all *sync.WaitGroup, from, up net.Conn) {
	defer from.Close()
	defer up.Close()
	head := make([]byte, 8)
	if _, err := io.ReadFull(from, head); err != nil {
		return
	}
	cancel := binary.BigEndian.Uint32(head[4:]) == 1234<<16|5678
	if cancel {
		d.came <- struct{}{}
		<-d.release
	}
	up.Write(head)
	all.Go(func() {
		io.Copy(from, up)
		from.Close()
		if cancel {
			d.passed <- struct{}{}
		}
	})
	io.Copy(up, from)
	if !cancel { // else PostgreSQL is to answer what it has read
		return
	}
	io.Copy(io.Discard, up)
}

// through leads a proxy to both nodes by ways of their own.
func (f *fixture) through(t *testing.T) (primary, standby *detour) {
	primary, standby = newDetour(t, f.primary.addr()), newDetour(t, f.standby.addr())
	v := f.view(7)
	v.Primary.Addr = primary.addr
	v.Standbys = []route.Standby{{Node: route.Node{Name: "slave", Addr: standby.addr}, Streaming: true}}
	v.Members[0].Addr, v.Members[1].Addr = primary.addr, standby.addr
	f.top.Set(v)
	return primary, standby
}

// A request to cancel that is held up on its way until its statement is done, and its
// client has asked for more or left, hits nobody else's statement: no other client has
// that server before the request was read, and where nobody knows whether it will be,
// never.
func TestLateCancelHitsNobody(t *testing.T) {
	for _, port := range []session.Port{session.ReadWrite, session.ReadOnly} {
		for _, mode := range everyMode {
			if port == session.ReadOnly && mode != rules.Auto {
				continue
			}
			for _, how := range []string{"stays", "leaves", "never arrives"} {
				t.Run(fmt.Sprintf("%s/%s/%s", port, mode, how), func(t *testing.T) { lateCancel(t, port, mode, how) })
			}
		}
	}
}

func lateCancel(t *testing.T, port session.Port, mode rules.Mode, how string) {
	f := pooled(t, mode, 1, func(c *proxy.Config) {
		if c.LoginTimeout = 20 * time.Second; how == "never arrives" {
			c.LoginTimeout = time.Second // for how long a request may be on its way
		}
	})
	role := f.role(t, "login password 'x'")
	way, read := f.through(t)
	node := f.primary.addr()
	if port == session.ReadOnly {
		way, node = read, f.standby.addr()
	}
	admin := connect(t, superuser(node))
	dsn := f.dsn(port, role, "x", "sslmode=disable")
	one := connect(t, dsn)
	must(t, admin, "select pg_advisory_lock(4713)")
	first := execs(t, one, "select pg_advisory_xact_lock_shared(4713)")
	works := func(event string) func() bool {
		return func() bool {
			return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1 and wait_event = $2", role, event) == 1
		}
	}
	eventually(t, "the first statement works", works("advisory"))
	canceled := make(chan error, 1)
	go func() { canceled <- one.PgConn().CancelRequest(t.Context()) }()
	<-way.came
	must(t, admin, "select pg_advisory_unlock(4713)")
	if err := <-first; err != nil {
		t.Errorf("the statement was done before the request was read: %v", err)
	}
	if mode == rules.Session || how == "leaves" {
		one.Close(t.Context())
	}
	other := make(chan error, 1)
	go func() {
		c, err := pgconn.Connect(t.Context(), dsn)
		if err == nil {
			_, err = c.Exec(t.Context(), "select pg_sleep(0.7)").ReadAll()
			c.Close(t.Context())
		}
		other <- err
	}()
	if how == "never arrives" {
		eventually(t, "the other statement works", works("PgSleep"))
		close(way.release)
	} else {
		select {
		case err := <-other:
			t.Errorf("the other has had the server before the request was read: %v", err)
		case <-time.After(100 * time.Millisecond): // long enough for one that has
		}
		close(way.release)
	}
	<-way.passed
	if err := <-other; err != nil {
		t.Errorf("another client's statement: %v", err)
	}
	if err := <-canceled; err != nil {
		t.Logf("the request: %v", err)
	}
}
