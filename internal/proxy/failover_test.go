package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// gap is the herd after epoch 8 was won and before it is open.
func gap() route.View {
	return route.View{Known: true, Epoch: 8, Why: "epoch 8 was won by slave and is not open yet"}
}

// New connections wait while there is no open primary, and succeed once there is.
func TestWaitsForPrimary(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	for name, v := range map[string]route.View{"not open": gap(), "nothing heard": {}} {
		f.top.Set(v)
		got := make(chan error, 1)
		go func() {
			c, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
			if err == nil {
				err = c.Close(t.Context())
			}
			got <- err
		}()
		eventually(t, "a waiting client", func() bool { return f.Status().Ports["read_write"].Waiting == 1 })
		select {
		case err := <-got:
			t.Fatalf("%s: did not wait: %v", name, err)
		default:
		}
		f.top.Set(f.view(9))
		if err := <-got; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// With a standby left, the client is authenticated meanwhile; the wait is the same.
func TestWaitsAfterLookupOnStandby(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	v := gap()
	v.Standbys = f.view(8).Standbys
	f.top.Set(v)
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "wrong", "sslmode=disable")); code(err) != "28P01" {
		t.Errorf("wrong password during the gap: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		c, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
		if err == nil {
			err = c.Close(t.Context())
		}
		got <- err
	}()
	eventually(t, "a waiting client", func() bool { return f.Status().Ports["read_write"].Waiting == 1 })
	f.top.Set(f.view(8))
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A primary that others hear and this host cannot reach is no reason to wait:
// the client may get to it through another proxy. While nobody hears it, it is.
func TestCutOffFromPrimary(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	v := f.view(7)
	v.CutOff = true
	f.top.Set(v)
	connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")).Close(t.Context()) // it can be reached all the same

	away, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.Primary.Addr = away.Addr().String()
	away.Close()
	v.CutOff = false
	f.top.Set(v)
	got := make(chan error, 1)
	go func() {
		_, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
		got <- err
	}()
	eventually(t, "a waiting client", func() bool { return f.Status().Ports["read_write"].Waiting == 1 })
	v.CutOff = true
	began := time.Now()
	f.top.Set(v)
	if err := <-got; code(err) != "57P03" || !strings.Contains(err.Error(), "master leads epoch 7 and cannot be reached") || time.Since(began) > time.Second {
		t.Errorf("who waited: %v after %s", err, time.Since(began))
	}
	began = time.Now()
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")); code(err) != "57P03" || time.Since(began) > time.Second {
		t.Errorf("who came later: %v after %s", err, time.Since(began))
	}
	connect(t, f.dsn(session.ReadOnly, role, "pw", "sslmode=disable")) // the standby is not cut off
}

// The wait is bounded and ends with what is going on and what to do.
func TestWaitIsBounded(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.ConnectWait = 300 * time.Millisecond })
	refused := net.JoinHostPort("127.0.0.1", fmt.Sprint(freePort()))
	standbyAsPrimary := f.view(7)
	standbyAsPrimary.Primary.Addr = f.standby.addr()
	dead := f.view(7)
	dead.Primary.Addr = refused
	dead.Standbys = nil
	for _, c := range []struct {
		name       string
		view       route.View
		code, text string
	}{
		{"not open", gap(), "57P03", "no primary to connect to after waiting 300ms: epoch 8 was won by slave and is not open yet"},
		{"unknown", route.View{}, "57P03", "no primary to connect to"},
		{"refused", dead, "08006", "cannot reach master after waiting 300ms: "},
		{"still in recovery", standbyAsPrimary, "08006", "still in recovery"},
	} {
		f.top.Set(c.view)
		_, err := pgx.Connect(t.Context(), superuser(f.Addr(session.ReadWrite).String()))
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.text) || !strings.Contains(e.Hint, "manada status") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Nobody waits for a client that has gone.
func TestWaitingClientLeaves(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.ConnectWait = time.Minute })
	f.top.Set(gap())
	c := f.dial(t, session.ReadWrite)
	c.Write(startup(3<<16, "user", "postgres"))
	waiting := func() int64 { return f.Status().Ports["read_write"].Waiting }
	eventually(t, "a waiting client", func() bool { return waiting() == 1 })
	c.Close()
	eventually(t, "nobody waits", func() bool { return waiting() == 0 })
}

