package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
)

func (h *herd) socket(i *instance) string { return fmt.Sprintf("%s/.s.PGSQL.%d", h.dir, i.port) }

// near is a proxy on the host of both nodes.
func near(t *testing.T, change func(*proxy.Config)) *fixture {
	f := pooled(t, rules.Auto, 5, change)
	v := f.view(7)
	v.SetSocket("master", f.socket(&f.primary))
	v.SetSocket("slave", f.socket(&f.standby))
	f.top.Set(v)
	return f
}

const overSocket = "select client_addr is null from pg_stat_activity where pid = pg_backend_pid()"

// Clients of the host's own node come over its socket, whether they share connections
// or not, their cancel requests too; a password that was changed counts there as well.
func TestOwnSocket(t *testing.T) {
	f := near(t, nil)
	role := f.role(t, "login password 'pw1'")
	for _, port := range []session.Port{session.ReadWrite, session.ReadOnly} {
		c := connect(t, f.dsn(port, role, "pw1", "sslmode=disable"))
		if !query[bool](t, c, overSocket) {
			t.Errorf("%s: it came over TCP", port)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := c.Exec(ctx, "select pg_sleep(60)")
		cancel()
		if err == nil {
			t.Fatal("it slept for a minute")
		}
		eventually(t, "the statement to be cancelled", func() bool {
			a := connect(t, superuser(map[session.Port]string{session.ReadWrite: f.primary.addr(), session.ReadOnly: f.standby.addr()}[port]))
			defer a.Close(t.Context())
			return query[int](t, a, "select count(*) from pg_stat_activity where usename = $1 and state = 'active'", role) == 0
		})
	}
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "wrong", "sslmode=disable")); code(err) != "28P01" {
		t.Errorf("a wrong password: %v", err)
	}
	f.admin(t, fmt.Sprintf("alter role %s password 'pw2'", role))
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw1", "sslmode=disable")); code(err) != "28P01" {
		t.Errorf("the former password: %v", err)
	}
	if !query[bool](t, connect(t, f.dsn(session.ReadWrite, role, "pw2", "sslmode=disable")), overSocket) {
		t.Error("with the new password it came over TCP")
	}
}

// A server connection that is opened later, with what a client had shown before its
// password was changed, is refused by PostgreSQL over the socket as over TCP.
func TestOwnSocketAsksForThePasswordOfNow(t *testing.T) {
	f := near(t, nil)
	role := f.role(t, "login password 'pw1'")
	c := connect(t, f.dsn(session.ReadWrite, role, "pw1", "sslmode=disable"))
	console := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	gone := fmt.Sprintf("select pg_terminate_backend(pid) from pg_stat_activity where usename = '%s'", role)
	f.admin(t, fmt.Sprintf("alter role %s password 'pw2'; %s", role, gone))
	eventually(t, "the pool to be empty", func() bool { return len(table(t, console, "show servers")) == 0 })
	if _, err := c.Exec(t.Context(), "select 1"); code(err) != "28P01" {
		t.Errorf("the former password: %v", err)
	}
}

// The herd's own roles and those that replicate come over TCP all the same: on the
// socket some of them need no password.
func TestRolesThatStayOffTheSocket(t *testing.T) {
	f := near(t, func(c *proxy.Config) {
		c.Replication = []cluster.Replicator{{Role: "r_testrolesthatstayoffthesocket", From: []string{"127.0.0.1"}, Databases: []string{"postgres"}}}
	})
	role := f.role(t, "login password 'pw1'")
	for user, password := range map[string]string{"postgres": "postgres", role: "pw1", cluster.RoleProxy: "proxy%20secret"} {
		c := connect(t, f.dsn(session.ReadWrite, user, password, "sslmode=require"))
		if query[bool](t, c, overSocket) {
			t.Errorf("%s came over the socket", user)
		}
	}
	walsender := connect(t, f.dsn(session.ReadWrite, "postgres", "postgres", "sslmode=disable&replication=database&default_query_exec_mode=simple_protocol"))
	if query[bool](t, walsender, overSocket) {
		t.Error("a walsender came over the socket")
	}
}

// A socket on which another user of the operating system listens is not PostgreSQL's,
// and one that asks for no password is no way to log in.
func TestStrangeSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("PostgreSQL is another user's only for root")
	}
	f := near(t, func(c *proxy.Config) { c.PlainLocal, c.ServerTLS, c.ConnectWait = false, tlsOf(shared), time.Second })
	_, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, "postgres", "postgres", "sslmode=disable"))
	if err == nil || !strings.Contains(err.Error(), "not this user's PostgreSQL") {
		t.Errorf("%v", err)
	}
}

func tlsOf(h *herd) *tls.Config { return &tls.Config{RootCAs: h.roots} }
