package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"
)

// What a role creates whose own search_path names pg_temp is temporary without a word for
// it: it keeps its connection from the beginning, wherever that path comes from.
func TestOwnPathToTemporaryObjects(t *testing.T) {
	for what, sql := range map[string]string{
		"role": "alter role %[1]s set search_path = pg_temp, public", "database": `alter database %[2]s set search_path = public, "pg_temp"`,
		"both": "alter role %[1]s in database %[2]s set search_path to 'PG_TEMP'", "another": "alter role %[1]s in database template1 set search_path = pg_temp",
	} {
		t.Run(what, func(t *testing.T) {
			f := pooled(t, rules.Auto, 1, nil)
			role, db := f.role(t, "login password 'x'"), f.freshDatabase(t)
			f.admin(t, fmt.Sprintf("grant create on database %s to %s", db, role))
			f.admin(t, fmt.Sprintf(sql, role, db))
			dsn := strings.Replace(f.dsn(session.ReadWrite, role, "x", "sslmode=disable"), "/postgres?", "/"+db+"?", 1)
			a := connect(t, dsn)
			query[int](t, a, "select 1")
			con := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
			kept := ""
			for _, p := range table(t, con, "show pins") {
				kept = p["reason"].(string)
			}
			if want := map[bool]string{true: "", false: "temporary objects"}[what == "another"]; kept != want {
				t.Errorf("it keeps its connection for %q, not %q", kept, want)
			}
			if what == "role" {
				must(t, a, "create table hidden (i int)")
				if got := query[string](t, a, "select relpersistence::text from pg_class where relname = 'hidden'"); got != "t" {
					t.Errorf("what was created is of persistence %s", got)
				}
			}
		})
	}
}
