package classify

import (
	"reflect"
	"strings"
	"testing"
)

func kindOf(sql string) Kind { return Text([]byte(sql)).Kind }

// What may leave the primary, and what only looks like it.
var cases = []struct {
	sql  string
	want Kind
}{
	{"select 1", Read}, {"SELECT 1;", Read}, {" ;select 1; ;", Read}, {"(select 1) union (select 2)", Read},
	{"values (1), (2)", Read}, {"table t", Read}, {"TaBlE only t", Read}, {"/* a /* nested */ b */ select -- c\n 1", Read},
	{"with x as (select 1) select * from x", Read}, {"with x as not materialized (select 1) select * from x", Read},
	{"select count(*) filter (where a > 1) over (partition by b) from t group by grouping sets ((a), (b))", Read},
	{"select current_setting('app.tenant'), current_setting( 'app.tenant', true)", Read},
	{"select pg_catalog.lower(x) from public.t", Read}, {"select lower(a) || upper(b), $1::varchar(10), a.b[1] from a", Read},
	{"select 'insert into t; delete', E'it\\'s; drop', $$update$$, $a$ $b$ for update $a$, \"into\"", Read},
	{"select substring('x' from 1 for 2), extract(epoch from now())", Read},
	{"select * from unnest($1::int[]) with ordinality as u(x, n)", Read}, {"select * from t tablesample system(10)", Read},
	{"select abalance from pgbench_accounts where aid = 1 limit 1", Read},
	{"select c.relname from pg_catalog.pg_class c where pg_catalog.pg_table_is_visible(c.oid)", Read},
	{"select distinct on (a) a, b from t where a in (1, 2) and exists (select 1) order by a", Read},
	{"select date '2020-01-01', interval '1 day', timestamp(3) '2020-01-01'", Read},
	{"select a from t where b=any($1) limit 10 offset (5)", Read}, {"select first_value(a) over w from t window w as (order by a)", Read},
	{"select 1 /* for update */", Read}, {"select U&'d\\0061t'", Read}, {"select 'a'\n'b'", Read},

	{" /*NO LOAD BALANCE*/ select 1", Primary}, {"/* NO LOAD BALANCE */ select 1", Read}, {"select /*NO LOAD BALANCE*/ 1", Read},
	{"select pg_is_in_recovery()", Primary}, {"select inet_server_addr(), inet_server_port()", Primary},
	{"select current_setting('port')", Primary}, {"select current_setting('transaction_read_only')", Primary},
	{"select current_setting($1)", Primary}, {"select version()", Primary}, {"select pg_relation_size('t')", Primary},
	{"", Primary}, {";", Primary}, {"-- nothing", Primary}, {"select 1; select 2", Primary},
	{"select 1 for update", Primary}, {"select 1 for no key update", Primary}, {"select * from t for key share", Primary},
	{"select 1for share", Primary}, {"select 1 into t2", Primary}, {"select pg_backend_pid()", Primary}, {"select nextval('s')", Primary},
	{"with x as (insert into t values (1) returning *) select * from x", Primary},
	{"with x as (delete from t returning 1) select 1", Primary}, {"select txid_current()", Primary},
	{"select * from pg_stat_replication", Primary}, {"select * from \"pg_locks\"", Primary}, {"select * from pg_stat_activity", Primary},
	{"select last_value from s", Primary}, {"select * from U&\"pg!005fstat\" uescape '!'", Primary},
	{"insert into t (a, b) values (1, lower('x')) on conflict (a) do update set b = excluded.b", Primary},
	{"insert into public.t as x (a) select 1", Primary}, {"insert into \"T\" (a) values (default)", Primary},
	{"update t set (a, b) = (1, 2) where c between 1 and (2)", Primary}, {"delete from t", Primary}, {"begin", Primary},
	{"commit", Primary}, {"START TRANSACTION READ ONLY", Primary}, {"create table t (a int, b varchar(3), c mytype(4))", Primary},
	{"create function f() returns int language sql as $$ select 1 $$", Primary}, {"alter table t add check (f(a) > 0)", Primary},
	{"copy t (a, b) from stdin", Primary}, {"explain (analyze, buffers) select 1", Primary}, {"show all", Primary},
	{"set local work_mem = '1MB'", Primary}, {"set transaction read only", Primary}, {"notify x", Primary},
	{"prepare transaction 'x'", Primary}, {"discard plans", Primary}, {"select set_config('a.b', $1, true)", Primary},
	{"declare c cursor for select 1", Primary}, {"vacuum (full) t", Primary}, {"truncate t", Primary},

	{"set application_name = 'x'", Settings}, {"SET SESSION statement_timeout TO 0", Settings}, {"set time zone 'UTC'", Settings},
	{"set search_path = a, b", Settings}, {"set my.thing = 'x'", Settings}, {"reset all", Settings}, {"reset my.thing", Settings},
	{"set names 'utf8'", Settings}, {"set client_encoding to 'UTF-8'", Settings}, {"set \"DateStyle\" = iso", Settings},
	{"select set_config('TimeZone', 'UTC', false)", Settings}, {"select pg_catalog.set_config('search_path', '', false);", Settings},
	{"deallocate all", Forget}, {"deallocate x", Forget}, {"discard all", Discard},
	{"show pool_nodes", PoolNodes}, {"SHOW Pool_Nodes ;", PoolNodes}, {"show pool_nodes x", Primary}, {"show pool_nodes; select 1", Pin},

	{"set local role x", Primary}, {"set local session authorization x", Primary}, {"create table \"pg_temp\".t (i int)", Pin}, {"create table pg_temp_3.t (i int)", Pin},
	{"explain analyze create temp table t as select 1", Pin}, {"import foreign schema a from server b into pg_temp", Pin}, {"select 1 into u&\"pg\\005ftemp\".t", Pin},
	{"set role x", Pin}, {"set role = x", Pin}, {"set session authorization x", Pin}, {"set client_encoding = sjis", Pin},
	{"set standard_conforming_strings = off", Pin}, {"set local standard_conforming_strings = off", Pin}, {"reset standard_conforming_strings", Pin},
	{"set standard_conforming_strings = on", Primary}, {"SET standard_conforming_strings TO 'ON'", Primary}, {"set standard_conforming_strings = 1", Primary},
	{"set default_transaction_isolation = serializable", Settings}, {"reset default_transaction_read_only", Settings},
	{"set session characteristics as transaction read only", Settings}, {"set session characteristics as transaction isolation level repeatable read", Settings},
	{"set session characteristics as transaction read only, not deferrable", Pin}, {"set session characteristics as transaction read only deferrable", Pin},
	{"set a = 1; select 1", Primary}, {"set a = 1; reset b; set time zone 'UTC'", Primary}, {"set a = 1; set role x", Pin},
	{"begin; set a = 1", Pin}, {"set a = 1; commit", Pin}, {"set a = 1; deallocate all", Pin}, {"set client_min_messages = error; set local client_min_messages = notice", Pin},
	{"set a = 1; select f()", Pin}, {"set names sjis", Pin}, {"set transaction_read_only = on", Pin},
	{"prepare p as select 1", Pin}, {"execute p", Pin}, {"listen x", Pin}, {"load 'x'", Pin}, {"do $$ begin end $$", Pin},
	{"call p()", Pin}, {"declare c cursor with hold for select 1", Pin}, {"create temp table t (i int)", Pin},
	{"create local temporary view v as select 1", Pin}, {"create table pg_temp.t (i int)", Pin}, {"select 1 into temp t", Pin},
	{"create table t as select f()", Pin}, {"select f()", Pin}, {"select s.lower('x')", Pin}, {"select pg_catalog.x.lower(1)", Pin},
	{"select \"lower\"('x')", Pin}, {"select pg_advisory_lock(1)", Pin}, {"select set_config('a.b', $1, false)", Pin},
	{"select setseed(1)", Pin}, {"insert into t values (f(1))", Pin}, {"select lower /* x */ (1), over(2)", Pin},
	{"select 'unfinished", Pin}, {"select /* unfinished", Pin}, {"select $x$ unfinished $y$", Pin}, {"select E'a\\'", Pin},
	{"select e'a'\n'b\\'", Pin}, {"select \"a", Pin}, {"whatever", Pin}, {"select $abc", Pin}, {"select all f(1)", Pin},
	{"select 1 operator(pg_catalog.+) f(2)", Pin}, {"explain analyze select f()", Pin}, {"copy (select f()) to stdout", Pin},
	{"select lo_create(0)", Pin}, {"select 'a\x00b'", Pin}, {"select filter(1)", Pin}, {"select conflict(1)", Pin},
}

