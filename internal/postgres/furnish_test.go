package postgres

import (
	"os"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
	"manada/internal/pgconnect"
)

// TestFurnishPutsBack: what the herd leans on inside the database is put back,
// and what somebody else has put in its place is neither called nor read.
func TestFurnishPutsBack(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 2*time.Minute)
	if f, err := a.Furnish(ctx, false); err != nil || len(f.PutBack) > 0 || f.Failed != "" {
		t.Fatalf("a database that was just founded: %+v, %v", f, err)
	}
	a.sql("create role app login password 'app'")
	for _, c := range []struct {
		name string
		sql  []string
		want string // named among what was put back
	}{
		{"schema dropped", []string{"drop schema manada cascade"}, "schema manada"},
		{"table dropped", []string{"drop table manada.control"}, "table manada.control"},
		{"function dropped", []string{"drop function manada.user_lookup"}, "function manada.user_lookup"},
		{"role dropped", []string{"drop owned by manada_rewind", "drop role manada_rewind"}, "role manada_rewind"},
		{"the proxy's role dropped", []string{"drop owned by manada_proxy", "drop role manada_proxy"}, "function manada.user_lookup"},
		{"backup's role dropped", []string{"drop owned by manada_backup", "drop role manada_backup"}, "what manada_backup may do"},
		{"nologin", []string{"alter role manada_replication nologin"}, "role manada_replication"},
		{"no replication", []string{"alter role manada_replication noreplication"}, "role manada_replication"},
		{"more than it needs", []string{"alter role manada_proxy superuser"}, "role manada_proxy"},
		{"expired", []string{"alter role manada_rewind valid until '2020-01-01'"}, "role manada_rewind"},
		{"limited", []string{"alter role manada_monitor connection limit 0"}, "role manada_monitor"},
		{"somebody may act as it", []string{"grant manada_proxy to app with admin option"}, "role manada_proxy"},
		{"settings of a role", []string{"alter role manada_rewind set statement_timeout = 1", "alter role manada_rewind in database postgres set work_mem = '64kB'"}, "role manada_rewind"},
		{"password", []string{"alter role manada_replication password 'x'"}, "password of manada_replication"},
		{"no password", []string{"alter role manada_rewind password null"}, "password of manada_rewind"},
		{"a password for the socket's role", []string{"alter role manada_backup password 'x'"}, "password of manada_backup"},
		{"connect", []string{"revoke connect on database postgres from public, manada_rewind, manada_proxy, manada_monitor, manada_replication, manada_backup"}, "what manada_rewind may do"},
		{"database closed", []string{"alter database postgres connection limit 0"}, "database postgres"},
		{"membership", []string{"revoke pg_checkpoint from manada_rewind"}, "what manada_rewind may do"},
		{"right to execute", []string{"revoke execute on function pg_read_binary_file(text) from manada_rewind"}, "what manada_rewind may do"},
		{"backup's right", []string{"revoke execute on function pg_switch_wal() from manada_backup"}, "what manada_backup may do"},
		{"cancel for everybody", []string{"grant execute on function pg_cancel_backend(int) to public"}, "pg_cancel_backend"},
		{"usage of the schema", []string{"revoke usage on schema manada from manada_proxy"}, "access to schema manada"},
		{"reading the control table", []string{"revoke select on manada.control from manada_monitor"}, "access to schema manada"},
		{"others may create", []string{"grant create on schema manada to app"}, "schema manada"},
		{"others may write", []string{"grant trigger, insert on manada.control to app"}, "table manada.control"},
		{"other columns", []string{"alter table manada.control alter nonce drop not null"}, "table manada.control"},
		{"another default", []string{"alter table manada.control alter at set default 'epoch'"}, "table manada.control"},
		{"no key", []string{"do $$ begin execute 'alter table manada.control drop constraint ' || (select conname from pg_constraint where conrelid = 'manada.control'::regclass and contype = 'p'); end $$"}, "table manada.control"},
		{"unlogged", []string{"alter table manada.control set unlogged"}, "table manada.control"},
		{"everybody may look up", []string{"grant execute on function manada.user_lookup(text) to public"}, "function manada.user_lookup"},
		{"another owner", []string{"alter function manada.user_lookup(text) owner to app"}, "function manada.user_lookup"},
		{"an overload", []string{"create function manada.user_lookup(name) returns text language sql as 'select $1::text'"}, "function manada.user_lookup"},
		{"the table is somebody's", []string{"alter table manada.control owner to app"}, "table manada.control"},
		{"a trigger", []string{"create function public.gotcha() returns trigger language plpgsql as 'begin alter role app superuser; return new; end'",
			"create trigger g before insert or update on manada.control for each row execute function public.gotcha()"}, "table manada.control"},
		{"a view of that name", []string{"drop table manada.control",
			"create function public.fall() returns bigint language plpgsql as 'begin alter role app superuser; return 9; end'",
			"create view manada.control as select public.fall() as epoch, 'x'::text as node, 'y'::text as nonce"}, "table manada.control"},
		{"a schema of somebody else", []string{"drop schema manada cascade", "create schema manada authorization app",
			"create view manada.control as select public.fall() as epoch, 'x'::text as node, 'y'::text as nonce",
			"create function manada.user_lookup(text) returns text language plpgsql as 'begin alter role app superuser; return 9; end'"}, "schema manada"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clear(a.furnisher.times)
			for _, s := range c.sql {
				a.sql(s)
			}
			a.observe() // meanwhile
			f, err := a.Furnish(ctx, false)
			if err != nil || f.Failed != "" || !strings.Contains(strings.Join(f.PutBack, "; "), c.want) {
				t.Fatalf("%+v, %v", f, err)
			}
			if f, err = a.Furnish(ctx, false); err != nil || len(f.PutBack) > 0 || f.Failed != "" {
				t.Fatalf("once more: %+v, %v", f, err)
			}
			must(t, a.WriteControl(ctx, 1, "a", "nonce"))
			if o := a.observe(); o.ControlRow == nil || o.ControlRow.Nonce != "nonce" {
				t.Errorf("control row %+v", o.ControlRow)
			}
			if v := a.sql("select rolsuper from pg_roles where rolname = 'app'"); v != "f" {
				t.Fatal("somebody else's code ran as superuser")
			}
		})
	}
	for role, pw := range map[string]string{cluster.RoleRewind: "rewind", cluster.RoleProxy: "proxy", cluster.RoleMonitor: "monitor"} {
		c, err := pgconnect.Open(ctx, pgconnect.Session{Conninfo: "host=127.0.0.1 dbname=postgres sslmode=disable port=" + a.sql("show port") + " user=" + role, Password: pw, Name: "x"})
		if err != nil {
			t.Errorf("log in as %s: %v", role, err)
			continue
		}
		_ = c.Close(ctx)
	}
	begun := time.Now()
	for range 20 {
		if _, err := a.Furnish(ctx, false); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("one comparison takes", time.Since(begun)/20)
}

