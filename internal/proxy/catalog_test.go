package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy/catalog"
	"manada/internal/proxy/classify"
	"manada/internal/proxy/pool"

	"github.com/jackc/pgx/v5"
)

// traps are ways on which a text leaves something behind that it does not name: what
// is made, the text, and the tokens of it that tell. Each text is run, and must leave
// something behind, or nothing is tested.
var traps = []struct{ name, setup, text string }{
	{"trigger sets", `create function tr_set() returns trigger language plpgsql as $$ begin perform set_config('app.tenant', 'a', false); return new; end $$;
		create table t_set(i int); create trigger g before insert on t_set for each row execute function tr_set()`, `insert into t_set values (1)`},
	{"trigger by SET", `create function tr_set2() returns trigger language plpgsql as $$ begin set app.tenant = 'a'; return new; end $$;
		create table t_set2(i int); create trigger g before insert on t_set2 for each row execute function tr_set2()`, `insert into t_set2 values (1)`},
	{"trigger makes a temporary table", `create function tr_temp() returns trigger language plpgsql as $$ begin create temp table if not exists made(i int); return new; end $$;
		create table t_temp(i int); create trigger g before insert on t_temp for each row execute function tr_temp()`, `insert into t_temp values (1)`},
	{"trigger of a trigger's table", `create function tr_far() returns trigger language plpgsql as $$ begin insert into t_set values (1); return new; end $$;
		create table t_far(i int); create trigger g before insert on t_far for each row execute function tr_far()`, `insert into t_far values (1)`},
	{"dynamic", `create function tr_dyn() returns trigger language plpgsql as $$ begin execute 'sel' || 'ect set_config(''app.tenant'', ''a'', false)'; return new; end $$;
		create table t_dyn(i int); create trigger g before insert on t_dyn for each row execute function tr_dyn()`, `insert into t_dyn values (1)`},
	{"view", `create view v_set as select set_config('app.tenant', 'a', false) s`, `select * from v_set`},
	{"view of a view", `create view v_far as select s from v_set`, `select * from v_far`},
	{"view with a lock", `create view v_lock as select pg_try_advisory_lock(42) ok`, `select ok from v_lock`},
	{"view of a function", `create function lk() returns bool language sql as $$ select pg_try_advisory_lock(43) $$; create view v_fn as select lk() ok`, `select ok from v_fn`},
	{"stable function", `create function st() returns text language plpgsql stable as $$ begin return set_config('app.tenant', 'a', false); end $$; create view v_st as select st()`, `select * from v_st`},
	{"SQL body", `create function atom() returns text begin atomic select set_config('app.tenant', 'a', false); end; create view v_atom as select atom()`, `select * from v_atom`},
	{"default argument", `create function arg(b bool default pg_try_advisory_lock(44)) returns bool language sql immutable as 'select b'; create view v_arg as select arg()`, `select * from v_arg`},
	{"aggregate", `create function agg(int, int) returns int language sql as $$ select pg_try_advisory_lock(45)::int $$; create aggregate am(int) (sfunc = agg, stype = int, initcond = '0');
		create view v_agg as select am(1)`, `select * from v_agg`},
	{"default", `create table t_def(i int, s text default set_config('app.tenant', 'a', false))`, `insert into t_def(i) values (1)`},
	{"default by a function", `create table t_def2(i int, s bool default lk())`, `insert into t_def2(i) values (1)`},
	{"rule", `create table t_rule(i int); create rule r as on insert to t_rule do also select lk()`, `insert into t_rule values (1)`},
	{"policy", `create table t_pol(i int); insert into t_pol values (1); grant select on t_pol to public; alter table t_pol enable row level security;
		create policy p on t_pol using (lk())`, `select * from t_pol`},
	{"domain", `create function ok(int) returns bool language sql as $$ select pg_try_advisory_lock(46) $$; create domain dom as int check (ok(value))`, `select '1'::dom`},
	{"table of a domain", `create table t_dom(d dom)`, `insert into t_dom values (1)`},
	{"check", `create table t_chk(i int check (ok(i)))`, `insert into t_chk values (1)`},
	{"operator of built-in types", `create function op(int, int) returns bool language sql as $$ select pg_try_advisory_lock(47) $$; create operator <<<> (leftarg = int, rightarg = int, function = op)`, `select 1 <<<> 2`},
	{"operator with a sign behind", ``, `select 1 <<<>-1`},
	{"own type's operator", `create type en as enum ('a', 'b'); create function eo(en, en) returns bool language sql as $$ select pg_try_advisory_lock(48) $$;
		create operator = (leftarg = en, rightarg = en, function = eo); create table t_en(e en); insert into t_en values ('a')`, `select * from t_en where e operator(public.=) 'a'`},
	{"own type's cast", `create function ec(en) returns int language sql as $$ select pg_try_advisory_lock(49)::int $$; create cast (en as int) with function ec(en) as implicit`, `select e + 1 from t_en`},
	{"operator class", `create function cmp(int, int) returns int language plpgsql immutable as $$ begin perform pg_try_advisory_lock(50); return btint4cmp($1, $2); end $$;
		create operator class oc for type int using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 cmp(int, int);
		create table t_oc(id int); insert into t_oc select generate_series(1, 3000); create index on t_oc (id oc)`, `select * from t_oc where id = 77`},
	{"expression of an index", `create function ix(int) returns int language plpgsql immutable as $$ begin perform pg_try_advisory_lock(51); return $1; end $$;
		create table t_ix(i int); create index on t_ix (ix(i))`, `insert into t_ix values (1)`},
	{"partition", `create table t_part(i int) partition by list (i); create table t_part1 partition of t_part for values in (1);
		create trigger g before insert on t_part1 for each row execute function tr_set()`, `insert into t_part values (1)`},
	{"cascade", `create table t_parent(i int primary key); create table t_child(i int references t_parent on delete cascade); insert into t_parent values (1); insert into t_child values (1);
		create trigger g after delete on t_child for each row execute function tr_del(); `, `delete from t_parent`},
	{"quoted name", `create view "Odd Name" as select lk()`, `select * from "Odd Name"`},
	{"folded name", ``, `SELECT * FROM V_SET`},
	{"long name", `create view ` + strings.Repeat("long", 16) + ` as select lk()`, `select * from ` + strings.Repeat("long", 17)},
	{"not ASCII", `create view señal as select lk()`, `select * from señal`},
	{"text that is run", `create view v_xml as select table_to_xml('v_lock', true, true, '')`, `select * from v_xml`},
	{"another language's function", `create function alias() returns bool language internal as 'pg_try_advisory_lock_int8'`, ``},
	{"event trigger", `create function evt() returns event_trigger language plpgsql as $$ begin perform set_config('app.tenant', 'a', false); end $$; create event trigger e on ddl_command_end execute function evt()`, `create table t_evt(i int)`},
}

