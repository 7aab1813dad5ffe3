package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
)

// Clients of a database, of a role, and of a role in a database are limited, each with
// its sentence; when one leaves another gets in.
func TestLimitsOfClients(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Session, rules.Transaction} {
		t.Run(mode.String(), func(t *testing.T) {
			h := startHerd(t)
			db := h.freshDatabase(t)
			role := h.role(t, "login password 'x'")
			for pattern, whose := range map[string]string{db: fmt.Sprintf("database %q", db), "*/" + role: fmt.Sprintf("role %q", role),
				db + "/" + role: fmt.Sprintf("role %q in database %q", role, db)} {
				o, err := rules.ParseOverride(pattern, "max_clients=1")
				if err != nil {
					t.Fatal(err)
				}
				f := pooled(t, mode, 5, func(c *proxy.Config) { c.Pool.Overrides = []rules.Override{o} })
				url := fmt.Sprintf("postgres://%s:x@%s/%s?sslmode=disable", role, f.Addr(session.ReadWrite), db)
				first := connect(t, url)
				want := "too many clients for " + whose + ": the proxy allows 1 (max_clients in proxy.pool.overrides)"
				if _, err := pgx.Connect(t.Context(), url); code(err) != "53300" || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", pattern, err)
				}
				if !strings.HasPrefix(pattern, db+"/") && !strings.HasPrefix(pattern, "*") {
					connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable")) // another database
				}
				query[int](t, first, "select 1")
				first.Close(t.Context())
				eventually(t, "room for another", func() bool {
					c, err := pgx.Connect(t.Context(), url)
					if err == nil {
						c.Close(t.Context())
					}
					return err == nil
				})
			}
		})
	}
}

// A server connection that is older than its lifetime is handed to nobody any more;
// clients notice nothing.
func TestServerLifetime(t *testing.T) {
	f := pooled(t, rules.Transaction, 1, func(c *proxy.Config) { c.Pool.Default.Lifetime = 300 * time.Millisecond })
	role := f.role(t, "login password 'x'")
	c := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	first := query[int](t, c, "select pg_backend_pid()")
	eventually(t, "another server", func() bool { return query[int](t, c, "select pg_backend_pid()") != first })
	admin := connect(t, superuser(f.primary.addr()))
	eventually(t, "the old one is closed", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where pid = $1", first) == 0
	})
}
