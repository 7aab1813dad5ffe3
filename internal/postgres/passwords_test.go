package postgres

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pki"
)

// New passwords while a standby streams: nobody is cut off, PostgreSQL's log
// says no password, and who is cut off afterwards comes back with the new one.
// Then the authority's successor: a node that only knows the former one goes on
// following.
func TestPasswordsAndAuthorityChangeUnderReplication(t *testing.T) {
	h := newHerd(t)
	aID := h.identity("a", pki.KindData)
	a := leader(t, "a", h.of(aID), func(c *Config) { c.Params["log_statement"] = "all"; c.Params["log_min_duration_statement"] = "0" })
	b := standby(t, a, "b", 1, 1, h.of(h.identity("b", pki.KindData)))
	streaming := a.observe().Senders[0]

	next := Passwords{Superuser: "super2", Replication: "new repl' \\x:", Rewind: "rewind2", Monitor: "monitor2", Proxy: "proxy2"}
	want := map[string]string{
		cluster.RoleReplication: next.Replication, cluster.RoleRewind: next.Rewind,
		cluster.RoleMonitor: next.Monitor, cluster.RoleProxy: next.Proxy, "nobody_of_that_name": "x",
	}
	changed, err := a.ChangePasswords(deadline(t, 5*time.Second), want)
	must(t, err)
	if len(changed) != 4 || slices.Contains(changed, "nobody_of_that_name") {
		t.Errorf("changed %v", changed)
	}
	if again, err := a.ChangePasswords(deadline(t, 5*time.Second), want); err != nil || again != nil {
		t.Errorf("repeated it changed %v, %v", again, err)
	}
	for role, ok := range map[string]bool{cluster.RoleRewind: true, cluster.RoleSuperuser: false} {
		if is, err := a.HasPassword(deadline(t, 5*time.Second), role, "other", "rewind2"); err != nil || is != ok {
			t.Errorf("%s has the new password: %v, %v", role, is, err)
		}
	}
	if s := a.observe().Senders; len(s) != 1 || s[0].PID != streaming.PID {
		t.Error("the standby's stream was ended")
	}
	must(t, a.SetPasswords(next, Passwords{}))
	a.sql("alter role manada_monitor password 'by hand'")
	if _, err := a.Furnish(deadline(t, 5*time.Second), true); err != nil {
		t.Fatal(err) // and what is put back is not in the log either
	}
	if c, err := b.connectSource(deadline(t, 5*time.Second), a.source(1), "x"); err == nil {
		c.Conn().Close()
		t.Error("the old password still opens a session")
	}
	must(t, b.SetPasswords(next, Passwords{}))
	if c, err := b.connectSource(deadline(t, 5*time.Second), a.source(1), "x"); err != nil {
		t.Errorf("the new password does not: %v", err)
	} else {
		c.Conn().Close()
	}
	comesBack := func(what string) {
		t.Helper()
		old := a.observe().Senders[0].PID
		must(t, a.EndSenders(deadline(t, 5*time.Second), []int{old}))
		until(t, what, func() bool {
			s := a.observe().Senders
			return len(s) == 1 && s[0].PID != old && s[0].State == "streaming"
		})
	}
	comesBack("the standby with the new password")
	log, err := os.ReadFile(a.cfg.LogFile)
	must(t, err)
	for _, secret := range []string{next.Replication, "rewind2", "monitor2", "proxy2", "SCRAM-SHA-256$"} {
		if strings.Contains(string(log), secret) {
			t.Errorf("PostgreSQL's log says %q", secret)
		}
	}

	// a's certificate is of a new authority; b's ca.crt knows only the old one.
	newCA, err := h.ca.Successor(time.Now())
	must(t, err)
	cert, err := newCA.Resign(aID.Certificate(), time.Now())
	must(t, err)
	must(t, aID.InstallCertificate(cert))
	must(t, a.ReloadCertificate(deadline(t, 5*time.Second)))
	comesBack("the standby that knows the former authority only")
}

// Who is removed keeps no session that it opened before. Members go on
// replicating, and applications are not asked; ours over the socket neither.
func TestSessionsOfARemovedHostEnd(t *testing.T) {
	h := newHerd(t)
	a := leader(t, "a", h.of(h.identity("a", pki.KindData)))
	gone := h.identity("gone", pki.KindData)
	a.sql("create role app login password 'x'")
	open := func(role, password, kind string) *pgconn.PgConn {
		t.Helper()
		c, why := a.logIn(role, password, "postgres", kind, gone)
		if why != "" {
			t.Fatal(why)
		}
		return c
	}
	p := a.cfg.Passwords
	receiver, rewind, app := open(cluster.RoleReplication, p.Replication, "true"), open(cluster.RoleRewind, p.Rewind, ""), open("app", "x", "")
	others := []*pgconn.PgConn{open(cluster.RoleMonitor, p.Monitor, ""), open(cluster.RoleProxy, p.Proxy, "")}
	before := time.Now()
	later := open(cluster.RoleMonitor, p.Monitor, "")
	local, err := a.connect(deadline(t, 5*time.Second), "local", "local")
	must(t, err)
	t.Cleanup(func() { local.Conn().Close() })

	goesOn := func(c *pgconn.PgConn) bool {
		sql := "select 1"
		if c == receiver {
			sql = "IDENTIFY_SYSTEM"
		}
		_, err := c.Exec(deadline(t, 5*time.Second), sql).ReadAll()
		return err == nil
	}
	end := func() {
		t.Helper()
		roles := []string{cluster.RoleSuperuser, cluster.RoleReplication, cluster.RoleRewind, cluster.RoleMonitor, cluster.RoleProxy}
		must(t, a.EndSessions(deadline(t, 5*time.Second), roles, before))
	}
	must(t, a.SetAccess(deadline(t, 5*time.Second), nil, nil)) // not known yet
	end()
	must(t, a.SetAccess(deadline(t, 5*time.Second), []cluster.MemberAccess{{Node: "a", Addrs: []string{"127.0.0.1"}}}, nil))
	end()
	for n, c := range others {
		until(t, "session "+strconv.Itoa(n)+" ends", func() bool { return !goesOn(c) })
	}
	for what, c := range map[string]*pgconn.PgConn{"a member's walsender": receiver, "a member's rewind": rewind, "an application": app, "a later session": later, "one over the socket": local} {
		if !goesOn(c) {
			t.Errorf("%s was ended", what)
		}
	}
	must(t, a.SetAccess(deadline(t, 5*time.Second), []cluster.MemberAccess{{Node: "a", Addrs: []string{"192.0.2.1", "fd00::1"}}}, nil))
	end()
	until(t, "the walsender ends", func() bool { return !goesOn(receiver) })
	until(t, "the rewind ends", func() bool { return !goesOn(rewind) })
}