func TestText(t *testing.T) {
	for _, c := range cases {
		if got := kindOf(c.sql); got != c.want {
			t.Errorf("%q: kind %d, want %d", c.sql, got, c.want)
		}
	}
}

func TestQueries(t *testing.T) {
	for sql, want := range map[string]int{"select 1": 1, "select 1; insert into t values (1); table t": 2, "select f()": 1, "begin": 0} {
		if got := Text([]byte(sql)).Queries; got != want {
			t.Errorf("%q: %d queries, want %d", sql, got, want)
		}
	}
}

func TestSetting(t *testing.T) {
	for sql, want := range map[string]string{"set TimeZone to 1": "timezone", "set time zone 1": "timezone", `set "My".x = 1`: "my.x",
		"select set_config('TimeZone', 'UTC', false)": "timezone", "reset all": "", "reset work_mem": "work_mem", "set names utf8": "client_encoding",
		"set session characteristics as transaction not deferrable": "default_transaction_deferrable", "set session characteristics as transaction isolation level read committed": "default_transaction_isolation"} {
		if got := Text([]byte(sql)).Setting; got != want {
			t.Errorf("%q: sets %q, want %q", sql, got, want)
		}
	}
}

// Every way to hide warnings is found, in the middle of others too.
func TestMute(t *testing.T) {
	for sql, want := range map[string]string{
		"set client_min_messages = error":                                  "error",
		"SET SESSION Client_Min_Messages TO 'Fatal'":                       "'Fatal'",
		"begin; set local client_min_messages = panic; commit":             "panic",
		"set /* x */ client_min_messages=E'error';":                        "E'error'",
		`set "client_min_messages" = "error"`:                              `"error"`,
		"select set_config('client_min_messages', 'error', false)":         "'error'",
		"select pg_catalog.set_config('client_min_messages','ERROR',true)": "'ERROR'",
		"set client_min_messages = warning":                                "",
		"select 'set client_min_messages = error'":                         "",
		"set client_min_messages = default":                                "",
	} {
		var got []string
		for _, m := range Text([]byte(sql)).Mute {
			got = append(got, sql[m.From:m.To])
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: mutes %q, want %q", sql, got, want)
		}
	}
}

