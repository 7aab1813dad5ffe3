package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// third makes one more standby, for as long as the test lasts.
func (h *herd) third(t *testing.T, settings ...string) *instance {
	t.Helper()
	i := &instance{data: filepath.Join(h.dir, "third_"+strings.ReplaceAll(strings.ToLower(t.Name()), "/", "_")), port: freePort(), more: settings}
	conn := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=postgres", h.primary.port)
	if err := h.run("pg_basebackup", "-D", i.data, "-d", conn, "-R", "-c", "fast", "--no-sync", "-X", "stream"); err != nil {
		t.Fatal(err)
	}
	if err := h.launch(i); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.kill(syscall.SIGQUIT) })
	return i
}

// kill ends an instance and waits for that.
func (i *instance) kill(sig syscall.Signal) {
	i.cmd.Process.Signal(sig)
	<-i.done
}

// three is the herd with a third node, whose standbys are these.
func (f *fixture) three(i *instance, standbys ...string) route.View {
	v := f.view(7)
	addrs := map[string]string{"slave": f.standby.addr(), "third": i.addr()}
	v.Standbys = nil
	for _, name := range standbys {
		v.Standbys = append(v.Standbys, route.Standby{Node: route.Node{Name: name, Addr: addrs[name]}, Streaming: true})
	}
	return v
}

func port(t *testing.T, c *pgx.Conn) int {
	t.Helper()
	p, err := strconv.Atoi(query[string](t, c, "select current_setting('port')", simple))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// knows waits until a node knows the role.
func (i *instance) knows(t *testing.T, role string) {
	t.Helper()
	c := connect(t, superuser(i.addr()))
	defer c.Close(t.Context())
	eventually(t, "the role is there", func() bool {
		return query[int](t, c, "select count(*) from pg_roles where rolname = $1", role) == 1
	})
}

// Clients of the read-only port share a standby's connections as others do the
// primary's, each with its own settings.
func TestReadersShare(t *testing.T) {
	for _, mode := range append([]rules.Mode{rules.Session}, sharing...) {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 3, nil)
			role := f.role(t, "login password 'x'")
			admin := connect(t, superuser(f.standby.addr()))
			var clients sync.WaitGroup
			for i := range 20 {
				clients.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					name := fmt.Sprintf("r%d", i)
					c, err := pgx.Connect(ctx, f.dsn(session.ReadOnly, role, "x", "sslmode=disable&application_name="+name))
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close(ctx)
					for j := range 20 {
						var a int
						var app, ro string
						var standby bool
						err := c.QueryRow(ctx, "select $1::int, app, standby, current_setting('transaction_read_only') from public.node", j).Scan(&a, &app, &standby, &ro)
						if err != nil || a != j || app != name || !standby || ro != "on" {
							t.Error(err, a, app, standby, ro)
							return
						}
					}
				})
			}
			clients.Wait()
			eventually(t, "only the pool's connections are left", func() bool {
				n := query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1", role)
				return n > 0 && n <= 3
			})
			if n := f.Status().Standbys[0].Sessions; n == 0 || n > 3 {
				t.Errorf("%d connections to the standby are counted", n)
			}
			c := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
			if got := c.PgConn().ParameterStatus("in_hot_standby") + c.PgConn().ParameterStatus("default_transaction_read_only"); got != "onon" {
				t.Errorf("told at the log-in: %q", got)
			}
			if _, err := c.Exec(t.Context(), "reset all; set default_transaction_read_only to default; create table no(i int)"); code(err) != "25006" {
				t.Errorf("a write: %v", err)
			}
		})
	}
}

