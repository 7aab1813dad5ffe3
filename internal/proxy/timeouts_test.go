package proxy_test

import (
	"context"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Each limit ends the client that is beyond it, with its own code, and its server; a
// query only where PostgreSQL does not cancel it, as a COPY whose data do not come.
func TestTimeouts(t *testing.T) {
	const limit = 300 * time.Millisecond
	for _, c := range []struct {
		name, code string
		change     func(*proxy.Config)
		do         func(t *testing.T, c *pgx.Conn) // until the client is ended
	}{
		{"query", "57014", func(c *proxy.Config) { c.QueryTimeout = limit }, func(t *testing.T, c *pgx.Conn) {
			c.Exec(t.Context(), "create temp table t (i int)")
			f := c.PgConn().Frontend()
			f.SendQuery(&pgproto3.Query{String: "copy t from stdin"})
			if err := f.Flush(); err != nil {
				t.Error(err)
			}
		}},
		{"transaction", "25P04", func(c *proxy.Config) { c.TxTimeout = limit }, func(t *testing.T, c *pgx.Conn) { c.Exec(t.Context(), "begin") }},
		{"idle in a transaction", "25P03", func(c *proxy.Config) { c.IdleTxTimeout = limit }, func(t *testing.T, c *pgx.Conn) {
			c.Exec(t.Context(), "begin")
			c.Exec(t.Context(), "select pg_sleep(0.5)") // busy is not idle
		}},
		{"idle", "57P05", func(c *proxy.Config) { c.IdleTimeout = limit }, func(t *testing.T, c *pgx.Conn) {
			c.Exec(t.Context(), "begin; select pg_sleep(0.5); commit")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, c.change)
			role := f.role(t, "login password 'x'")
			one := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
			pid := query[int](t, one, "select pg_backend_pid()")
			c.do(t, one)
			begin := time.Now()
			var err error
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for err == nil {
				_, err = one.PgConn().ReceiveMessage(ctx)
			}
			if code(err) != c.code || time.Since(begin) > 10*time.Second {
				t.Errorf("after %s: %v, want %s", time.Since(begin), err, c.code)
			}
			admin := connect(t, superuser(f.primary.addr()))
			eventually(t, "its server is gone", func() bool {
				return query[int](t, admin, "select count(*) from pg_stat_activity where pid = $1", pid) == 0
			})
		})
	}
}

// A query that takes too long is cancelled, also one that only waits for a connection,
// and the session goes on.
func TestQueryTimeoutCancels(t *testing.T) {
	const limit = 300 * time.Millisecond
	f := pooled(t, rules.Auto, 1, func(c *proxy.Config) { c.QueryTimeout = limit })
	role := f.role(t, "login password 'x'")
	one := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	two := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	if _, err := one.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	pid := query[int](t, one, "select pg_backend_pid()")
	time.Sleep(limit + 100*time.Millisecond) // a transaction as such may last
	if _, err := two.Exec(t.Context(), "select 1"); code(err) != "57014" {
		t.Errorf("it has waited: %v", err)
	}
	for _, sql := range []string{"select pg_sleep(30)", "rollback", "select pg_sleep(30)"} {
		_, err := one.Exec(t.Context(), sql)
		if sql == "rollback" && err != nil || sql != "rollback" && code(err) != "57014" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, c := range []*pgx.Conn{one, two} {
		if got := query[int](t, c, "select pg_backend_pid()"); got != pid {
			t.Errorf("another connection, %d instead of %d", got, pid)
		}
	}
}

// Replication has no query that ends, and is never idle for long.
func TestTimeoutsSpareReplication(t *testing.T) {
	f := start(t, func(c *proxy.Config) {
		c.QueryTimeout, c.IdleTimeout = 200*time.Millisecond, 200*time.Millisecond
	})
	cfg, err := pgconn.ParseConfig(f.dsn(session.ReadWrite, "postgres", "postgres", "sslmode=disable&replication=database"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	time.Sleep(time.Second)
	if _, err := c.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll(); err != nil {
		t.Error(err)
	}
}