const beforeTraps = `create function tr_del() returns trigger language plpgsql as $$ begin perform set_config('app.tenant', 'a', false); return old; end $$`

// plain are texts that leave nothing behind, on objects that look like the traps.
var plainTexts = []struct{ setup, text string }{
	{`create function touch2() returns trigger language plpgsql as $$ declare temp int := 1; begin new.at := now(); update p_log set n = n + temp; return new; end $$;
		create table p_log(i int, n int); create table p_t(i int, at timestamptz); create trigger g before insert on p_t for each row execute function touch2()`, `insert into p_t values (1)`},
	{`create table p_serial(i serial primary key, s text default gen_random_uuid()::text, at timestamptz default now())`, `insert into p_serial(s) values ('a')`},
	{`create view p_v as select i, upper(s) u from p_serial where s like 'a%'`, `select * from p_v`},
	{`create domain p_dom as text check (value ~ '^a')`, `select 'a'::p_dom`},
	{`create table p_fk(i int references p_serial on delete cascade)`, `insert into p_fk values (null)`},
	{`create function p_xact() returns int language sql as $$ select 1 from pg_advisory_xact_lock(1) $$; create view p_lock as select p_xact()`, `select * from p_lock`},
	{`create table p_tg(i int); create function p_note() returns trigger language plpgsql as $$ begin perform pg_notify('x', new.i::text); return null; end $$;
		create trigger g after insert on p_tg for each row execute function p_note()`, `insert into p_tg values (1)`},
	{`create extension citext`, `select 'a'::citext = 'A'::citext`},
	{`create extension hstore`, `select 'a=>1'::hstore -> 'a'`},
}

