package e2e

import (
	"strings"
	"testing"
	"time"

	"manada/internal/postgres/pgtest"
	"manada/test/trust"
)

// vandals are what an administrator's hand, or a hardening guide, does to what
// the herd leans on inside the database.
var vandals = []struct {
	name string
	sql  []string
}{
	{"schema dropped", []string{"drop schema manada cascade"}},
	{"roles dropped", []string{"drop owned by manada_proxy, manada_rewind, manada_replication, manada_backup, manada_monitor",
		"drop role manada_proxy, manada_rewind, manada_replication, manada_backup, manada_monitor"}},
	{"nologin", []string{"alter role manada_replication nologin", "alter role manada_proxy nologin", "alter role manada_rewind nologin", "alter role manada_monitor nologin"}},
	{"passwords changed", []string{"alter role manada_replication password 'x'", "alter role manada_proxy password 'x'", "alter role manada_rewind password 'x'"}},
	{"connect revoked", []string{"revoke connect on database postgres from public, manada_proxy, manada_rewind, manada_replication, manada_backup, manada_monitor"}},
}

// TestTrustDatabaseHeals: whatever was done there, the primary dies next, and the
// herd is open again by itself, for new clients too, with its standby back.
func TestTrustDatabaseHeals(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a herd")
	}
	runs := trust.Runs(1, 10)
	e := shared(t, time.Duration(runs)*5*time.Minute)
	e.value(e.DSN(), "create table if not exists e2e_heals (n int)")
	for run := range runs {
		for n, v := range vandals {
			// Killed at once, or after it was put back.
			e.vandalized(v.name, v.sql, (run+n)%2 == 1)
		}
	}
}

func (e *env) vandalized(name string, sql []string, wait bool) {
	e.Helper()
	old := e.healthy()
	dsn := e.NodeDSN(old.Primary)
	e.value(dsn, strings.Join(sql, "; "))
	if wait {
		e.eventually(5*time.Second, name+" put back", func() string {
			return e.value(dsn, `select string_agg(r, ', ') from unnest('{manada_proxy,manada_rewind,manada_replication,manada_backup,manada_monitor}'::text[]) r
 where to_regrole(r) is null or not has_database_privilege(r, 'postgres', 'connect')`)
		})
	}
	began := time.Now()
	if err := e.KillPostmaster(old.Primary); err != nil {
		e.Fatal(err)
	}
	var last error
	e.eventually(30*time.Second, "commit of a new client after: "+name, func() string {
		if _, last = e.Value(e.ctx, e.DSN(), "insert into e2e_heals values (1)"); last != nil {
			return last.Error()
		}
		return ""
	})
	open := time.Since(began)
	s := e.healthy()
	e.Logf("%s, killed %s: a new client committed after %d ms, synchronous again after %d ms", name, map[bool]string{true: "later", false: "at once"}[wait],
		open.Milliseconds(), time.Since(began).Milliseconds())
	if open > bound {
		e.Errorf("%s: open again after %s, more than %s", name, open, bound)
	}
	if s.Primary == "" || s.Epoch <= old.Epoch {
		e.Errorf("%s: %+v", name, s)
	}
	if out := e.manada("status").out; !strings.Contains(out, "put back") {
		e.Errorf("%s: status does not tell that something was put back:\n%s", name, out)
	}
}

// hostileOwner: whoever owns database postgres hijacks none of the herd's
// sessions there: agents, look-ups, positions, backup, archive check, rewind.
func hostileOwner(t *testing.T) {
	e := shared(t, 3*time.Minute)
	old := e.healthy()
	dsn := e.NodeDSN(old.Primary)
	marks := map[string]func() string{}
	for _, n := range []string{"master", "slave"} {
		marks[n] = e.logFrom(n, "postgresql")
	}
	e.value(dsn, strings.Join(pgtest.Hostile, ";\n"))
	t.Cleanup(func() {
		ctx := within(t, 20*time.Second)
		if s, err := e.Status(ctx); err == nil && s.Primary != "" {
			for _, q := range pgtest.Tame {
				_, _ = e.Value(ctx, e.NodeDSN(s.Primary)+" options='-c search_path=pg_catalog -c role=none -c session_authorization=postgres -c default_transaction_read_only=off -c statement_timeout=0'", q)
			}
		}
	})
	app := strings.Replace(e.DSN(), "user=postgres", "user=app", 1)
	app = app[:strings.Index(app, " password=")] + " password=app"
	safe := " options='-c search_path=pg_catalog -c default_transaction_read_only=off -c role=none -c session_authorization=app'"
	e.value(app+safe, "select 1")
	e.ok(e.manada("backup", "--type", "incr"))
	e.ok(e.face("--stanza=herd", "check"))
	if err := e.KillPostmaster(old.Primary); err != nil {
		t.Fatal(err)
	}
	e.takenOver(old)
	e.healthy()
	e.value(app+safe, "select 1")
	for n, log := range marks {
		for _, line := range strings.Split(log(), "\n") {
			if strings.Contains(line, pgtest.Hijacked+" by") && !strings.Contains(line, "app@") {
				t.Errorf("%s: %s", n, line)
			}
		}
	}
	s := e.healthy()
	if v := e.value(e.NodeDSN(s.Primary)+" options='-c search_path=pg_catalog -c role=none -c session_authorization=postgres -c statement_timeout=0'", "select rolsuper from pg_roles where rolname = 'app'"); v != "f" {
		t.Error("app has become a superuser")
	}
}