// The limit of a node is over all pools: those of the read-only port and of split reads
// have the same. The console's orders are theirs, too.
func TestReadersLimitsAndOrders(t *testing.T) {
	f := pooled(t, rules.Transaction, 0, func(c *proxy.Config) { c.Split, c.NodeLimit = true, 2 })
	role := f.role(t, "login password 'x'")
	admin := connect(t, superuser(f.standby.addr()))
	var open []*pgx.Conn
	for range 2 {
		c := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
		must(t, c, "begin")
		open = append(open, c)
	}
	late := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable&application_name=late"))
	waits := execs(t, late, "select 1")
	held(t, "beyond the limit of the node", waits)
	if n := query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1", role); n != 2 {
		t.Errorf("%d connections", n)
	}
	con := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadOnly)))
	p := table(t, con, "show pools")
	if len(p) != 1 || p[0]["cl_active"] != int32(2) || p[0]["cl_waiting"] != int32(1) || p[0]["sv_active"] != int32(2) {
		t.Errorf("%v", p)
	}
	servers := table(t, con, "show servers")
	if len(servers) != 2 || servers[0]["port"] != int32(f.standby.port) {
		t.Errorf("%v", servers)
	}
	states := map[any]int{}
	for _, c := range table(t, con, "show clients") {
		states[c["state"]]++
	}
	if states["active"] != 2 || states["waiting"] != 1 {
		t.Errorf("%v", states)
	}
	must(t, open[0], "commit")
	if err := <-waits; err != nil {
		t.Error(err)
	}
	must(t, open[1], "commit")
	must(t, con, "pause postgres")
	waits = execs(t, late, "select 1")
	held(t, "a paused database", waits)
	must(t, con, "resume postgres")
	if err := <-waits; err != nil {
		t.Error(err)
	}
	must(t, con, "kill postgres")
	if _, err := late.Exec(t.Context(), "select 1"); code(err) != "57P01" {
		t.Errorf("after KILL: %v", err)
	}
}

// A standby ends, by its stop or by a crash. What its clients see of it is what they
// have to.
func TestReadersLoseTheirStandby(t *testing.T) {
	for how, sig := range map[string]syscall.Signal{"stop": syscall.SIGINT, "crash": syscall.SIGQUIT} {
		t.Run(how, func(t *testing.T) {
			f := pooled(t, rules.Auto, 10, nil)
			role := f.role(t, "login password 'x'")
			third := f.third(t)
			third.knows(t, role)
			f.top.Set(f.three(third, "third"))
			dsn := f.dsn(session.ReadOnly, role, "x", "sslmode=disable")
			idle, busy, open, broken, pinned := connect(t, dsn), connect(t, dsn), connect(t, dsn), connect(t, dsn), connect(t, dsn)
			if _, err := idle.Prepare(t.Context(), "st", "select current_setting('port') || $1::text"); err != nil {
				t.Fatal(err)
			}
			must(t, idle, "set datestyle = 'german'")
			for _, c := range []*pgx.Conn{busy, open, broken, pinned} {
				if at := port(t, c); at != third.port {
					t.Fatalf("read at %d", at)
				}
			}
			must(t, pinned, "select pg_advisory_lock(1)")
			must(t, open, "begin")
			f.top.Set(f.three(third, "slave", "third"))
			for _, c := range []*pgx.Conn{idle, busy} { // nobody goes elsewhere without need
				if at := port(t, c); at != third.port {
					t.Errorf("read at %d", at)
				}
			}
			asked := make(chan string, 1)
			go func() {
				var at string
				if err := busy.QueryRow(t.Context(), "select current_setting('port') from pg_sleep(1)", simple).Scan(&at); err != nil {
					at = err.Error()
				}
				asked <- at
			}()
			rows := broken.PgConn().Exec(t.Context(), "select repeat('x', 20000), pg_sleep(0.01) from generate_series(1, 3000)")
			if !rows.NextResult() || !rows.ResultReader().NextRow() {
				t.Fatal("no row")
			}
			admin := connect(t, superuser(third.addr()))
			eventually(t, "both are asked", func() bool {
				return query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1 and state = 'active' and query_start < now() - interval '0.2 s'", role) == 2
			})
			raw, err := pinned.PgConn().Hijack()
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Conn.Close()
			third.kill(sig)
			elsewhere := func(at string) bool { // the primary, where the standby has not everything at once
				return at == strconv.Itoa(f.standby.port) || at == strconv.Itoa(f.primary.port)
			}
			if at := <-asked; !elsewhere(at) {
				t.Errorf("what had no answer yet: %s", at)
			}
			if err := rows.Close(); code(err) != "40001" {
				t.Errorf("what had a part of its answer: %v", err)
			}
			if fatal := fatals(raw.Conn); len(fatal) != 1 || fatal[0].Code != "57P01" {
				t.Errorf("pinned: %+v", fatal)
			}
			if _, err := open.Exec(t.Context(), "select 1"); code(err) != "40001" {
				t.Errorf("an open transaction: %v", err)
			}
			must(t, open, "rollback")
			for _, c := range []*pgx.Conn{open, broken, busy} {
				if at := port(t, c); !elsewhere(strconv.Itoa(at)) {
					t.Errorf("read at %d", at)
				}
			}
			r := idle.PgConn().ExecPrepared(t.Context(), "st", [][]byte{[]byte("!")}, nil, nil).Read()
			if r.Err != nil || !elsewhere(strings.TrimSuffix(string(r.Rows[0][0]), "!")) {
				t.Errorf("an idle session: %v", r.Err)
			}
			eventually(t, "all read from the other standby", func() bool {
				return port(t, open) == f.standby.port && port(t, broken) == f.standby.port && port(t, busy) == f.standby.port && port(t, idle) == f.standby.port
			})
			if got := query[string](t, idle, "show datestyle", simple); got != "German, DMY" {
				t.Errorf("its settings: %s", got)
			}
		})
	}
}