// A newer epoch ends the sessions of the old primary, and tells each client
// what it can know about its own work. Readers on standbys stay.
func TestEpochEndsSessions(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	rw := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
	idle, err := connect(t, rw).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Conn.Close()
	c := connect(t, rw)
	if _, err := c.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	inTx, err := c.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer inTx.Conn.Close()
	busy := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=require"))
	reader := connect(t, f.dsn(session.ReadOnly, role, "pw", "sslmode=disable"))
	admin := connect(t, superuser(f.primary.addr()))
	running := make(chan error, 1)
	go func() {
		_, err := busy.Exec(t.Context(), "select pg_sleep(30)")
		running <- err
	}()
	eventually(t, "busy", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where wait_event='PgSleep' and usename=$1", role) == 1
	})
	f.top.Set(gap())
	const what = "the primary changed: master was replaced after epoch 7"
	if e := lastWords(t, idle.Conn); e.Code != "57P01" || e.Severity != "FATAL" || e.Message != what || e.Detail != "" || e.Hint == "" {
		t.Errorf("idle: %+v", e)
	}
	if e := lastWords(t, inTx.Conn); e.Code != "57P01" || e.Message != what || !strings.Contains(e.Detail, "rolled back") {
		t.Errorf("in a transaction: %+v", e)
	}
	if err := <-running; code(err) != "08007" || !strings.Contains(err.Error(), "not known whether the last command took effect") {
		t.Errorf("busy: %v", err)
	}
	if query[int](t, reader, "select 1") != 1 {
		t.Error("the reader was ended too")
	}
	f.top.Set(f.view(8))
	connect(t, rw)
	eventually(t, "only the new session and the reader", func() bool {
		return f.Status().Primary.Sessions == 1 && f.Status().Standbys[0].Sessions == 1
	})
}

// A backend that dies without a word.
func TestBackendKilled(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	dsn := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
	// PostgreSQL's own farewell is passed on as it is.
	c := connect(t, dsn)
	_, err := c.Exec(t.Context(), "select pg_terminate_backend(pg_backend_pid())")
	if code(err) != "57P01" || !strings.Contains(err.Error(), "terminating connection due to administrator command") {
		t.Errorf("%v", err)
	}
	// A connection cut in the middle: ours.
	cut := newStall(t, f.primary.addr())
	v := f.view(7)
	v.Primary.Addr = cut.addr
	f.top.Set(v)
	c = connect(t, dsn)
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "select pg_sleep(30)")
		done <- err
	}()
	eventually(t, "sleeping", func() bool { return cut.saw("pg_sleep") > 0 })
	cut.closeAll()
	if err := <-done; code(err) != "08007" || !strings.Contains(err.Error(), "not known whether") {
		t.Errorf("%v", err)
	}
}

// The primary's host disappears: packets are swallowed, nothing is refused.
// Sessions end with the new epoch, and newcomers do not get stuck.
func TestBlackHole(t *testing.T) {
	f := start(t, unsplit)
	role := f.role(t, "login password 'pw'")
	dsn := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
	hole := newStall(t, f.primary.addr())
	v := f.view(7)
	v.Primary.Addr = hole.addr
	f.top.Set(v)
	old, reader := connect(t, dsn), connect(t, dsn)
	hole.swallow()
	stuck, read, fresh := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := old.Exec(t.Context(), "do 'begin end'")
		stuck <- err
	}()
	go func() {
		_, err := reader.Exec(t.Context(), "select 1")
		read <- err
	}()
	go func() { // hangs in its log-in, until the topology says better
		c, err := pgx.Connect(t.Context(), dsn)
		if err == nil {
			err = c.Close(t.Context())
		}
		fresh <- err
	}()
	eventually(t, "all in the hole", func() bool {
		return hole.saw("do 'begin") >= 1 && hole.saw("select 1") >= 1 && hole.saw("lookup\x00") >= 4 // prepared, and executed for each
	})
	begin := time.Now()
	f.top.Set(f.view(8))
	if err := <-stuck; code(err) != "08007" {
		t.Errorf("the old session: %v", err)
	}
	var e *pgconn.PgError
	if err := <-read; !errors.As(err, &e) || e.Code != "57P01" || !strings.Contains(e.Detail, "only read") {
		t.Errorf("one that only read: %v", err)
	}
	if err := <-fresh; err != nil {
		t.Errorf("the newcomer: %v", err)
	}
	if d := time.Since(begin); d > 4*time.Second {
		t.Errorf("took %s", d)
	}
}

// Connecting to a host that swallows the first packet costs ConnectTimeout, not minutes.
func TestConnectTimeout(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.ConnectTimeout, c.ConnectWait = 100*time.Millisecond, 300*time.Millisecond })
	v := f.view(7)
	v.Primary.Addr, v.Standbys = fullBacklog(t), nil
	f.top.Set(v)
	begin := time.Now()
	_, err := pgx.Connect(t.Context(), superuser(f.Addr(session.ReadWrite).String()))
	if code(err) != "08006" || !strings.Contains(err.Error(), "timeout") || time.Since(begin) > 3*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

func TestReadOnlyPort(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	ro := f.dsn(session.ReadOnly, role, "pw", "sslmode=disable")
	recovery := func() bool { return query[bool](t, connect(t, ro), "select pg_is_in_recovery()") }
	if !recovery() {
		t.Error("not on the standby")
	}
	// A standby that does not answer is passed over; one that lags is not used.
	v := f.view(7)
	v.Standbys = append([]route.Standby{{Node: route.Node{Name: "gone", Addr: "127.0.0.1:1"}, Streaming: true}}, v.Standbys...)
	f.top.Set(v)
	for range 3 {
		if !recovery() {
			t.Error("gave up on a standby because of another")
		}
	}
	v = f.view(7)
	v.Standbys[0].LagBytes = 1 << 40
	f.top.Set(v)
	c := connect(t, ro)
	if query[bool](t, c, "select pg_is_in_recovery()") {
		t.Error("read from a standby that lags too far")
	}
	// On the primary the port is still read-only, unless the client says otherwise.
	if _, err := c.Exec(t.Context(), "create table x_should_not_be(i int)"); code(err) != "25006" {
		t.Errorf("write on the read-only port: %v", err)
	}
}