// left says what a session has that a fresh one has not.
const left = `select concat_ws(', ', nullif(current_setting('app.tenant', true), ''),
	(select 'lock' from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() limit 1),
	(select 'temporary object' from pg_class where relpersistence = 't' and relnamespace = pg_my_temp_schema() limit 1))`

// freshDatabase makes one for a test.
func (h *herd) freshDatabase(t *testing.T) string {
	t.Helper()
	name := "d_" + strings.ToLower(strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	h.admin(t, "create database "+name)
	h.afterwards(t, "drop database "+name+" with (force)")
	return name
}

func (h *herd) askAs(t *testing.T) catalog.Ask {
	a := &pool.Asker{Dialer: &pool.Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second},
		User: "manada_proxy", Passwords: func() []string { return []string{"proxy secret"} }, Timeout: 20 * time.Second}
	t.Cleanup(func() { a.Leave("") })
	return func(ctx context.Context, database, sql string, params []string, n int, row func([]string) error) error {
		return a.Ask(ctx, h.primary.addr(), database, sql, params, n, row)
	}
}

func dangerous(n interface{ Dangerous([]byte) bool }, text string) (tokens []string) {
	classify.Tokens([]byte(text), func(k classify.Token) {
		if (k.Word || k.Quoted || k.Operator) && n.Dangerous([]byte(text)[k.From:k.To]) {
			tokens = append(tokens, text[k.From:k.To])
		}
	})
	return tokens
}

