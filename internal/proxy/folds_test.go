package proxy_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5/pgconn"
)

// preparer is a client with a setting of its own.
type preparer struct{ *pgconn.PgConn }

// prepares connects a client that begins with a setting, or sets it, and prepares a text.
// The answer is PostgreSQL's error where it cannot.
func prepares(t *testing.T, dsn, name, value, sql string, begins bool) (c preparer, answer string) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if begins {
		cfg.RuntimeParams[name] = value
	}
	if c.PgConn, err = pgconn.ConnectConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.WithoutCancel(t.Context())) })
	if !begins {
		if _, err := c.Exec(t.Context(), "set "+setting("", name, value)).ReadAll(); err != nil {
			t.Fatalf("%s = %s: %v", name, value, err)
		}
	}
	if _, err := c.Prepare(t.Context(), "s", sql, nil); err != nil {
		return c, code(err)
	}
	return c, c.executes(t)
}

func (c preparer) executes(t *testing.T) string {
	t.Helper()
	r := c.ExecPrepared(t.Context(), "s", nil, nil, nil).Read()
	if r.Err != nil {
		return code(r.Err)
	}
	return fmt.Sprintf("%s", r.Rows)
}

// Two clients of one connection prepare the same text under different settings, and each
// gets what PostgreSQL itself would answer it, for every setting that there is.
func TestPreparedUnderSettings(t *testing.T) {
	rows := rowsOf(t, "testdata/folds.txt", 6)
	for _, way := range []struct {
		mode   rules.Mode
		begins bool // with the setting
	}{{rules.Auto, false}, {rules.Auto, true}, {rules.Transaction, true}} {
		t.Run(fmt.Sprintf("%s begins %v", way.mode, way.begins), func(t *testing.T) {
			f := pooled(t, way.mode, 1, func(c *proxy.Config) { c.Pool.Default.QueueTimeout = 5 * time.Second })
			role := f.role(t, "login password 'pw'")
			f.folded(t, role)
			direct := strings.Replace(superuser(f.primary.addr()), "postgres:postgres@", role+":pw@", 1)
			pool := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
			console := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
			for _, row := range rows {
				name, values, sql := row[0], row[2:4], row[4]
				if sql == "-" {
					continue
				}
				var want [2]string
				for i, v := range values {
					_, want[i] = prepares(t, direct, name, v, sql, way.begins)
				}
				if want[0] == want[1] {
					t.Errorf("%s: PostgreSQL answers %s under both values: the line proves nothing", name, want[0])
				}
				one, got := prepares(t, pool, name, values[0], sql, way.begins)
				if len(table(t, console, "show pins")) > 0 { // it keeps the connection: nobody else has its statements
					one.Close(t.Context())
					continue
				}
				two, other := prepares(t, pool, name, values[1], sql, way.begins)
				if got != want[0] || other != want[1] {
					t.Errorf("%s: %s and %s, want %s", name, got, other, want)
				}
				if got, other := one.again(t, want[0]), two.again(t, want[1]); got != want[0] || other != want[1] {
					t.Errorf("%s: %s and %s the second time, want %s", name, got, other, want)
				}
			}
		})
	}
}

// again executes what was prepared, if it was.
func (c preparer) again(t *testing.T, before string) string {
	t.Helper()
	if !strings.HasPrefix(before, "[") {
		return before
	}
	return c.executes(t)
}

// folded makes what the texts of testdata/folds.txt name.
func (f *fixture) folded(t *testing.T, role string) {
	t.Helper()
	f.admin(t, `create schema fold_a; create schema fold_b; create table fold_a.who as select 'a' who; create table fold_b.who as select 'b' who;
		create table public.guarded(i int); alter table guarded enable row level security;
		grant usage on schema fold_a, fold_b to public; grant select on fold_a.who, fold_b.who, guarded to public`)
	f.afterwards(t, "drop schema fold_a cascade; drop schema fold_b cascade; drop table public.guarded")
}

// What PostgreSQL reads as a point in time when a text is prepared is of when its client
// prepared it, on a connection where another one did before, too.
func TestPreparedMoments(t *testing.T) {
	f := pooled(t, rules.Auto, 1, func(c *proxy.Config) { c.Pool.Default.QueueTimeout = 5 * time.Second })
	role := f.role(t, "login password 'pw'")
	pool := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
	moment := func() (text string, again func() string) {
		c := connect(t, pool)
		if _, err := c.Prepare(t.Context(), "p", "select 'now'::timestamptz::text"); err != nil {
			t.Fatal(err)
		}
		again = func() (text string) {
			if err := c.QueryRow(t.Context(), "p").Scan(&text); err != nil {
				t.Fatal(err)
			}
			return text
		}
		return again(), again
	}
	one, oneAgain := moment()
	two, _ := moment()
	if one == two {
		t.Errorf("both have %s", one)
	}
	if again := oneAgain(); again != one {
		t.Errorf("the first one has had %s, and has %s now", one, again)
	}
}

// Every setting that somebody can set in a session is in the table, once.
func TestFoldsAreWhole(t *testing.T) {
	f := startHerd(t)
	c := connect(t, superuser(f.primary.addr()))
	all, err := c.Query(t.Context(), "select name from pg_settings where context in ('user', 'superuser') union all values ('role'), ('session_authorization')")
	if err != nil {
		t.Fatal(err)
	}
	rows := rowsOf(t, "testdata/folds.txt", 6)
	used := make([]bool, len(rows))
	for all.Next() {
		var name string
		if err := all.Scan(&name); err != nil {
			t.Fatal(err)
		}
		n := 0
		for i, row := range rows {
			if regexp.MustCompile("^(?:" + row[0] + ")$").MatchString(name) {
				n, used[i] = n+1, true
			}
		}
		if n == 0 {
			t.Errorf("nothing is said of %s", name)
		}
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	for i, row := range rows {
		if !used[i] {
			t.Errorf("there is no setting %s", row[0])
		}
	}
}

// A client whose function has set what nobody saw keeps its connection, and has no
// statement there that another client has prepared before it.
func TestPreparedUnderHiddenSettings(t *testing.T) {
	f := pooled(t, rules.Auto, 1, nil)
	role := f.role(t, "login password 'pw'")
	f.admin(t, "create function public.fold_hides() returns void language plpgsql as $$ begin perform set_config('extra_float_digits', '0', false); end $$")
	f.afterwards(t, "drop function public.fold_hides()")
	const sql = "select (1::float8 / 3)::text"
	pool := f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")
	if _, got := prepares(t, pool, "extra_float_digits", "1", sql, false); got != "[[0.3333333333333333]]" {
		t.Fatal(got)
	}
	c := connect(t, pool).PgConn()
	if _, err := c.Exec(t.Context(), "set extra_float_digits = '1'").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "select fold_hides()").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prepare(t.Context(), "s", sql, nil); err != nil {
		t.Fatal(err)
	}
	if got := (preparer{c}).executes(t); got != "[[0.333333333333333]]" {
		t.Errorf("%s: planned for somebody else", got)
	}
}
