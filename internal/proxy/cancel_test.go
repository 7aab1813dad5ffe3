package proxy_test

import (
	"syscall"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
)

// canceled runs a statement, cancels it while it waits (when waits says so), and wants
// it to be answered as PostgreSQL answers.
func canceled(t *testing.T, c *pgx.Conn, sql string, waits func() bool) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), sql)
		ended <- err
	}()
	eventually(t, "the statement to wait", waits)
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if code(err) != "57014" {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it was not cancelled")
	}
}

// A request to cancel that comes while the server takes the client's settings over does
// not meet these: the client's statement is cancelled, and its session goes on.
func TestCancelMeetsNoSettings(t *testing.T) {
	f := pooled(t, rules.Transaction, 1, nil)
	role := f.role(t, "login password 'x'")
	other := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable&default_query_exec_mode=simple_protocol"))
	pid := query[int](t, other, "select pg_backend_pid()")
	c := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable&work_mem=9MB&default_query_exec_mode=simple_protocol"))
	query[int](t, other, "select 1") // whose settings the server has now

	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	go func() { // the request has been read long before
		time.Sleep(500 * time.Millisecond)
		syscall.Kill(pid, syscall.SIGCONT)
	}()
	console := connect(t, "postgres://postgres:postgres@"+f.Addr(session.ReadWrite).String()+"/manada?sslmode=disable")
	canceled(t, c, "select 1", func() bool {
		for _, s := range table(t, console, "show servers") {
			if s["user"] == role && s["state"] == "active" {
				return true
			}
		}
		return false
	})
	if v := query[string](t, c, "show work_mem"); v != "9MB" {
		t.Errorf("work_mem is %s", v)
	}
	query[int](t, other, "select 1")
}

// A read that waits for a standby, or for the primary to answer in its place, is
// cancelled at once.
func TestCancelOfAReadThatWaits(t *testing.T) {
	f := pooled(t, rules.Auto, 1, func(c *proxy.Config) { c.Split = true })
	role := f.role(t, "login password 'x'")
	dsn := f.dsn(session.ReadWrite, role, "x", "sslmode=disable&default_query_exec_mode=simple_protocol")
	holder := connect(t, dsn)
	c := connect(t, dsn)
	if _, err := holder.Exec(t.Context(), "begin; select txid_current()"); err != nil { // it has the only connection
		t.Fatal(err)
	}
	v := f.view(7)
	v.Standbys = nil
	f.top.Set(v)
	console := connect(t, "postgres://postgres:postgres@"+f.Addr(session.ReadWrite).String()+"/manada?sslmode=disable")
	canceled(t, c, "select 1", func() bool {
		for _, p := range table(t, console, "show pools") {
			if p["user"] == role && p["cl_waiting"].(int32) == 1 {
				return true
			}
		}
		return false
	})
	if _, err := holder.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	query[int](t, c, "select 1")
}