// script runs statements one by one, as superuser, in a database.
func (h *herd) script(t *testing.T, database, sql string) {
	t.Helper()
	c := h.superuserIn(t, database)
	defer c.Close(t.Context())
	if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (h *herd) superuserIn(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	return connect(t, strings.Replace(superuser(h.primary.addr()), "/postgres?", "/"+database+"?", 1))
}

// TestDangerousNames: each trap leaves something behind, and a name of its text
// tells.
func TestDangerousNames(t *testing.T) {
	h := startHerd(t)
	role := h.role(t, "login password 'x'")
	db := h.freshDatabase(t)
	h.script(t, db, beforeTraps)
	for _, p := range traps {
		if p.name != "event trigger" {
			h.script(t, db, p.setup)
		}
	}
	names, err := catalog.Read(t.Context(), db, h.askAs(t))
	if err != nil {
		t.Fatal(err)
	}
	h.script(t, db, "grant all on all tables in schema public to "+role+"; grant all on all sequences in schema public to "+role+"; grant create on schema public to "+role)
	for _, p := range traps {
		if p.name == "event trigger" {
			h.script(t, db, p.setup)
			if names, err = catalog.Read(t.Context(), db, h.askAs(t)); err != nil {
				t.Fatal(err)
			}
		}
		if p.setup != "" && p.name != "cascade" && !names.Leaves([]byte(p.setup)) {
			t.Errorf("%s: nobody suspects %s", p.name, p.setup)
		}
		if p.text == "" {
			continue
		}
		who := "postgres"
		if p.name == "policy" {
			who = role
		}
		if h.leaves(t, db, who, p.text) == "" {
			t.Errorf("%s: %s leaves nothing behind: nothing is tested", p.name, p.text)
		}
		if dangerous(names, p.text) == nil {
			t.Errorf("%s: no name of %s tells", p.name, p.text)
		}
	}
	if !names.Dangerous([]byte("alias")) {
		t.Error("a function in language internal is judged by its own name")
	}
}

// What leaves nothing behind has no name that tells.
func TestHarmlessNames(t *testing.T) {
	h := startHerd(t)
	db := h.freshDatabase(t)
	for _, p := range plainTexts {
		h.script(t, db, p.setup)
	}
	names, err := catalog.Read(t.Context(), db, h.askAs(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plainTexts {
		if names.Leaves([]byte(p.setup)) && !strings.Contains(p.setup, "extension") {
			t.Errorf("suspected: %s", p.setup)
		}
		if got := dangerous(names, p.text); got != nil {
			t.Errorf("%s: %v", p.text, got)
		}
		if did := h.leaves(t, db, "postgres", p.text); did != "" {
			t.Errorf("%s leaves %s", p.text, did)
		}
	}
}

// leaves runs a text in a session of its own and says what that has afterwards.
func (h *herd) leaves(t *testing.T, database, who, text string) string {
	t.Helper()
	c := h.superuserIn(t, database)
	defer c.Close(t.Context())
	eventually(t, "the session before has given up its locks", func() bool {
		return query[int](t, c, "select count(*) from pg_locks where locktype = 'advisory'") == 0
	})
	var did string
	if who != "postgres" {
		if _, err := c.Exec(t.Context(), "set session authorization "+who); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.PgConn().Exec(t.Context(), text).ReadAll(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := c.QueryRow(t.Context(), left).Scan(&did); err != nil {
		t.Fatal(err)
	}
	return did
}

// A cast between built-in types is used without a name: then every name tells.
func TestEveryNameTells(t *testing.T) {
	h := startHerd(t)
	for _, setup := range []string{
		`create function c(bigint) returns text language sql as $$ select pg_try_advisory_lock(1)::text $$; create cast (bigint as text) with function c(bigint) as assignment`,
		`create function e(point, point) returns bool language sql as $$ select pg_try_advisory_lock(1) $$; create operator = (leftarg = point, rightarg = point, function = e)`,
	} {
		t.Run("", func(t *testing.T) {
			db := "d_every"
			h.admin(t, "create database "+db)
			h.afterwards(t, "drop database "+db+" with (force)")
			n, err := catalog.Read(t.Context(), db, h.askAs(t))
			if err != nil || n.Dangerous([]byte("anything")) || n.Len() > 0 {
				t.Fatalf("%v, %d names in an empty database", err, n.Len())
			}
			h.script(t, db, setup)
			if n, err = catalog.Read(t.Context(), db, h.askAs(t)); err != nil || !n.Dangerous([]byte("anything")) {
				t.Errorf("%s: %v", setup, err)
			}
		})
	}
}

// PostgreSQL's volatile functions are all known, or count as dangerous: those that do
// are these. The list is for version 15.
func TestBuiltIn(t *testing.T) {
	h := startHerd(t)
	c := connect(t, superuser(h.primary.addr()))
	defer c.Close(t.Context())
	rows, _ := c.Query(t.Context(), "select distinct proname::text from pg_proc where oid < 16384 and pronamespace = 'pg_catalog'::regnamespace and provolatile = 'v' and not proname = any($1) order by 1",
		catalog.Harmless())
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "binary_upgrade_") })
	want := strings.Fields(`currval cursor_to_xml cursor_to_xmlschema lastval pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all
		pg_advisory_unlock_shared pg_backup_start pg_backup_stop pg_copy_logical_replication_slot pg_copy_physical_replication_slot
		pg_create_logical_replication_slot pg_create_physical_replication_slot pg_replication_origin_session_reset
		pg_replication_origin_session_setup pg_replication_origin_xact_reset pg_replication_origin_xact_setup pg_stop_making_pinned_objects
		pg_try_advisory_lock pg_try_advisory_lock_shared query_to_xml query_to_xml_and_xmlschema query_to_xmlschema set_config setseed ts_rewrite ts_stat`)
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// The set follows DDL: what a client did is in it as soon as Reads says so, and what
// anybody else did a little later.
func TestKeeperFollowsDDL(t *testing.T) {
	h := startHerd(t)
	db := h.freshDatabase(t)
	left := make(chan string, 1)
	k := &catalog.Keeper{Ask: h.askAs(t), Every: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Left: func(database string) { left <- database }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	defer func() { cancel(); <-done }()
	live := k.Use(db)
	if !live.Known() && !live.Dangerous([]byte("t")) {
		t.Error("what is not known is not dangerous")
	}
	k.Await(t.Context(), db)
	if !live.Known() {
		t.Error("the first set was waited for in vain")
	}
	h.script(t, db, "create table t(i int); create table u(i int)")
	if live.Dangerous([]byte("t")) {
		t.Error("a plain table")
	}
	h.script(t, db, `create function tr() returns trigger language plpgsql as $$ begin set app.x = 1; return new; end $$; create trigger g before insert on t for each row execute function tr()`)
	if err := k.Refresh(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if !live.Dangerous([]byte("t")) || live.Dangerous([]byte("u")) {
		t.Error("the set that was read after the change has not got it")
	}
	h.script(t, db, `create trigger g before insert on u for each row execute function tr()`)
	eventually(t, "what somebody else did", func() bool { return live.Dangerous([]byte("u")) })
	h.script(t, db, `create or replace function tr() returns trigger language plpgsql as $$ begin return new; end $$`)
	eventually(t, "a function that was mended", func() bool { return !live.Dangerous([]byte("u")) })
	k.Leave(db)
	if again := k.Use(db); !again.Known() {
		t.Error("who comes back at once has it read anew")
	}
	k.Leave(db)
	if <-left != db {
		t.Error("another database was left")
	}
	if again := k.Use(db); again.Known() {
		t.Error("a set that nobody kept is taken for one")
	}
}

// A database that the proxy may not look into has only dangerous names, and its log
// says why, once.
func TestKeeperThatMayNot(t *testing.T) {
	h := startHerd(t)
	db := h.freshDatabase(t)
	h.admin(t, "revoke connect on database "+db+" from public")
	log := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	asked := make(chan struct{}, 1000)
	ask := h.askAs(t)
	k := &catalog.Keeper{Every: 10 * time.Millisecond, Log: slog.New(slog.NewTextHandler(f, nil)),
		Ask: func(ctx context.Context, database, sql string, params []string, n int, row func([]string) error) error {
			asked <- struct{}{}
			return ask(ctx, database, sql, params, n, row)
		}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	live := k.Use(db)
	for range 3 {
		<-asked
	}
	cancel()
	<-done
	if !live.Dangerous([]byte("t")) {
		t.Error("nothing is known and nothing dangerous")
	}
	r, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines := 0
	for s := bufio.NewScanner(r); s.Scan(); lines++ {
		if !strings.Contains(s.Text(), "permission denied for database") {
			t.Error(s.Text())
		}
	}
	if lines != 1 {
		t.Errorf("%d lines", lines)
	}
}

// Large catalogs: a quick look at how long a reading takes, and that a token costs
// nothing on the heap.
func BenchmarkDangerous(b *testing.B) {
	h := startHerd(b)
	c := connect(b, superuser(h.primary.addr()))
	defer c.Close(b.Context())
	a := &pool.Asker{Dialer: &pool.Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second},
		User: "manada_proxy", Passwords: func() []string { return []string{"proxy secret"} }, Timeout: 20 * time.Second}
	defer a.Leave("")
	if _, err := c.Exec(b.Context(), "create view bench_v as select pg_try_advisory_lock(1)"); err != nil {
		b.Fatal(err)
	}
	n, err := catalog.Read(b.Context(), "postgres", func(ctx context.Context, database, sql string, params []string, n int, row func([]string) error) error {
		return a.Ask(ctx, h.primary.addr(), database, sql, params, n, row)
	})
	if err != nil {
		b.Fatal(err)
	}
	if !n.Dangerous([]byte("BENCH_V")) {
		b.Fatal(fmt.Sprint(n.Len()))
	}
	token := []byte("pgbench_accounts")
	b.ReportAllocs()
	for b.Loop() {
		n.Dangerous(token)
	}
}