// fatals reads to the end and returns the last words.
func fatals(conn net.Conn) (all []*wire.Error) {
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		typ, body, err := wire.ReadMessage(conn, 1<<20)
		if err != nil {
			return all
		}
		if e := wire.ParseError(body); typ == wire.TypeError && e.Severity == "FATAL" {
			all = append(all, e)
		}
	}
}

// A session never reads less than before: another standby has to catch up first. Where
// it may the primary answers meanwhile, and no longer than needed.
func TestReadersDoNotGoBack(t *testing.T) {
	for _, fallback := range []bool{true, false} {
		t.Run(fmt.Sprintf("fallback %v", fallback), func(t *testing.T) {
			f := pooled(t, rules.Transaction, 5, func(c *proxy.Config) { c.ReadOnlyFallback = fallback; c.ConnectWait = 20 * time.Second })
			role := f.role(t, "login password 'x'")
			third := f.third(t)
			third.knows(t, role)
			f.admin(t, "create table back(i int); grant all on back to "+role)
			f.afterwards(t, "drop table back")
			f.top.Set(f.three(third, "third"))
			c := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
			count := func() (n int) {
				_ = c.QueryRow(t.Context(), "select count(*) from back", simple).Scan(&n)
				return n
			}
			eventually(t, "the table is there", func() bool {
				return query[int](t, c, "select count(*) from pg_class where relname = 'back'", simple) == 1
			})
			slave := connect(t, superuser(f.standby.addr()))
			must(t, slave, "select pg_wal_replay_pause()")
			resumed := false
			resume := func() {
				if !resumed {
					resumed = true
					if _, err := slave.Exec(context.WithoutCancel(t.Context()), "select pg_wal_replay_resume()"); err != nil {
						t.Error(err)
					}
				}
			}
			defer resume()
			eventually(t, "it is paused", func() bool { return query[string](t, slave, "select pg_get_wal_replay_pause_state()") == "paused" })
			f.admin(t, "insert into back values (1)")
			eventually(t, "the row is seen", func() bool { return count() == 1 })
			f.top.Set(f.three(third, "slave", "third"))
			third.kill(syscall.SIGINT)
			f.top.Set(f.three(third, "slave"))
			got := make(chan int, 1)
			go func() { got <- count() }()
			if !fallback {
				select {
				case n := <-got:
					t.Fatalf("answered %d by a standby that cannot know", n)
				case <-time.After(300 * time.Millisecond):
				}
				resume()
			}
			if n := <-got; n != 1 {
				t.Errorf("%d rows", n)
			}
			want := f.primary.port
			if !fallback {
				want = f.standby.port
			}
			if at := port(t, c); at != want {
				t.Errorf("read at %d", at)
			}
			resume()
			eventually(t, "it reads from the standby again", func() bool { return port(t, c) == f.standby.port })
			if n := count(); n != 1 {
				t.Errorf("%d rows", n)
			}
		})
	}
}

// The only standby is started again, and nobody else may answer: readers wait for it.
func TestReadersWaitForTheOnlyStandby(t *testing.T) {
	f := pooled(t, rules.Auto, 5, func(c *proxy.Config) { c.ReadOnlyFallback = false })
	role := f.role(t, "login password 'x'")
	third := f.third(t)
	third.knows(t, role)
	f.top.Set(f.three(third, "third"))
	c := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
	port(t, c)
	third.kill(syscall.SIGINT)
	waits := execs(t, c, "select 1")
	held(t, "a read without a standby", waits)
	gone := f.three(third)
	f.top.Set(gone)
	held(t, "a read while none is known", waits)
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadOnly, role, "x", "sslmode=disable")); code(err) != "57P03" {
		t.Errorf("a log-in: %v", err)
	}
	if err := f.launch(third); err != nil {
		t.Fatal(err)
	}
	f.top.Set(f.three(third, "third"))
	if err := <-waits; err != nil {
		t.Error(err)
	}
}

