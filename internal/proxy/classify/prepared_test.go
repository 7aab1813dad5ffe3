package classify

import (
	"fmt"
	"testing"
)

// Where a text names prepared statements, and where it sets settings back.
func TestPlaces(t *testing.T) {
	for sql, want := range map[string]string{
		"execute q(1)": "uses q",
		`select 1; EXPLAIN (costs off) EXECUTE "Q"`:                             "uses Q of 1",
		"explain analyze verbose execute q":                                     "uses q",
		"create table t as execute q":                                           "uses q",
		"create temp table t(a) as execute Q(1)":                                "uses q",
		"create trigger x before insert on t for each row execute function f()": "",
		"create trigger x before insert on t execute procedure f()":             "",
		"prepare q(int) as select $1":                                           "makes q",
		"prepare transaction 'q'":                                               "",
		"deallocate q; deallocate prepare \"a b\"":                              "drops q, drops a b of 1",
		"deallocate all; deallocate prepare all":                                "drops all, drops all of 1",
		"deallocate prepare":                                                    "drops prepare",
		"select 'execute q', execute from t":                                    "",

		"reset a.B; set local x to default;; set time zone local -- set x = default": "back a.b, back local x of 1, back timezone of 2",
		"reset all": "back", "reset session authorization": "back session_authorization", "set role = default": "back role",
		"set names": "back client_encoding", "set client_encoding to default": "back client_encoding", "set x = 'default'": "",
		"set session authorization default": "back session_authorization", "reset time zone": "back timezone", "set a to b": "",
	} {
		s := Text([]byte(sql))
		got := ""
		say := func(what, name string, nth int) {
			if got != "" {
				got += ", "
			}
			if got += what; name != "" {
				got += " " + name
			}
			if nth > 0 {
				got += fmt.Sprintf(" of %d", nth)
			}
		}
		for _, u := range s.Prepared {
			say([]string{"uses", "makes", "drops", "drops all"}[u.What], u.Name, u.Nth)
		}
		for _, r := range s.Resets {
			what := "back"
			if r.Local {
				what += " local"
			}
			say(what, r.Name, r.Nth)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", sql, got, want)
		}
	}
	s := "select 1; reset  a . b /* x */ ; select 2"
	if r := Text([]byte(s)).Resets; len(r) != 1 || s[:r[0].End] != "select 1; reset  a . b" {
		t.Errorf("%+v", r)
	}
}