func BenchmarkText(b *testing.B) {
	sql := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 12345;")
	b.ReportAllocs()
	for b.Loop() {
		Text(sql)
	}
}

// Whatever the text: no panic; what is a read stays one behind a comment, is
// none together with another statement, and holds no word that writes.
func FuzzText(f *testing.F) {
	for _, c := range cases {
		f.Add(c.sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		s := Text([]byte(sql))
		for _, m := range s.Mute {
			if m.From < 0 || m.To > len(sql) || m.From >= m.To {
				t.Fatalf("span %v", m)
			}
		}
		if s.Kind != Read {
			return
		}
		if k := kindOf("/* /* */ */ -- x\n" + sql); k != Read {
			t.Errorf("%q: kind %d behind a comment", sql, k)
		}
		for _, more := range []string{"\n; delete from t", "\n;select 1"} {
			if k := kindOf(sql + more); k == Read {
				t.Errorf("%q: still a read with %q", sql, more)
			}
		}
		l := lexer{src: []byte(sql)}
		for tok := l.next(); tok.kind != end; tok = l.next() {
			if w := strings.ToLower(sql[tok.at:tok.to]); tok.kind == word && (w == "insert" || w == "update" || w == "delete" || w == "into") {
				t.Errorf("%q is a read with %s", sql, w)
			}
		}
	})
}

