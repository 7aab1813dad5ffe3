package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
)

// pooled starts a proxy whose clients share so many connections.
func pooled(t *testing.T, mode rules.Mode, size int, change func(*proxy.Config)) *fixture {
	t.Helper()
	return start(t, func(c *proxy.Config) {
		c.Split = false
		c.Pool.Default.Mode, c.Pool.Default.Size = mode, size
		if change != nil {
			change(c)
		}
	})
}

var sharing = []rules.Mode{rules.Transaction, rules.Statement, rules.Auto}

// Many clients, few connections: each gets its own answers, and PostgreSQL has no
// more connections than the pool may have.
func TestClientsShareConnections(t *testing.T) {
	for _, mode := range sharing {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 3, nil)
			role := f.role(t, "login password 'x'")
			admin := connect(t, superuser(f.primary.addr()))
			var clients sync.WaitGroup
			for i := range 40 {
				clients.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					c, err := pgx.Connect(ctx, f.dsn(session.ReadWrite, role, "x", fmt.Sprintf("sslmode=disable&application_name=c%d", i)))
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close(ctx)
					for j := range 30 {
						var a, b int
						var name string
						if err := c.QueryRow(ctx, "select $1::int, $2::int, current_setting('application_name')", i, j).Scan(&a, &b, &name); err != nil || a != i || b != j || name != fmt.Sprintf("c%d", i) {
							t.Error(err, a, b, name)
							return
						}
					}
				})
			}
			most := 0
			done := make(chan struct{})
			go func() { clients.Wait(); close(done) }()
			for open := true; open; {
				most = max(most, query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1 and application_name ~ '^c[0-9]' ", role))
				select {
				case <-done:
					open = false
				case <-time.After(5 * time.Millisecond):
				}
			}
			if most > 3+40 { // those that only ask for the greeting come on top, for a moment
				t.Errorf("%d connections", most)
			}
			eventually(t, "only the pool's connections are left", func() bool {
				return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1", role) <= 3
			})
		})
	}
}

// What a client has set follows it, and is nobody else's; a transaction stays on one
// connection.
func TestSharedClientsKeepTheirState(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Transaction, rules.Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 1, func(c *proxy.Config) {
				c.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
				c.Pool.Default.QueueTimeout = 5 * time.Second
			})
			role := f.role(t, "login password 'x'")
			a := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable&timezone=Asia/Tokyo"))
			b := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
			if _, err := a.Exec(t.Context(), "set datestyle = 'german'"); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if got := query[string](t, b, "select current_setting('TimeZone') || ' ' || '2024-02-01'::date::text"); got == "Asia/Tokyo 2024-02-01" || got[len(got)-10:] != "2024-02-01" {
					t.Errorf("another client's settings: %s", got)
				}
				if got := query[string](t, a, "select current_setting('TimeZone') || ' ' || '2024-02-01'::date::text"); got != "Asia/Tokyo 01.02.2024" {
					t.Errorf("its own settings: %s", got)
				}
			}
			tx, err := a.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "select 1"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			waiting, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := waiting.Exec(ctx, "select 1"); err == nil {
				t.Error("two clients in one connection's transaction")
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			query[int](t, b, "select 1")
		})
	}
}

// Who waits for too long is told, in transaction mode: 53300 and the key.
func TestQueueTimeoutIsTold(t *testing.T) {
	f := pooled(t, rules.Transaction, 1, func(c *proxy.Config) { c.Pool.Default.QueueTimeout = 200 * time.Millisecond })
	role := f.role(t, "login password 'x'")
	a := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	if _, err := a.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	b := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	if _, err := b.Exec(t.Context(), "select 1"); code(err) != "53300" {
		t.Errorf("%v", err)
	}
}

// A connection from before a change of the role's settings is nobody's any more.
func TestSharedServersFollowTheRole(t *testing.T) {
	f := pooled(t, rules.Transaction, 2, nil)
	role := f.role(t, "login password 'x'")
	a := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	query[int](t, a, "select 1")
	f.admin(t, "alter role "+role+" set work_mem = '7MB'")
	b := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	if got := query[string](t, b, "show work_mem"); got != "7MB" {
		t.Errorf("%s", got)
	}
}

