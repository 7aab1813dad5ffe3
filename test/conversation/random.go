package conversation

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// Random makes a conversation from r: batches of whatever a client may send, in
// any order. A batch ends with an empty query, which PostgreSQL answers whatever
// came before it, and that is waited for.
func Random(name string, r *rand.Rand) *Conversation {
	return RandomOf(name, r, func(string) bool { return true })
}

// RandomOf is Random, of statements that may be said.
func RandomOf(name string, r *rand.Rand, may func(sql string) bool) *Conversation {
	g := &generator{r: r, may: may}
	g.probe()
	for range 2 + r.IntN(5) {
		if r.IntN(3) == 0 {
			g.simple()
		} else {
			g.batch()
		}
		g.end()
	}
	g.say("Q rollback")
	g.probe()
	return &Conversation{Name: name, File: "random", Params: map[string]string{}, Steps: g.steps}
}

// end closes a batch and waits for all that is owed for it.
func (g *generator) end() {
	g.say("Q ; -- that was all")
	g.steps = append(g.steps, Step{Kind: Wait, Text: "I", N: 1}, Step{Kind: Wait, Text: "Z", N: 1})
}

// probe asks for what another client of the same server may have left there. That a
// setting with a dot was ever set there PostgreSQL does not forget: it is empty then
// instead of NULL, and nobody is asked for the difference.
func (g *generator) probe() {
	g.say("Q select coalesce(current_setting('app.tenant', true), ''), coalesce(current_setting('app.hidden', true), ''), coalesce(current_setting('app.called', true), ''), coalesce(current_setting('app.fired', true), '')",
		"Q show work_mem; show datestyle; show timezone; show application_name; show search_path; show default_transaction_read_only; show client_min_messages",
		"Q select to_regclass('pg_temp.tt0'), to_regclass('pg_temp.tt1'), to_regclass('pg_temp.hidden'), current_user = session_user",
		"Q select * from pg_listening_channels() order by 1",
		"Q select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
		"Q select count(*) from pg_cursors where is_holdable")
	g.end()
}

// StaysBehind says whether one of Random's statements leaves something in the session
// that PostgreSQL does not report to its client.
func StaysBehind(sql string) bool { return staysBehind.MatchString(sql) }

var staysBehind = regexp.MustCompile(`^(set (app|work_mem|session|default_|search_path)|select set_config\(.*false\)|prepare |create temp|select 1 as a into temp|` +
	`declare .* with hold|listen|select (sets|temps|locks|l from)|call |insert into w |do .* perform|.*(nextval|currval|lastval))`)

type generator struct {
	r     *rand.Rand
	may   func(sql string) bool
	steps []Step
	drew  bool // nextval may have been called
}

