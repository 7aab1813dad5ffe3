package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"
)

// narrow is a proxy whose clients have one connection in mode Auto: whoever is pinned
// has it for itself.
func narrow(t *testing.T) (f *fixture, db string) {
	f = pooled(t, rules.Auto, 1, func(c *proxy.Config) { c.Pool.Default.QueueTimeout = 3 * time.Second })
	return f, f.freshDatabase(t)
}

func (f *fixture) in(t *testing.T, db string) *pgx.Conn {
	t.Helper()
	return connect(t, strings.Replace(superuser(f.Addr(session.ReadWrite).String()), "/postgres?", "/"+db+"?", 1))
}

// Ordinary work gives its connection back.
func TestOrdinaryWorkIsNotPinned(t *testing.T) {
	f, db := narrow(t)
	f.script(t, db, `create table t(id serial primary key, s text default upper('x'), at timestamptz default now());
		create table pgbench_accounts(aid int primary key, abalance int); insert into pgbench_accounts select generate_series(1, 100), 0;
		create function plain(int) returns int language plpgsql as $$ begin insert into t(s) values ('f'); return $1 + 1; end $$;
		create function "Quoted"(int) returns int language sql as 'select $1';
		create schema app; create function app.far(int) returns int language sql stable as 'select plain($1)';
		create function touch() returns trigger language plpgsql as $$ begin new.at := clock_timestamp(); return new; end $$;
		create trigger g before update on t for each row execute function touch();
		create view v as select id, plain(1) from t`)
	a, b := f.in(t, db), f.in(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	own := func(after string) {
		if _, err := b.Exec(ctx, "select 1"); err != nil {
			t.Fatalf("after %s another client is kept waiting: %v", after, err)
		}
	}
	for _, sql := range []string{
		"begin; update pgbench_accounts set abalance = abalance + 5 where aid = 7; select abalance from pgbench_accounts where aid = 7; end",
		"insert into t(s) values ('a') returning id", "update t set s = 'b' where id = 1", "delete from t where id = 1",
		"insert into t(s) select plain(g)::text from generate_series(1, 3) g", `select "Quoted"(1), plain(2), app.far(3)`,
		"select * from v", "select pg_get_function_sqlbody(1), jsonb_path_query_tz('{}', '$'), pg_size_pretty(1::bigint), int4pl(1, 2)",
		"select xmlagg(x) from (values ('<a/>'::xml)) v(x)", "select count(*) from information_schema.columns",
		"set datestyle = 'german'", "set search_path = app, public", "create table u(i int)", "alter table u add s text default plain(1)::text", "drop table u",
		"create function made() returns int language sql as 'select 1'", "truncate t", "explain select plain(1)",
		"declare c cursor for select 1", "vacuum t", "analyze t", "lock table t", "select set_config('app.x', 'y', true)", "reset all",
		"set standard_conforming_strings = on", "set session characteristics as transaction read only", "set default_transaction_isolation = serializable",
		"set session characteristics as transaction read write", "reset default_transaction_isolation",
		"set client_min_messages to warning; set timezone to 'UTC'; select set_config('search_path', '', false)", "reset all; set work_mem = '5MB'",
		"selec 1", "do $$ begin end", "listen", "create temp table x (a int); selec 2", "create temp table x (a int); select 1/0",
	} {
		if _, err := a.PgConn().Exec(ctx, sql).ReadAll(); err != nil && code(err) != "25P01" && code(err) != "42601" && code(err) != "22012" {
			t.Fatalf("%s: %v", sql, err)
		}
		own(sql)
	}
	for i := range 5 {
		if _, err := a.Exec(ctx, "insert into t(s) values ($1)", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		own("a prepared statement")
	}
	if _, err := a.Exec(ctx, "selec 1"); code(err) != "42601" {
		t.Fatal(err)
	}
	own("a prepared statement that is none")
	if _, err := a.PgConn().CopyFrom(ctx, strings.NewReader("7\n8\n"), "copy t(s) from stdin"); err != nil {
		t.Fatal(err)
	}
	own("COPY")
}

// What one client has just made pins whoever uses it next, however soon.
func TestWhatWasJustMadePins(t *testing.T) {
	f := pooled(t, rules.Auto, 3, nil)
	db := f.freshDatabase(t)
	maker, other := f.in(t, db), f.in(t, db)
	exec := func(c *pgx.Conn, sql string, args ...any) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for i := range 5 {
		table, user := fmt.Sprintf("t%d", i), f.in(t, db)
		exec(maker, "create table "+table+"(i int)")
		exec(user, "insert into "+table+" values ($1)", i) // prepared before the trigger is there
		exec(maker, fmt.Sprintf("create function set%d() returns trigger language plpgsql as $$ begin perform set_config('app.tenant', 'a', false); return new; end $$", i))
		exec(maker, fmt.Sprintf("create trigger g before insert on %s for each row execute function set%d()", table, i))
		exec(user, "insert into "+table+" values ($1)", i)
		for range 3 {
			if got := query[string](t, other, "select coalesce(current_setting('app.tenant', true), '')"); got != "" {
				t.Fatalf("round %d: another client's setting: %q", i, got)
			}
		}
		if got := query[string](t, user, "select current_setting('app.tenant')"); got != "a" {
			t.Errorf("its own setting: %q", got)
		}
		user.Close(t.Context())
	}
}

// Who has rolled back what would have stayed gives its connection back. What no rollback
// takes back, and what was committed, keeps it.
func TestWhatIsRolledBackPinsNobody(t *testing.T) {
	f, db := narrow(t)
	const temp, batch = "create temp table x (a int)", "a batch: "
	for _, c := range []struct {
		does string
		kept bool
	}{
		{"begin|" + temp + "|rollback", false}, {"begin|listen l|declare c cursor with hold for select 1|set role pg_monitor|rollback", false},
		{"begin|" + temp + "|select 1/0|commit", false}, {"begin|savepoint a|" + temp + "|rollback to a|commit", false},
		{"begin|set local role pg_monitor|commit", false}, {batch + temp + "|select 1/0", false}, {batch + "listen l|rollback", false},
		{"begin|" + temp + "|commit", true}, {"begin|listen l|savepoint a|listen m|rollback to a|commit", true}, {"begin|select pg_advisory_lock(7)|rollback", true},
		{"begin|prepare p as select 1|rollback", true}, {batch + temp + "|analyze pg_class|select 1/0", true}, {batch + "explain analyze " + temp[:len(temp)-7] + "as select 1", true},
	} {
		t.Run(c.does, func(t *testing.T) {
			a, b := f.in(t, db), f.in(t, db)
			if texts, ok := strings.CutPrefix(c.does, batch); ok {
				var all pgx.Batch
				for _, sql := range strings.Split(texts, "|") {
					all.Queue(sql)
				}
				_ = a.SendBatch(t.Context(), &all).Close() // some have an error
			} else {
				for _, sql := range strings.Split(c.does, "|") {
					_, _ = a.PgConn().Exec(t.Context(), sql).ReadAll()
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if c.kept {
				var soon context.CancelFunc
				ctx, soon = context.WithTimeout(ctx, 200*time.Millisecond)
				defer soon()
			}
			if _, err := b.PgConn().Exec(ctx, "select 1").ReadAll(); (err != nil) != c.kept {
				t.Errorf("another client: %v", err)
			}
			a.Close(t.Context())
			b.Close(t.Context())
		})
	}
}