// What sets a setting back goes to the client's start-up value, in every mode and by
// both protocols.
func TestSettingsGoBackToTheClientsOwn(t *testing.T) {
	for _, mode := range append([]rules.Mode{rules.Session}, sharing...) {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 1, nil)
			c := connect(t, f.dsn(session.ReadWrite, "postgres", "postgres", "sslmode=disable&work_mem=9MB&timezone=Asia/Tokyo"))
			for _, m := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
				for sql, name := range map[string]string{"set work_mem to default": "work_mem", "SET SESSION WORK_MEM = DEFAULT": "work_mem",
					"/* x */ set \"work_mem\" to default": "work_mem", "reset work_mem": "work_mem", " -- x\n reset all": "work_mem",
					"set time zone default": "timezone", "set timezone to default": "timezone", "set time zone local": "timezone"} {
					for _, other := range []string{"set work_mem = '1MB'", "set timezone = 'UTC'", sql} {
						if _, err := c.Exec(t.Context(), other, m); err != nil {
							t.Fatalf("%s: %v", other, err)
						}
					}
					want := map[string]string{"work_mem": "9MB", "timezone": "Asia/Tokyo"}[name]
					if got := query[string](t, c, "show "+name); got != want {
						t.Errorf("%s by %s: %s", sql, m, got)
					}
				}
			}
		})
	}
}

// Cancel reaches the statement of the client that asks, on whichever connection.
func TestCancelOfASharedClient(t *testing.T) {
	f := pooled(t, rules.Transaction, 2, nil)
	role := f.role(t, "login password 'x'")
	c := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	go func() {
		c.PgConn().CancelRequest(context.WithoutCancel(t.Context()))
	}()
	if _, err := c.Exec(t.Context(), "select pg_sleep(20)"); code(err) != "57014" {
		t.Errorf("%v", err)
	}
	query[int](t, c, "select 1")
}

// Cancel ends the wait for a server, as it would end what the client waits for; the
// session goes on.
func TestCancelOfAClientThatWaits(t *testing.T) {
	f := pooled(t, rules.Auto, 1, nil)
	role := f.role(t, "login password 'x'")
	one := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	if _, err := one.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	two := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	console := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	waiting := func(n int32) func() bool {
		return func() bool { p := table(t, console, "show pools"); return len(p) == 1 && p[0]["cl_waiting"] == n }
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec} {
		answered := make(chan error, 1)
		go func() {
			_, err := two.Exec(t.Context(), "select $1::int", mode, 1)
			answered <- err
		}()
		eventually(t, "it waits", waiting(1))
		if err := two.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; code(err) != "57014" {
			t.Errorf("%s: %v", mode, err)
		}
		eventually(t, "nobody waits", waiting(0))
	}
	if _, err := one.Exec(t.Context(), "commit"); err != nil {
		t.Error(err)
	}
	if got := query[int](t, two, "select 2"); got != 2 {
		t.Errorf("%d", got)
	}
}

// The console shows the pools, and its orders reach them.
func TestConsoleOfPools(t *testing.T) {
	f := pooled(t, rules.Transaction, 1, nil)
	role := f.role(t, "login password 'x'")
	one := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable&application_name=one"))
	if _, err := one.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	two := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	answered := make(chan error, 1)
	go func() {
		_, err := two.Exec(t.Context(), "select 1")
		answered <- err
	}()
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	eventually(t, "one works, the other waits", func() bool {
		p := table(t, c, "show pools")
		return len(p) == 1 && p[0]["cl_active"] == int32(1) && p[0]["cl_waiting"] == int32(1) && p[0]["sv_active"] == int32(1) && p[0]["pool_mode"] == "transaction"
	})
	states := map[any]any{}
	for _, v := range table(t, c, "show clients") {
		states[v["application_name"]] = v["state"]
	}
	servers := table(t, c, "show servers")
	if states["one"] != "active" || states[""] != "waiting" || len(servers) != 1 || servers[0]["state"] != "active" || servers[0]["application_name"] != "one" {
		t.Errorf("%v\n%v", states, servers)
	}
	admin := connect(t, superuser(f.primary.addr()))
	if n := query[int](t, admin, "select count(*) from pg_stat_activity where pid = $1 and usename = $2", servers[0]["remote_pid"], role); n != 1 {
		t.Errorf("%v is no backend of %s", servers[0]["remote_pid"], role)
	}
	paused := make(chan error, 1)
	go func() { // returns when nothing is open any more
		_, err := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite))).Exec(t.Context(), "pause postgres")
		paused <- err
	}()
	eventually(t, "the database is paused", func() bool { return table(t, c, "show databases")[0]["paused"] == int32(1) })
	if _, err := one.Exec(t.Context(), "commit"); err != nil { // what has begun is not interrupted
		t.Fatal(err)
	}
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	eventually(t, "no connection of a paused database is left", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1", role) == 0
	})
	select {
	case err := <-answered:
		t.Errorf("served while paused: %v", err)
	default:
	}
	for _, sql := range []string{"resume postgres", "reconnect", "wait_close"} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if err := <-answered; err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if _, err := c.Exec(t.Context(), "kill postgres"); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Exec(t.Context(), "select 1"); err == nil {
		t.Error("a client survived KILL")
	}
	if _, err := c.Exec(t.Context(), "resume postgres"); err != nil {
		t.Fatal(err)
	}
	query[int](t, connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable")), "select 1")
}