// What pins a session is named, and what is behind a name that is said to be dangerous.
func TestWhy(t *testing.T) {
	for sql, want := range map[string]string{
		"create temp table t (a int)":                      "temporary objects",
		"create table pg_temp.t (a int)":                   "temporary objects",
		"select 1 into temporary t":                        "temporary objects",
		"set search_path = pg_temp, public":                "temporary objects",
		"set search_path to 'pg_temp'":                     "temporary objects",
		"set local search_path to \"pg_temp\"":             "temporary objects",
		"select set_config('search_path','pg_temp',false)": "a call of set_config",
		"declare c cursor with hold for select 1":          "a cursor WITH HOLD",
		"select pg_advisory_lock(1)":                       "a session's advisory lock",
		"select pg_try_advisory_lock_shared(1)":            "a session's advisory lock",
		"listen x":                                         "LISTEN",
		"load 'x'":                                         "LOAD",
		"do $$ begin end $$":                               "DO",
		"call f()":                                         "CALL",
		"prepare p as select 1":                            "PREPARE",
		"execute p":                                        "EXECUTE",
		"set role x":                                       "SET ROLE",
		"reset role":                                       "SET ROLE",
		"set session authorization x":                      "SET SESSION AUTHORIZATION",
		"reset session authorization":                      "SET SESSION AUTHORIZATION",
		"set transaction_read_only = on":                   "a setting that is not carried",
		"set standard_conforming_strings to 'off'":         "a setting that is not carried",
		"select f()":                                       "a call of f",
		"insert into t values (f(1))":                      "a call of f",
		"select 'x":                                        "a text that is not understood",
		"whatever":                                         "a statement that is not known",
		"set a = 1; commit":                                "a statement that is not known",
		"set a = 1; select * from bad":                     "what is behind bad",
		"select * from \"Bad\"":                            `what is behind "Bad"`,
		"select 1 <!> 2":                                   "what is behind <!>",
		"select good(1), s.good(), \"good\"()":             "",
		"select * from (values (1)) v(x), unnest(array[1]) with ordinality, generate_series(1, 2) g(i)": "",
		"create table t (a timestamp(2) with time zone, exclude using gist (a with &&))":                "",
		"create table t partition of u for values in (1)":                                               "",
		"create table t (a) as select f(1)":                                                             "a call of f",
		"create materialized view v as select f(1)":                                                     "a call of f",
		"copy (select 1) to stdout":                                                                     "",
		"copy (select f(1)) to stdout":                                                                  "a call of f",
		"select operator(1)":                                                                            "a call of operator",
		"select a operator(s.*) 1":                                                                      "",
		"select distinct on (a) f(a) from t":                                                            "a call of f",
		"select a operator(pg_catalog.+) f(a) from t":                                                   "a call of f",
		"select good(1), better()":                                                                      "a call of better",
		"create view v as select 1; select * from v":                                                    "",
		"create view v as leaves; select * from v":                                                      "what the text itself makes",
		"begin; create or replace function f() returns int language sql as 'select 1'; create trigger g before insert on t execute function f(); commit": "",
		"insert into bad values (1)":          "what is behind bad",
		"select 'bad'":                        "",
		"insert into t values (nextval('s'))": "",
		"select pg_advisory_xact_lock(1)":     "",
		"notify x":                            "",
		"unlisten *":                          "",
		"prepare transaction 'x'":             "",
		"declare c cursor for select 1":       "",
	} {
		s := Known([]byte(sql), badNames{})
		if s.Why != want || (s.Kind == Pin) != (want != "") {
			t.Errorf("%q: %q, kind %d, want %q", sql, s.Why, s.Kind, want)
		}
	}
}

