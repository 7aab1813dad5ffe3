package proxy_test

import (
	"fmt"
	"strings"
	"testing"

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

// A request to cancel that comes to a proxy which does not have the session ends nothing.
func TestCancelAtAnotherProxy(t *testing.T) {
	f, other := pooled(t, rules.Auto, 1, nil), pooled(t, rules.Auto, 1, nil)
	role := f.role(t, "login password 'x'")
	one := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	two := connect(t, other.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	first, second := execs(t, one, "select pg_sleep(0.5)"), execs(t, two, "select pg_sleep(0.5)")
	c := other.dial(t, session.ReadWrite)
	c.Write(wire.AppendCancel(nil, one.PgConn().PID(), one.PgConn().SecretKey()))
	if n, _ := c.Read(make([]byte, 1)); n > 0 {
		t.Error("a request to cancel is answered")
	}
	for _, done := range []<-chan error{first, second} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