// Who leaves something behind in a connection leaves it to nobody: the connection is
// used again, after DISCARD ALL, in every mode in which a client keeps it.
func TestTaintedConnectionIsCleared(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Session, rules.Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 1, nil)
			role := f.role(t, "login password 'x'")
			f.admin(t, "grant create on schema public to "+role)
			f.afterwards(t, "revoke create on schema public from "+role)
			owner := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable&timezone=Asia/Tokyo&application_name=one"))
			if got := query[string](t, owner, "show timezone"); got != "Asia/Tokyo" {
				t.Errorf("begun with Asia/Tokyo, has %s", got)
			}
			if _, err := owner.PgConn().Exec(t.Context(), `create sequence s; create temp table mine (a int); listen ch; prepare p as select 1;
				select pg_advisory_lock(7), set_config('app.tenant', 'one', false), set_config('work_mem', '7MB', false), nextval('s');
				declare c cursor with hold for select 1; set timezone to 'UTC'; set search_path to pg_catalog`).ReadAll(); err != nil {
				t.Fatal(err)
			}
			if _, err := owner.Exec(t.Context(), "reset timezone"); err != nil {
				t.Fatal(err)
			}
			if got := query[string](t, owner, "show timezone"); got != "Asia/Tokyo" {
				t.Errorf("RESET went to %s, not to what the client began with", got)
			}
			pid := query[int](t, owner, "select pg_backend_pid()")
			owner.Close(t.Context())
			next := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
			if got := query[int](t, next, "select pg_backend_pid()"); got != pid {
				t.Errorf("another connection, %d instead of %d", got, pid)
			}
			if got := query[string](t, next, `select format('%s|%s|%s|%s|%s|%s|%s|%s|%s', to_regclass('pg_temp.mine'), (select count(*) from pg_listening_channels()),
				(select count(*) from pg_prepared_statements where name = 'p'), (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
				coalesce(current_setting('app.tenant', true), ''), current_setting('work_mem'), (select count(*) from pg_cursors where is_holdable),
				current_setting('application_name'), current_setting('search_path'))`); got != `|0|0|0||4MB|0||"$user", public` {
				t.Errorf("left behind: %s", got)
			}
			if _, err := next.Exec(t.Context(), "select currval('s')"); code(err) != "55000" {
				t.Errorf("another client's sequence: %v", err)
			}
		})
	}
}

// In mode session a client keeps its connection, with what is in it, until it leaves;
// others wait for it.
func TestSessionModeKeepsItsConnection(t *testing.T) {
	f := pooled(t, rules.Session, 1, func(c *proxy.Config) { c.Pool.Default.QueueTimeout = 200 * time.Millisecond })
	role := f.role(t, "login password 'x'")
	a := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	pid := query[int](t, a, "select pg_backend_pid()")
	if told := int(a.PgConn().PID()); told != pid {
		t.Errorf("told the process id %d, has %d", told, pid)
	}
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "x", "sslmode=disable")); code(err) != "53300" {
		t.Errorf("%v", err)
	}
	go func() {
		a.PgConn().CancelRequest(context.WithoutCancel(t.Context()))
	}()
	if _, err := a.Exec(t.Context(), "select pg_sleep(20)"); code(err) != "57014" {
		t.Errorf("%v", err)
	}
	if got := query[int](t, a, "select pg_backend_pid()"); got != pid {
		t.Errorf("another connection, %d instead of %d", got, pid)
	}
	a.Close(t.Context())
	last := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	query[int](t, last, "select 1")
	last.Close(t.Context())
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "x", "sslmode=disable&timezone=nowhere")); code(err) != "22023" {
		t.Errorf("begun with a time zone that is none: %v", err)
	}
}