func TestReadOnlyPortWithoutFallback(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.ReadOnlyFallback = false })
	v := f.view(7)
	v.Standbys[0].Streaming = false
	f.top.Set(v)
	_, err := pgx.Connect(t.Context(), superuser(f.Addr(session.ReadOnly).String()))
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "57P03" || !strings.Contains(e.Hint, "read_only_fallback") {
		t.Errorf("%v", err)
	}
}

// A commit that PostgreSQL lets through without its standbys is never passed on
// as success, whatever the client asks for at log-in or later, and whatever its
// role has by default (trap T7, finding H9).
func TestUnreplicatedCommit(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.admin(t, "create table t7(i int); grant all on t7 to "+role)
	f.admin(t, "alter role "+role+" set client_min_messages = error") // and whatever the role's default is
	f.admin(t, "alter system set synchronous_standby_names='ANY 1 (nobody)'")
	f.admin(t, "select pg_reload_conf()")
	reset := sync.OnceFunc(func() {
		ctx := context.Background()
		c, err := pgx.Connect(ctx, superuser(f.primary.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(ctx)
		c.Exec(ctx, "alter system reset synchronous_standby_names")
		c.Exec(ctx, "select pg_reload_conf()")
	})
	t.Cleanup(reset)
	admin := connect(t, superuser(f.primary.addr()))
	eventually(t, "the setting", func() bool {
		return strings.Contains(query[string](t, admin, "show synchronous_standby_names"), "nobody")
	})
	const set = "set client_min_messages = error"
	for i, options := range []string{"", "&client_min_messages=error", "&options=-c%20client_min_messages%3Derror"} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			for _, later := range []string{"", set, "begin; set local client_min_messages to 'fatal'; commit; " + set,
				"select set_config('client_min_messages', 'panic', false)", "reset client_min_messages", "discard all"} {
				c := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"+options))
				if later != "" {
					how := mode
					if strings.Contains(later, ";") {
						how = pgx.QueryExecModeSimpleProtocol
					}
					if _, err := c.Exec(t.Context(), later, how); err != nil {
						t.Fatalf("%s: %v", later, err)
					}
				}
				unreplicated(t, c, admin, mode, i, options+" "+later)
			}
		}
	}
	reset()
	f.admin(t, "drop table t7")
}

// unreplicated cancels the wait of an insert.
func unreplicated(t *testing.T, c, admin *pgx.Conn, mode pgx.QueryExecMode, i int, what string) {
	t.Helper()
	if mode == pgx.QueryExecModeCacheStatement {
		mode = pgx.QueryExecModeExec // DISCARD ALL has dropped what pgx remembers
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "insert into t7 values ($1)", mode, i)
		done <- err
	}()
	eventually(t, "waiting for a standby", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where wait_event='SyncRep' and pid=$1", c.PgConn().PID()) == 1
	})
	query[bool](t, admin, "select pg_cancel_backend($1)", c.PgConn().PID())
	if err := <-done; code(err) != "08007" {
		t.Errorf("%q: %v, want transaction_resolution_unknown", what, err)
	}
}

// Stopping ends idle sessions at once, lets a transaction finish, and does not
// wait for ever.
func TestDrain(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.DrainTimeout = 3 * time.Second })
	role := f.role(t, "login password 'pw'")
	dsn := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
	tx := connect(t, dsn)
	if _, err := tx.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	idle, err := connect(t, dsn).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Conn.Close()
	f.top.Set(route.View{}) // a client that waits for a node
	waiting := f.dial(t, session.ReadWrite)
	waiting.Write(startup(3<<16, "user", "postgres"))
	eventually(t, "waiting", func() bool { return f.Status().Ports["read_write"].Waiting == 1 })

	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	if e := lastWords(t, idle.Conn); e.Code != "57P01" || !strings.Contains(e.Message, "shutting down") {
		t.Errorf("idle: %+v", e)
	}
	if e := lastWords(t, waiting); e.Code != "57P01" {
		t.Errorf("waiting: %+v", e)
	}
	select {
	case <-stopped:
		t.Fatal("did not wait for the transaction")
	default:
	}
	if n := query[int](t, tx, "select 42"); n != 42 {
		t.Error("the transaction was disturbed")
	}
	if _, err := tx.Exec(t.Context(), "commit"); err != nil {
		t.Errorf("commit: %v", err)
	}
	<-stopped
}

// fullBacklog is an address whose host swallows connection attempts.
func fullBacklog(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", fmt.Sprint(sa.(*syscall.SockaddrInet4).Port))
	for range 8 {
		c, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this kernel does not swallow connections to a full backlog")
	return ""
}
