package postgres

import (
	"testing"
	"time"

	"manada/internal/cluster"
)

// Passwords that the herd itself changes are not taken for a change by hand,
// before they are in PostgreSQL, after it, and when the change is taken back;
// others are put back all the time.
func TestRotationIsNoChangeByHand(t *testing.T) {
	a := leader(t, "a")
	next := Passwords{Superuser: "super2", Replication: "repl2", Rewind: "rewind2", Monitor: "monitor2", Proxy: "proxy2"}
	furnish := func(when string) []string {
		t.Helper()
		f, err := a.Furnish(deadline(t, 5*time.Second), false)
		if err != nil || f.Failed != "" || len(f.Contested) > 0 {
			t.Fatalf("%s: %+v, %v", when, f, err)
		}
		return f.PutBack
	}
	quiet := func(when string) {
		t.Helper()
		if back := furnish(when); len(back) > 0 {
			t.Errorf("%s: put back %v", when, back)
		}
	}
	change := func(p Passwords) {
		t.Helper()
		roles := p.byRole()
		delete(roles, cluster.RoleBackup) // has none
		_, err := a.ChangePasswords(deadline(t, 5*time.Second), roles)
		must(t, err)
	}
	quiet("before")
	for _, c := range []struct{ now, others Passwords }{{testPasswords, next}, {next, testPasswords}} {
		must(t, a.SetPasswords(c.now, c.others))
		change(testPasswords)
		quiet("on the way, not changed yet")
		change(next)
		quiet("on the way, changed")
		a.sql("alter role manada_rewind password 'by hand'")
		if back := furnish("by hand on the way"); len(back) != 1 || back[0] != "password of "+cluster.RoleRewind {
			t.Errorf("changed by hand meanwhile: put back %v", back)
		}
	}
	must(t, a.SetPasswords(next, Passwords{}))
	quiet("after it")
	a.sql("alter role manada_monitor password '" + testPasswords.Monitor + "'")
	if back := furnish("the former one by hand"); len(back) != 1 || back[0] != "password of "+cluster.RoleMonitor {
		t.Errorf("the former password given by hand: put back %v", back)
	}
}