// TestFurnishWaitsForNobody: the repair is not held up by commits that wait for
// a standby which needs it, nor by who holds a lock on what is to be replaced;
// and it is not made for ever.
func TestFurnishWaitsForNobody(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 30*time.Second)
	_, err := a.SetSync(ctx, cluster.HoldCommits())
	must(t, err)
	a.sql("alter role manada_replication nologin")
	if f, err := a.Furnish(ctx, false); err != nil || len(f.PutBack) != 1 {
		t.Fatalf("while commits wait: %+v, %v", f, err)
	}
	a.sql("create role app login; grant usage on schema manada to app; grant select, trigger on manada.control to app")
	c, err := a.connect(ctx, "hog", "local")
	must(t, err)
	_, err = run(ctx, c, "set role app; begin; lock table manada.control in access share mode")
	must(t, err)
	until(t, "the lock's holder is ended and the table put back", func() bool {
		f, err := a.Furnish(ctx, false)
		must(t, err)
		return len(f.PutBack) > 0
	})
	for range putBackMost {
		a.sql("alter role manada_monitor nologin")
		if f, err := a.Furnish(ctx, false); err != nil || len(f.PutBack) != 1 {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	vandal, err := pgconnect.Open(ctx, pgconnect.Session{Conninfo: pgconnect.Local(a.socketDir, a.cfg.Port, cluster.RoleSuperuser), Name: "ansible",
		More: map[string]string{"synchronous_commit": "local"}})
	must(t, err)
	defer vandal.Close(ctx)
	_, err = run(ctx, vandal, "alter role manada_monitor nologin")
	must(t, err)
	f, err := a.Furnish(ctx, false)
	if err != nil || len(f.PutBack) > 0 || len(f.Contested) != 1 || f.Contested[0] != "role manada_monitor" || !strings.Contains(strings.Join(f.By, " "), "postgres (ansible, this host)") {
		t.Fatalf("a fourth time in a minute: %+v, %v", f, err)
	}
	if f, err = a.Furnish(ctx, true); err != nil || len(f.PutBack) != 1 {
		t.Fatalf("when an epoch opens: %+v, %v", f, err)
	}
	if f, err = a.Furnish(ctx, false); err != nil || len(f.PutBack) != 1 {
		t.Fatalf("what was put back then is told later: %+v, %v", f, err)
	}
	a.furnisher.times["role manada_monitor"] = []time.Time{time.Now().Add(-putBackEvery - time.Second)}
	if a.furnisher.often("role manada_monitor", time.Now()) {
		t.Error("a minute later it is still not put back")
	}
}

// A session of the postmaster before is not asked: what is prepared on it is not
// there, and PostgreSQL's log would tell of an error at every start.
func TestFurnishAfterAStart(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 30*time.Second)
	must(t, a.WarmFurnisher(ctx))
	must(t, a.Stop(ctx, guardian.Fast, 10*time.Second))
	must(t, a.StartStandby(ctx))
	until(t, "it answers", func() bool { return a.WarmFurnisher(ctx) == nil })
	b, err := os.ReadFile(a.cfg.LogFile)
	must(t, err)
	if strings.Contains(string(b), "manada_compare") {
		t.Errorf("log:\n%s", b)
	}
}