func (g *generator) say(lines ...string) {
	for _, l := range lines {
		g.drew = g.drew || strings.Contains(l, "nextval")
		g.steps = append(g.steps, Step{Kind: Message, Text: l})
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// sql is one statement that gives the same answer whenever it is played.
func (g *generator) sql() string {
	for {
		if sql := g.one(); g.may(sql) {
			return sql
		}
	}
}

func (g *generator) one() string {
	n := 1 + g.r.IntN(6)
	return pick(g.r,
		fmt.Sprintf("select %d", n), "select i, s from t order by i", fmt.Sprintf("select g from generate_series(1, %d) g", n*7),
		fmt.Sprintf("select 10 / (%d - g) from generate_series(1, 5) g", n), fmt.Sprintf("insert into u values (%d, 'x')", n),
		fmt.Sprintf("insert into t values (%d, 'y')", n+3), fmt.Sprintf("update t set s = s || 'z' where i = %d returning s", n),
		fmt.Sprintf("delete from u where i = %d", n), "select count(*), sum(i) from u", fmt.Sprintf("set application_name = 'n%d'", n),
		fmt.Sprintf("set datestyle to %s", pick(g.r, "dmy", "mdy", "iso", "german", "sql, ymd")), "select '01/02/2003'::date",
		fmt.Sprintf("set work_mem = '%dMB'", n), "show work_mem", "reset work_mem", "show application_name", "reset all", "discard all",
		fmt.Sprintf("set local work_mem = '1%dMB'", n), fmt.Sprintf("set app.tenant = '%d'", n), "select coalesce(current_setting('app.tenant', true), '')",
		fmt.Sprintf("select set_config('app.tenant', 'c%d', %s)", n, pick(g.r, "true", "false")),
		"begin", "begin", "commit", "commit", "rollback", "savepoint a", "rollback to a", "release a", "begin read only",
		fmt.Sprintf("prepare q%d as select %d as q", n%3, n), fmt.Sprintf("execute q%d", n%3), "deallocate all", fmt.Sprintf("deallocate s%d", n%3),
		fmt.Sprintf("create temp table tt%d(i int)", n%2), fmt.Sprintf("insert into tt%d values (%d)", n%2, n), fmt.Sprintf("select * from tt%d", n%2),
		fmt.Sprintf("declare k%d cursor%s for select i from t order by i", n%2, pick(g.r, "", " with hold")), fmt.Sprintf("fetch %d from k%d", n, n%2),
		fmt.Sprintf("close k%d", n%2), "close all", "do $$ begin raise notice 'said'; end $$", "selec", "select nothing from nowhere",
		fmt.Sprintf("alter table t add column c%d int", n%2), fmt.Sprintf("alter table t drop column if exists c%d", n%2), "select * from t where i < 3",
		"listen $schema_ch", "notify $schema_ch, 'own'", "unlisten *", "select pg_try_advisory_xact_lock(hashtext('$schema'))",
		"copy t to stdout", "values (1), (2)", "set session characteristics as transaction read only", "set default_transaction_read_only = off",
		"select nextval('n')", g.last(), g.last(), fmt.Sprintf("select sets('h%d')", n), "select temps()", "select locks()", "select l from lv",
		fmt.Sprintf("call works('c%d')", n), fmt.Sprintf("insert into w values (%d)", n), "select pg_advisory_unlock_all()", "discard temp", "discard sequences", "discard plans",
		fmt.Sprintf("do $$ begin perform set_config('app.hidden', 'd%d', false); end $$", n), "reset app.hidden", fmt.Sprintf("set search_path = %s", pick(g.r, "pg_temp, $schema", "$schema, pg_catalog")),
		"reset search_path", "insert into hidden values (1)", "select count(*) from hidden", "set role none", "select 1 as a into temp tt0",
		"vacuum u", "set time zone 'Asia/Tokyo'", "select '2024-01-01 12:00Z'::timestamptz", "truncate u", "select null, '', repeat('w', 3000)")
}

// last asks for the last value of a sequence. That of another transaction a client has
// only on a server of its own: it is asked for behind nextval, or where there is none.
func (g *generator) last() string {
	ask := pick(g.r, "currval('n')", "lastval()")
	if g.drew {
		return "select nextval('n'), " + ask
	}
	return "select " + ask
}

// copyIn is the rest of a COPY FROM STDIN: what PostgreSQL ignores where the
// statement failed or was skipped.
func (g *generator) copyIn() {
	if g.r.IntN(3) == 0 {
		g.say(pick(g.r, "H", "S"))
	}
	// Behind data PostgreSQL drops a Sync unless the COPY failed at them, and nobody but
	// it knows whether it did: there they are good, and the end too.
	good := g.r.IntN(4) == 0
	for range g.r.IntN(3) {
		if good {
			g.say(pick(g.r, `d 1\tone\n`, `d 2\ttwo\n3\tthree\n`), pick(g.r, "H", "S"))
			continue
		}
		g.say(pick(g.r, `d 1\tone\n`, `d 2\ttwo\n3\tthree\n`, `d x\tno number\n`, `d 4\tno`))
	}
	if good {
		g.say("c")
		return
	}
	g.say(pick(g.r, "c", "c", "f enough"))
}

func (g *generator) simple() {
	for range 1 + g.r.IntN(3) {
		if g.r.IntN(8) == 0 {
			g.say("Q copy u from stdin")
			g.copyIn()
			continue
		}
		var texts []string
		for range 1 + g.r.IntN(3)*g.r.IntN(2) {
			texts = append(texts, g.sql())
		}
		g.say("Q " + strings.Join(texts, "; "))
	}
}

// batch is a pipeline of the extended protocol, closed by Sync.
func (g *generator) batch() {
	for range 1 + g.r.IntN(6) {
		statement := pick(g.r, "-", "-", "s0", "s1", "s2")
		portal := pick(g.r, "-", "-", "-", "p0", "p1")
		switch g.r.IntN(12) {
		case 0:
			g.say("P - copy u from stdin", "B - -", "E -")
			g.copyIn()
		case 1:
			g.say("P "+statement+"(int4) select $1 + 1", "B "+portal+" "+statement+" "+pick(g.r, "1", "abc", "x:00000005", "NULL"), "E "+portal)
		case 2:
			g.say("D " + pick(g.r, "S "+statement, "P "+portal))
		case 3:
			g.say("C " + pick(g.r, "S "+statement, "P "+portal))
		case 4:
			g.say(pick(g.r, "H", "S", "S"))
		case 5:
			g.say("Q " + g.sql())
			if g.r.IntN(3) == 0 {
				g.say("E ~")
			}
		case 6:
			g.say("F 870 'ABC' > " + pick(g.r, "t", "b"))
		case 7:
			// Nothing may be bound to the unnamed portal: see the word ~. So it is bound anew.
			if portal == "-" {
				g.say("B - " + statement)
			}
			g.say("E "+portal+" "+pick(g.r, "1", "2"), "E "+portal)
		case 8:
			g.say("B "+portal+" "+statement, "E "+portal)
		default:
			g.say("P "+statement+" "+g.sql(), "B "+portal+" "+statement)
			if g.r.IntN(3) == 0 {
				g.say("D P " + portal)
			}
			g.say("E " + portal + pick(g.r, "", "", " 1", " 3"))
		}
	}
	g.say("S")
}