// Readers whose only node is the primary take part in its switchover: they wait, and
// nothing else.
func TestReadersOfThePrimaryAreSwitchedOver(t *testing.T) {
	f, answers := drained(t, rules.Auto, nil)
	role := f.role(t, "login password 'x'")
	alone := f.view(7)
	alone.Standbys = nil
	f.top.Set(alone)
	dsn := f.dsn(session.ReadOnly, role, "x", "sslmode=disable")
	idle, tx, pinned := connect(t, dsn), connect(t, dsn), connect(t, dsn)
	if at := port(t, idle); at != f.primary.port {
		t.Fatalf("read at %d", at)
	}
	must(t, tx, "begin")
	must(t, pinned, "select pg_advisory_lock(1)")
	f.drain("d1", 6, true, time.Minute)
	v := f.top.Current()
	v.Standbys = nil
	f.top.Set(v)
	eventually(t, "the hold, with a transaction", func() bool { a := answers.last(); return a.Hold && a.Open == 1 })
	asks := execs(t, idle, "select 1")
	held(t, "a reader's statement", asks)
	must(t, tx, "select 1")
	must(t, tx, "commit")
	eventually(t, "nothing is open", func() bool { return answers.last().Open == 0 })
	stays := execs(t, pinned, "select 1")
	held(t, "a pinned reader's statement", stays)
	f.top.Set(gap())
	held(t, "a statement while nobody leads", asks)
	if err := <-stays; code(err) != "57P01" || !strings.Contains(err.Error(), "a session's advisory lock") {
		t.Errorf("a pinned reader: %v", err)
	}
	f.top.Set(f.view(8)) // with a standby
	if err := <-asks; err != nil {
		t.Errorf("the held statement: %v", err)
	}
	eventually(t, "it reads from the standby", func() bool { return port(t, idle) == f.standby.port })
	if at := port(t, tx); at == 0 {
		t.Error("no session any more")
	}
}

// A switchover is nothing to readers of standbys: not in the hold, and not while nobody
// leads.
func TestReadersOfStandbysAreNotHeld(t *testing.T) {
	f, answers := drained(t, rules.Auto, nil)
	role := f.role(t, "login password 'x'")
	c := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
	port(t, c)
	f.drain("d1", 6, true, 10*time.Millisecond)
	eventually(t, "the hold", func() bool { return answers.last().Hold })
	late := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable&work_mem=7MB"))
	for _, v := range []route.View{f.top.Current(), gap(), f.view(8)} {
		f.top.Set(v)
		for _, c := range []*pgx.Conn{c, late} {
			if at := port(t, c); at != f.standby.port {
				t.Errorf("epoch %d: read at %d", v.Epoch, at)
			}
		}
	}
}

// A standby becomes the primary. Transactions end there, who keeps a connection is told
// why it ends, and the others read elsewhere.
func TestReadersOfTheNewPrimary(t *testing.T) {
	f := pooled(t, rules.Auto, 10, func(c *proxy.Config) {
		o, err := rules.ParseOverride("*/keeps", "mode=session")
		if err != nil {
			panic(err)
		}
		c.Pool.Overrides = append(c.Pool.Overrides, o)
		c.Pool.Default.QueueTimeout = 10 * time.Second
	})
	f.admin(t, "set password_encryption='scram-sha-256'; create role keeps login password 'x'")
	f.afterwards(t, "drop role keeps")
	role := f.role(t, "login password 'x'")
	third := f.third(t)
	third.knows(t, role)
	third.knows(t, "keeps")
	f.top.Set(f.three(third, "third"))
	dsn := f.dsn(session.ReadOnly, role, "x", "sslmode=disable")
	idle, tx, keeps := connect(t, dsn), connect(t, dsn), connect(t, f.dsn(session.ReadOnly, "keeps", "x", "sslmode=disable"))
	port(t, idle)
	must(t, tx, "begin")
	must(t, keeps, "begin")
	f.top.Set(gap())
	admin := connect(t, superuser(third.addr()))
	if at := port(t, idle); at != third.port {
		t.Errorf("while nobody leads: read at %d", at)
	}
	must(t, admin, "select pg_promote()")
	asks := execs(t, idle, "select 1")
	v := f.three(third, "slave")
	v.Epoch, v.Primary = 8, route.Node{Name: "third", Addr: third.addr()}
	f.top.Set(v)
	for _, c := range []*pgx.Conn{tx, keeps} {
		if at := port(t, c); at != third.port {
			t.Errorf("in a transaction: read at %d", at)
		}
		must(t, c, "commit")
	}
	if _, err := keeps.Exec(t.Context(), "select 1"); code(err) != "57P01" || !strings.Contains(err.Error(), "third has become the primary, and this session keeps its connection to it: its pool's mode is session") {
		t.Errorf("who keeps its connection: %v", err)
	}
	eventually(t, "nobody has the standby's connections any more", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename in ($1, 'keeps')", role) == 0
	})
	if err := <-asks; err != nil {
		t.Error(err)
	}
}