// Reads of clients that share connections are answered by a standby, over connections
// that they share too: each reads what it has written, under its own settings, and
// nothing is written there.
func TestSharedReadsAreSplit(t *testing.T) {
	f := pooled(t, rules.Auto, 2, func(c *proxy.Config) { c.Split = true })
	role := f.role(t, "login password 'x'")
	f.table(t, role, "split_shared", "client int, n int")
	admin := connect(t, superuser(f.standby.addr()))
	began := time.Now()
	var clients sync.WaitGroup
	var there atomic.Int64
	for i := range 12 {
		clients.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			c, err := pgx.Connect(ctx, f.dsn(session.ReadWrite, role, "x", fmt.Sprintf("sslmode=disable&application_name=c%d", i)))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(ctx)
			for n := range 15 {
				if _, err := c.Exec(ctx, "insert into split_shared values ($1, $2)", i, n); err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					var standby bool
					var app string
					var rows int
					if err := c.QueryRow(ctx, "select standby, app, (select count(*) from split_shared where client = $1) from node", i).Scan(&standby, &app, &rows); err != nil || app != fmt.Sprintf("c%d", i) || rows != n+1 {
						t.Errorf("client %d: %v, %s, %d of %d rows", i, err, app, rows, n+1)
						return
					}
					if standby {
						there.Add(1)
					}
				}
			}
		})
	}
	clients.Wait()
	t.Logf("%s", time.Since(began))
	if there.Load() == 0 {
		t.Error("no read went to the standby")
	}
	if n := query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1", role); n < 1 || n > 2 {
		t.Errorf("%d connections to the standby", n)
	}
	t.Logf("%d of %d reads on the standby", there.Load(), 12*15*3)
	// The standby goes: the primary answers, at once.
	v := f.view(7)
	v.Standbys = nil
	f.top.Set(v)
	c := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	if query[bool](t, c, "select standby from node") {
		t.Error("read from a standby that is none")
	}
	eventually(t, "the connections to a standby that has gone are closed", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1", role) == 0
	})
}

// A standby whose sessions would be other than the primary's answers nobody.
func TestSharedReadersAreAlike(t *testing.T) {
	f := pooled(t, rules.Auto, 2, func(c *proxy.Config) { c.Split = true })
	role := f.role(t, "login password 'x'")
	read := func() (there bool) {
		c := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
		defer c.Close(t.Context())
		for range 4 { // homes are spread
			d := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
			query[int](t, d, "select 1 from node")
			there = query[bool](t, d, "select standby from node") || there
			d.Close(t.Context())
		}
		return there
	}
	eventually(t, "reads on the standby", read)
	standby := connect(t, superuser(f.standby.addr()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := pgx.Connect(ctx, superuser(f.standby.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(ctx)
		for _, sql := range []string{"alter system reset extra_float_digits", "select pg_reload_conf()"} {
			if _, err := c.Exec(ctx, sql); err != nil {
				t.Error(err)
			}
		}
	})
	for _, sql := range []string{"alter system set extra_float_digits = 0", "select pg_reload_conf()"} {
		if _, err := standby.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	query[int](t, standby, "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1", role)
	eventually(t, "the setting is in force", func() bool {
		return query[string](t, connect(t, superuser(f.standby.addr())), "show extra_float_digits") == "0"
	})
	if read() {
		t.Error("read from a standby with other settings")
	}
}

// Clients that differ only in their names are told them without PostgreSQL being asked
// for each: many at once would wait for its log-ins.
func TestNamesCostNoLogIn(t *testing.T) {
	f := pooled(t, rules.Auto, 1, nil)
	role := f.role(t, "login password 'x'")
	logIns := f.logIns(t, role)
	for i := range 20 {
		name := fmt.Sprintf("c%d", i)
		c := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable&application_name="+name))
		if got := c.PgConn().ParameterStatus("application_name"); got != name {
			t.Errorf("told %q, is %q", got, name)
		}
		if got := query[string](t, c, "show application_name"); got != name {
			t.Errorf("is %q instead of %q", got, name)
		}
		c.Close(t.Context())
	}
	if n := logIns(); n < 1 || n > 4 {
		t.Errorf("%d log-ins at PostgreSQL for 20 clients", n)
	}
}

// Clients that come at once with the same settings have PostgreSQL asked once.
func TestClientsAtOnceAreWelcomedByOneLogIn(t *testing.T) {
	f := pooled(t, rules.Auto, 1, nil)
	role := f.role(t, "login password 'x'")
	logIns := f.logIns(t, role)
	var clients sync.WaitGroup
	for range 30 {
		clients.Go(func() {
			c, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "x", "sslmode=disable&timezone=Asia/Tokyo"))
			if err != nil {
				t.Error(err)
				return
			}
			if got := c.PgConn().ParameterStatus("TimeZone"); got != "Asia/Tokyo" {
				t.Errorf("told %q", got)
			}
			c.Close(t.Context())
		})
	}
	clients.Wait()
	if n := logIns(); n != 1 {
		t.Errorf("%d log-ins at PostgreSQL for 30 clients", n)
	}
}

// logIns has the primary log them, and counts those of a role from now on.
func (f *fixture) logIns(t *testing.T, role string) func() int {
	t.Helper()
	f.admin(t, "alter system set log_connections = on; ")
	f.admin(t, "select pg_reload_conf()")
	f.afterwards(t, "alter system reset log_connections; select pg_reload_conf()")
	eventually(t, "log-ins are logged", func() bool {
		return query[string](t, connect(t, superuser(f.primary.addr())), "show log_connections") == "on"
	})
	count := func() int {
		log, err := os.ReadFile(f.primary.data + ".log")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(log), "authorized: user="+role+" ")
	}
	before := count()
	return func() int { return count() - before }
}