// What a rollback takes back, and what it does not.
func TestTransactional(t *testing.T) {
	for sql, want := range map[string]bool{
		"create temp table t (i int)": true, "create temp table t as select 1": true, "create temp view v as select f()": true, "select 1 into temp t": true,
		"listen x": true, "declare c cursor with hold for select 1": true, "set role x": true, "reset role": true, "reset session authorization": true,
		"set search_path = pg_temp": true, "create temp table t (i int); select 1/0": true, "listen x; create temp table t (i int)": true, "set a = 1; listen x": true,

		"select pg_advisory_lock(1)": false, "prepare p as select 1": false, "load 'x'": false, "do $$ begin end $$": false, "call p()": false, "execute p": false,
		"create temp table t as select f()": false, "select f() into temp t": false, "declare c cursor with hold for select f()": false, "listen x; select f()": false,
		"create temp table t as select * from bad": false, "create temp table t (i bad)": false, "declare c cursor with hold for table bad": false, "explain analyze create temp table t as select bad": false,
		"begin; create temp table t (i int)": false, "create temp table t (i int); commit": false, "listen x; deallocate all": false, "deallocate all; listen x": false,
		"set standard_conforming_strings = off": false, "set names sjis": false, "whatever": false, "listen x; whatever": false, "select 1": false,
	} {
		if s := Known([]byte(sql), badNames{}); s.Transactional != want {
			t.Errorf("%q: %v, kind %d, %s", sql, s.Transactional, s.Kind, s.Why)
		}
	}
}

// What commits what its batch has done before.
func TestCommits(t *testing.T) {
	for sql, want := range map[string]bool{
		"vacuum t": true, "analyze": true, "create database d": true, "drop index concurrently i": true, "alter table t detach partition p concurrently": true, "commit prepared 'x'": true,
		"commit": false, "create table t (i int)": false, "alter table t add i int": false, "rollback": false, "select 1": false,
	} {
		if s := Text([]byte(sql)); s.Commits != want {
			t.Errorf("%q: %v", sql, s.Commits)
		}
	}
}

type badNames struct{}

func (badNames) Dangerous(token []byte) bool {
	return strings.EqualFold(strings.Trim(string(token), `"`), "bad") || string(token) == "<!>"
}
func (badNames) Leaves(text []byte) bool    { return strings.Contains(string(text), "leaves") }
func (badNames) Harmless(token []byte) bool { return strings.Trim(string(token), `"`) == "good" }

// What is made may leave something behind.
func TestSuspect(t *testing.T) {
	for _, sql := range []string{"create function f() language sql as 'leaves'", "create table t (a int default bad())", "alter table t inherit bad", "begin; create view v as select leaves; commit", "create view v as table leaves"} {
		if s := Known([]byte(sql), badNames{}); !s.Suspect {
			t.Errorf("%q is not suspected", sql)
		}
	}
}

// What makes functions, or what calls them unseen, and what only ends transactions.
func TestDefines(t *testing.T) {
	for sql, want := range map[string]string{
		"create function f() returns int language sql as 'select 1'": "defines",
		"CREATE OR REPLACE PROCEDURE p() language sql as ''":         "defines",
		"create constraint trigger g after insert on t":              "defines",
		"create recursive view v (a) as select 1":                    "defines",
		"alter function f() rename to g":                             "defines",
		"begin; create view v as select 1; end":                      "defines",
		"create table t (function int)":                              "",
		"create index on t (a)":                                      "",
		"create temp table t (a int)":                                "",
		"drop function f()":                                          "",
		"create materialized view v as select 1":                     "",
		"commit":                                                     "ends", "end work": "ends", "abort": "ends", "begin": "ends", "rollback": "ends", "savepoint a": "ends", "release a": "ends", "begin; commit": "ends",
		"commit; select 1": "", "select 1; commit": "",
	} {
		s := Known([]byte(sql), badNames{})
		if s.Suspect {
			t.Errorf("%q is suspected", sql)
		}
		if s.Defines != (want == "defines") || s.Ends != (want == "ends") {
			t.Errorf("%q: defines %v, ends %v, want %q", sql, s.Defines, s.Ends, want)
		}
	}
}

