package proxy_test

import (
	"context"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Each limit ends the client that is beyond it, with its own code. Its
// server ends as soon as it notices: a query that is under way is not cancelled.
func TestTimeouts(t *testing.T) {
	const limit = 300 * time.Millisecond
	for _, c := range []struct {
		name, code string
		change     func(*proxy.Config)
		do         func(t *testing.T, c *pgx.Conn) // until the client is ended
	}{
		{"query", "57014", func(c *proxy.Config) { c.QueryTimeout = limit }, func(t *testing.T, c *pgx.Conn) {
			c.Exec(t.Context(), "begin") // a transaction as such may last
			time.Sleep(limit + 100*time.Millisecond)
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
			if c.name == "query" {
				_, err = one.Exec(t.Context(), "select pg_sleep(3)")
			} else {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				for err == nil {
					_, err = one.PgConn().ReceiveMessage(ctx)
				}
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
