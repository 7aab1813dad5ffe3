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
	"github.com/jackc/pgx/v5/pgconn"
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

// Clients that have a connection of their own count as the others do, by PostgreSQL's
// limits and the proxy's: those that replicate, whether or not they are in a database,
// and those of standbys.
func TestLimitsCountOwnConnections(t *testing.T) {
	const many, most = "too many clients for role %q: the proxy allows 2", "too many connections for role %q"
	h := startHerd(t)
	for limit, want := range map[string]string{"max_clients=2": many, "": most} {
		t.Run("limit"+limit[:min(3, len(limit))], func(t *testing.T) {
			role := h.role(t, "login replication password 'x'")
			if limit == "" {
				h.admin(t, "alter role "+role+" connection limit 2")
			}
			f := pooled(t, rules.Transaction, 5, func(c *proxy.Config) {
				if limit != "" {
					o, err := rules.ParseOverride("*/"+role, limit)
					if err != nil {
						t.Fatal(err)
					}
					c.Pool.Overrides = []rules.Override{o}
				}
			})
			kinds := map[string]string{
				"shared":   f.dsn(session.ReadWrite, role, "x", "sslmode=disable"),
				"physical": f.dsn(session.ReadWrite, role, "x", "sslmode=disable&replication=true"),
				"logical":  f.dsn(session.ReadWrite, role, "x", "sslmode=disable&replication=database"),
				"standby":  f.dsn(session.ReadOnly, role, "x", "sslmode=disable"),
			}
			want = fmt.Sprintf(want, role)
			for _, first := range []string{"shared", "physical", "logical", "standby"} {
				one, err := pgconn.Connect(t.Context(), kinds[first])
				if err != nil {
					t.Fatal(first, err)
				}
				two, err := pgconn.Connect(t.Context(), kinds["shared"])
				if err != nil {
					t.Fatal(first, err)
				}
				for what, dsn := range kinds {
					c, err := pgconn.Connect(t.Context(), dsn)
					if code(err) != "53300" || !strings.Contains(err.Error(), want) {
						t.Errorf("%s beside %s: %v, want %s", what, first, err, want)
					}
					if err == nil {
						c.Close(t.Context())
					}
				}
				one.Close(t.Context())
				two.Close(t.Context())
				eventually(t, "both to be gone", func() bool {
					a, err := pgconn.Connect(t.Context(), kinds["shared"])
					if err != nil {
						return false
					}
					defer a.Close(t.Context())
					b, err := pgconn.Connect(t.Context(), kinds["shared"])
					if err != nil {
						return false
					}
					b.Close(t.Context())
					return true
				})
			}
		})
	}
}