// What a pooled session has to follow: defaults, savepoints, sequences, anything set.
func TestFollowed(t *testing.T) {
	for sql, want := range map[string]Statement{
		"reset all":                        {Default: true, Sets: true},
		"reset a.b":                        {Default: true, Sets: true, Setting: "a.b"},
		"set a to default":                 {Default: true, Sets: true, Setting: "a"},
		"set a = 'default'":                {Sets: true, Setting: "a"},
		"set time zone local":              {Default: true, Sets: true, Setting: "timezone"},
		"set time zone 'UTC'":              {Sets: true, Setting: "timezone"},
		"set names default":                {Default: true, Sets: true, Setting: "client_encoding"},
		"set local a = 1":                  {Sets: true},
		"select set_config('a','b',true)":  {Sets: true},
		"select set_config('a','b',false)": {Sets: true, Setting: "a"},
		"discard all":                      {Sets: true},
		"select currval('s')":              {Numbers: true},
		"select lastval()":                 {Numbers: true},
		"select nextval('s')":              {Inserts: true},
		"insert into t values (1)":         {Inserts: true},
		"with x as (insert into t values (1) returning a) select a from x": {Inserts: true},
		"copy t from stdin":                 {Inserts: true},
		"begin":                             {Begins: true},
		"start transaction read only":       {Begins: true},
		"begin; select 1":                   {},
		"select 1":                          {},
		"savepoint A":                       {Mark: MarkSet, MarkName: "a"},
		"savepoint \"A b\"":                 {Mark: MarkSet, MarkName: "a b"},
		"release a":                         {Mark: MarkGone, MarkName: "a"},
		"release savepoint a":               {Mark: MarkGone, MarkName: "a"},
		"rollback to a;":                    {Mark: MarkBack, MarkName: "a"},
		"rollback work to savepoint a":      {Mark: MarkBack, MarkName: "a"},
		"rollback":                          {},
		"rollback and chain":                {},
		"savepoint a; insert into t select": {Mark: MarkSome, Inserts: true},
	} {
		s := Text([]byte(sql))
		got := Statement{Default: s.Default, Sets: s.Sets, Numbers: s.Numbers, Begins: s.Begins, Inserts: s.Inserts, Setting: s.Setting, Mark: s.Mark, MarkName: s.MarkName}
		if got.Mute = nil; !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", sql, got, want)
		}
	}
}

// Every word of the lists is found, in any case, and no other.
func TestWordsAreFound(t *testing.T) {
	for i, w := range words {
		if i == 0 {
			continue
		}
		if got := listed([]byte(w)); got != i {
			t.Errorf("%q is taken for %q", w, words[got])
		}
		if got := listed([]byte(strings.ToUpper(w))); got != i {
			t.Errorf("%q in upper case is taken for %q", w, words[got])
		}
		for _, other := range []string{w + "x", w[1:], w[:len(w)-1] + "\x80", w + "$"} {
			if got := listed([]byte(other + "_")); got != 0 {
				t.Errorf("%q is taken for %q", other, words[got])
			}
		}
	}
	for _, other := range []string{"s\xc5\xbfelect", "\x13elect", "select\x00", "SELECTS", "*", strings.Repeat("select", 100)} {
		if got := listed([]byte(other)); got != 0 {
			t.Errorf("%q is taken for %q", other, words[got])
		}
	}
}
