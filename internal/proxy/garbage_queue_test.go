package proxy_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"manada/internal/proxy/console"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var everyMode = []rules.Mode{rules.Auto, rules.Session, rules.Transaction, rules.Statement}

// waiting is how many of a role's clients wait for a server.
func waiting(t *testing.T, con *pgx.Conn, role string) (n int32) {
	t.Helper()
	for _, p := range table(t, con, "show pools") {
		if p["user"] == role {
			n += p["cl_waiting"].(int32)
		}
	}
	return n
}

// comesAndAsks is a client of its own for one statement, as a mode session has it wait
// for its server when it comes.
func comesAndAsks(t *testing.T, dsn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() {
		c, err := pgconn.Connect(t.Context(), dsn)
		if err == nil {
			_, err = c.Exec(t.Context(), sql).ReadAll()
			c.Close(t.Context())
		}
		done <- err
	}()
	return done
}

// Who breaks while it waits for a server loses its own place alone: those before and
// behind it are served, by the server that there was. Who left is not served: its
// statement runs nowhere, and its place is free before there is a server.
func TestBrokenInTheQueue(t *testing.T) {
	for _, mode := range everyMode {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 1, nil)
			role := f.role(t, "login password 'x'")
			f.table(t, role, "broken", "i int, s text")
			dsn := f.dsn(session.ReadWrite, role, "x", "sslmode=disable")
			con := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
			admin := connect(t, superuser(f.primary.addr()))
			for n, w := range ways {
				if w.name == "no more" { // it is there, and may hear its answer
					continue
				}
				must(t, admin, "select pg_advisory_lock(4712)")
				before := comesAndAsks(t, dsn, "select pg_advisory_xact_lock(4712)")
				var pid int
				eventually(t, "the server works", func() bool {
					return admin.QueryRow(t.Context(), "select pid from pg_stat_activity where usename = $1 and wait_event = 'advisory'", role).Scan(&pid) == nil
				})
				b := f.comes(t, session.ReadWrite, n%2 == 0)
				b.asks(t, role, "postgres")
				if mode != rules.Session {
					b.until(t, 'Z')
				}
				b.says('Q', "insert into broken values (1)\x00")
				eventually(t, "it waits", func() bool { return waiting(t, con, role) == 1 })
				behind := comesAndAsks(t, dsn, fmt.Sprintf("insert into broken select 2 where pg_backend_pid() = %d", pid))
				eventually(t, "another waits", func() bool { return waiting(t, con, role) == 2 })
				io.WriteString(b, w.raw)
				if w.goes != nil {
					go w.goes(b)
					eventually(t, "the place of one that has left is free: "+w.name, func() bool { return waiting(t, con, role) == 1 })
				}
				must(t, admin, "select pg_advisory_unlock(4712)")
				for who, done := range map[string]<-chan error{"before": before, "behind": behind} {
					if err := <-done; err != nil {
						t.Errorf("the one %s %s: %v", who, w.name, err)
					}
				}
				if w.goes == nil {
					b.ends(t, w.name)
				}
				b.tcp.Close()
				want := "2"
				if w.goes == nil {
					want = "1 2"
				}
				if got := query[string](t, admin, "select string_agg(i::text, ' ' order by i) from broken"); got != want {
					t.Errorf("%s: the rows %s, want %s", w.name, got, want)
				}
				must(t, admin, "truncate broken")
			}
		})
	}
}

// Who breaks while a switchover holds it is ended when its turn has come, and the others
// go on.
func TestBrokenInAHold(t *testing.T) {
	for _, mode := range everyMode {
		t.Run(mode.String(), func(t *testing.T) {
			f, answers := drained(t, mode, nil)
			role := f.role(t, "login password 'x'")
			neighbour := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
			pid := query[int](t, neighbour, "select pg_backend_pid()")
			admin := connect(t, superuser(f.primary.addr()))
			for n, w := range ways {
				b := f.comes(t, session.ReadWrite, n%2 == 0)
				logsIn(t, b, role)
				id := fmt.Sprintf("d%d", n)
				f.drain(id, int64(n+1), true, time.Minute)
				eventually(t, "the hold", func() bool { a := answers.last(); return a.Hold && a.ID == id })
				b.says('Q', "select 1\x00")
				io.WriteString(b, w.raw)
				done := execs(t, neighbour, "select 1")
				if w.goes != nil {
					go w.goes(b)
				}
				held(t, "a neighbour of "+w.name, done)
				f.top.Set(f.view(7)) // it is called off
				if err := <-done; err != nil {
					t.Errorf("%s: a neighbour: %v", w.name, err)
				}
				if w.goes == nil {
					b.ends(t, w.name)
				}
				eventually(t, "the end of "+w.name, func() bool { return f.Status().Ports["read_write"].Clients == 1 })
				b.tcp.Close()
				quiet(t, admin, role, w.name)
			}
			if got := query[int](t, neighbour, "select pg_backend_pid()"); got != pid && mode == rules.Session {
				t.Errorf("the neighbour's server is %d, was %d", got, pid)
			}
		})
	}
}

// The same on the console, by either name and on both ports.
func TestBrokenOnTheConsole(t *testing.T) {
	f := pooled(t, rules.Auto, 2, withSettings)
	neighbour := connect(t, f.dsn(session.ReadWrite, "postgres", "postgres", "sslmode=disable"))
	con := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadOnly)))
	role := f.role(t, "superuser login password 'x'")
	n := 0
	for _, name := range console.Databases {
		for _, port := range []session.Port{session.ReadWrite, session.ReadOnly} {
			for _, w := range ways {
				n++
				b := f.comes(t, port, n%2 == 0)
				b.asks(t, role, name)
				b.until(t, 'Z')
				io.WriteString(b, w.raw)
				if w.goes != nil {
					w.goes(b)
				} else {
					b.ends(t, fmt.Sprintf("%s on %s, %s", w.name, name, port))
				}
				b.tcp.Close()
				query[int](t, neighbour, "select $1::int", n)
				if got := table(t, con, "show version"); got[0]["version"] != "Manada 1.2.3" {
					t.Error(got)
				}
			}
		}
	}
}
