package e2e

import (
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
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
		// The herd puts each thing back three times a minute and then asks who it
		// is; two of these hands may change the same thing.
		next := time.NewTimer(time.Minute)
		for n, v := range vandals {
			// Killed at once, or after it was put back.
			e.vandalized(v.name, v.sql, (run+n)%2 == 1)
		}
		if run < runs-1 {
			<-next.C
		}
	}
	// Under strict the repair may not wait for the standby that needs it.
	restore := e.configure("durability: strict\n")
	e.await("strict durability", func(s cluster.Status) bool { return s.Durability == cluster.Strict && s.K == 1 })
	for run := range runs {
		if run > 0 {
			time.Sleep(20 * time.Second) // three a minute
		}
		e.vandalized("connect revoked, strict", vandals[len(vandals)-1].sql, false)
	}
	restore()
	e.await("quorum again", func(s cluster.Status) bool { return s.Durability == cluster.Quorum })
	// The herd puts back what it needs itself, and no more.
	e.value(e.DSN(), "grant connect on database postgres to public")
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
	// Whoever it is: a primary whose standby had to log in anew leads on itself.
	e.await("a primary of a newer epoch", func(s cluster.Status) bool { return s.Primary != "" && s.Epoch > old.Epoch })
	if took := time.Since(began); took > bound {
		e.Errorf("%s: a primary after %s, more than %s", name, took, bound)
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
	// Under strict it waits for the old primary to be rewound, and a busy machine has
	// more than one herd.
	if open > bound && (s.Durability != cluster.Strict || trust.All()) {
		e.Errorf("%s: open again after %s, more than %s", name, open, bound)
	}
	if s.Primary == "" || s.Epoch <= old.Epoch {
		e.Errorf("%s: %+v", name, s)
	}
	if out := e.manada("status").out; !strings.Contains(out, "put back") {
		e.Errorf("%s: status does not tell that something was put back:\n%s", name, out)
	}
}
