package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5"
)

// Who asks for a database that there is not is told so in PostgreSQL's words, on both
// ports, in every mode and behind a proof alone; whatever the name, nobody else notices.
func TestUnknownDatabase(t *testing.T) {
	for _, mode := range everyMode {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 1, nil)
			role := f.role(t, "login password 'x'")
			for _, port := range []session.Port{session.ReadWrite, session.ReadOnly} {
				for n, name := range []string{"missing", strings.Repeat("d", 80), "a\tb'\"", "template\xff"} {
					b := f.comes(t, port, n%2 == 0)
					b.asks(t, role, name)
					typ, body := b.next(t)
					if typ != wire.TypeError {
						t.Errorf("%q: %q instead of an error", name, typ)
						continue
					}
					want := fmt.Sprintf("database %q does not exist", name[:min(len(name), 63)])
					if n > 1 {
						want = "does not exist"
					}
					if e := wire.ParseError(body); e.Severity != "FATAL" || e.Code != "3D000" || !strings.Contains(e.Message, want) {
						t.Errorf("%s, %q: %v", port, name, e)
					}
					b.tcp.Close()
				}
				if _, err := pgx.Connect(t.Context(), strings.Replace(f.dsn(port, role, "wrong", "sslmode=disable"), "/postgres?", "/missing?", 1)); code(err) != "28P01" {
					t.Errorf("%s: without the password: %v", port, err)
				}
				query[int](t, connect(t, f.dsn(port, role, "x", "sslmode=disable")), "select 1")
			}
		})
	}
}

// A request to cancel that comes to another proxy of the herd is passed on to the one that
// has the session, and ends nothing else; one for a session of nobody's comes to an end.
func TestCancelAtAnotherProxy(t *testing.T) {
	var f, other, third *fixture
	var asked atomic.Int64
	addrs := func(all ...**fixture) func(context.Context) []string {
		return func(context.Context) (out []string) {
			asked.Add(1)
			for _, one := range all {
				out = append(out, (*one).Addr(session.ReadWrite).String())
			}
			return out
		}
	}
	f = pooled(t, rules.Auto, 1, func(c *proxy.Config) { c.Others = addrs(&other, &third) })
	other = pooled(t, rules.Auto, 1, func(c *proxy.Config) { c.Others = addrs(&f, &third) })
	third = pooled(t, rules.Auto, 1, nil) // it knows of no others
	role := f.role(t, "login password 'x'")
	one := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	two := connect(t, other.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	send := func(to *fixture, pid uint32, key []byte) {
		t.Helper()
		c := to.dial(t, session.ReadWrite)
		c.Write(wire.AppendCancel(nil, pid, key))
		if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			t.Errorf("a request to cancel: %d bytes, %v", n, err)
		}
	}
	pid, key := one.PgConn().PID(), one.PgConn().SecretKey()
	admin := connect(t, superuser(f.primary.addr()))
	must(t, admin, "select pg_advisory_lock(4714)")
	first, second := execs(t, one, "select pg_advisory_xact_lock(4714)"), execs(t, two, "select pg_advisory_xact_lock(4714)")
	eventually(t, "both work", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1 and wait_event = 'advisory'", role) == 2
	})
	send(other, pid, []byte("none")) // nobody has such a session
	send(third, pid, key)
	if n := asked.Load(); n != 1 {
		t.Errorf("%d proxies have passed a request on that one was to", n)
	}
	held(t, "a statement whose key was not given", first)
	send(other, pid, key)
	if err := <-first; code(err) != "57014" {
		t.Errorf("the session's statement: %v", err)
	}
	held(t, "another statement", second)
	must(t, admin, "select pg_advisory_unlock(4714)")
	if err := <-second; err != nil {
		t.Errorf("another statement: %v", err)
	}
	query[int](t, one, "select 1")
}