// What a standby refuses as such keeps no connection; what it does and cannot be
// carried does.
func TestReadersPins(t *testing.T) {
	f := pooled(t, rules.Auto, 1, func(c *proxy.Config) { c.Pool.Default.QueueTimeout = 300 * time.Millisecond })
	role := f.role(t, "login password 'x'")
	dsn := f.dsn(session.ReadOnly, role, "x", "sslmode=disable")
	a, b := connect(t, dsn), connect(t, dsn)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		for _, sql := range []string{"listen x", "create temp table t(i int)", "select 1 into temp t", "create temp view v as select 1"} {
			if _, err := a.Exec(t.Context(), sql, mode); code(err) != "25006" {
				t.Errorf("%s: %v", sql, err)
			}
			must(t, b, "select 1")
		}
	}
	for _, sql := range []string{"select pg_advisory_lock(1)", "prepare p as select 1", "set role none", "do 'begin end'"} {
		c := connect(t, dsn)
		must(t, c, sql)
		other := connect(t, dsn)
		if _, err := other.Exec(t.Context(), "select 1"); code(err) != "53300" {
			t.Errorf("%s: another client: %v", sql, err)
		}
		c.Close(t.Context())
		eventually(t, "its connection is free", func() bool {
			other, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close(t.Context())
			_, err = other.Exec(t.Context(), "select 1")
			return err == nil
		})
		if sql == "select pg_advisory_lock(1)" {
			admin := connect(t, superuser(f.standby.addr()))
			if n := query[int](t, admin, "select count(*) from pg_locks where locktype = 'advisory'"); n != 0 {
				t.Errorf("%d locks are left", n)
			}
		}
	}
}

// A standby whose sessions are other ones than the primary's answers no split reads, and
// those of the read-only port all the same.
func TestReadersOfAnUnlikeStandby(t *testing.T) {
	f := pooled(t, rules.Transaction, 3, func(c *proxy.Config) { c.Split = true })
	role := f.role(t, "login password 'x'")
	third := f.third(t, "-c", "timezone=Asia/Tokyo")
	third.knows(t, role)
	f.top.Set(f.three(third, "third"))
	var split []*pgx.Conn
	for range 4 {
		split = append(split, connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable")))
	}
	for range 3 {
		c := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
		for range 3 {
			for _, s := range split {
				if query[bool](t, s, "select standby from public.node", simple) {
					t.Fatal("a split read on a standby that is not like the primary")
				}
			}
			if at := port(t, c); at != third.port {
				t.Errorf("read at %d", at)
			}
		}
	}
}

// A standby that falls behind is left at the next transaction, and not before.
func TestReadersLeaveWhoIsBehind(t *testing.T) {
	f := pooled(t, rules.Transaction, 3, nil)
	role := f.role(t, "login password 'x'")
	c := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
	must(t, c, "begin")
	v := f.view(7)
	v.Standbys[0].LagBytes = 1 << 40
	f.top.Set(v)
	if at := port(t, c); at != f.standby.port {
		t.Errorf("in a transaction: read at %d", at)
	}
	must(t, c, "commit")
	if at := port(t, c); at != f.primary.port {
		t.Errorf("read at %d", at)
	}
	if got := c.PgConn().ParameterStatus("in_hot_standby"); got != "off" {
		t.Errorf("told that it is on a standby: %q", got)
	}
	var e *pgconn.PgError
	if _, err := c.Exec(t.Context(), "create table no(i int)", simple); !errors.As(err, &e) || e.Code != "25006" {
		t.Errorf("a write at the primary: %v", err)
	}
	writer := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	for range 5 { // which shares the primary's connections with it
		port(t, c)
		if got := query[string](t, writer, "show default_transaction_read_only", simple); got != "off" {
			t.Fatalf("a client of the read-write port has %s", got)
		}
	}
	f.top.Set(f.view(7))
	eventually(t, "it is back", func() bool { return port(t, c) == f.standby.port })
}
