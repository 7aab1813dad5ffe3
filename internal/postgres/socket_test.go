package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
)

// overSocket logs in over the unix socket and says why it may not.
func (n *node) overSocket(role, password, more string) string {
	n.t.Helper()
	c, err := pgconn.Connect(deadline(n.t, 10*time.Second), fmt.Sprintf("host='%s' port=%d user=%s password=%s dbname=postgres sslmode=disable %s", n.socketDir, n.cfg.Port, role, password, more))
	if err != nil {
		return err.Error()
	}
	c.Conn().Close()
	return ""
}

// Who comes over the socket shows the password, but for the roles of the herd that only
// this user of the operating system is; nobody replicates over it; and no other user
// can open it.
func TestSocketAsksForPasswords(t *testing.T) {
	a := leader(t, "a", func(c *Config) {
		c.HBA = []string{"local all all trust", "host all all all reject"} // neither says who comes over the socket
		c.Replication = []cluster.Replicator{{Role: "feed", From: []string{"127.0.0.1"}, Databases: []string{"postgres"}}}
	})
	for _, r := range []string{"app", "feed", "reppy"} {
		a.sql("create role " + r + " login replication password 'right'")
	}
	for _, c := range []struct{ role, password, more, want string }{
		{"app", "right", "", ""},
		{"app", "wrong", "", "password authentication failed"},
		{"nobody", "right", "", "password authentication failed"},
		{cluster.RoleProxy, "proxy", "", ""},
		{cluster.RoleProxy, "x", "", "password authentication failed"},
		{cluster.RoleSuperuser, "none", "", ""},
		{cluster.RoleMonitor, "none", "", ""},
		{cluster.RoleBackup, "none", "", ""},
		{cluster.RoleReplication, "repl' x", "", "rejects"},
		{cluster.RoleReplication, "x", "replication=database", "rejects"},
		{cluster.RoleRewind, "rewind", "", "rejects"},
		{"feed", "right", "", "rejects"},
		{"feed", "right", "replication=database", "rejects"},
		{"feed", "right", "replication=true", "no pg_hba.conf entry"},
		{"reppy", "right", "replication=true", "no pg_hba.conf entry"},
	} {
		c.password = strings.NewReplacer(`'`, `\'`, " ", "").Replace(c.password)
		if why := a.overSocket(c.role, c.password, c.more); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s %s: %q, want %q", c.role, c.more, why, c.want)
		}
	}
	if s, err := os.Stat(filepath.Join(a.socketDir, socketName(a.cfg.Port))); err != nil || s.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", s.Mode(), err)
	}
}

// A PostgreSQL that a former version has started is not said to admit anybody over its
// socket before it has the lines that do, and its socket is closed to others.
func TestSocketOfAFormerVersion(t *testing.T) {
	a := leader(t, "a")
	ctx := deadline(t, 20*time.Second)
	hba, socket := a.run(hbaFile), filepath.Join(a.socketDir, socketName(a.cfg.Port))
	must(t, os.WriteFile(hba, []byte("local all all peer map=manada\nhost all all 127.0.0.1/32 scram-sha-256\n"), 0o600))
	must(t, os.Chmod(socket, 0o777))
	must(t, a.reloadIfRunning(ctx))
	again, err := New(a.cfg, a.g) // the agent of now
	must(t, err)
	t.Cleanup(again.Close)
	until(t, "the former lines to count", func() bool { return strings.Contains(a.overSocket("app", "x", ""), "Peer authentication") })
	if again.AdmitsOverSocket(ctx) {
		t.Fatal("it is said to admit by password")
	}
	must(t, again.SetAccess(ctx, a.cfg.Members, nil)) // what it knew already
	until(t, "it to admit by password", func() bool { return again.AdmitsOverSocket(ctx) })
	if why := a.overSocket("nobody", "x", ""); !strings.Contains(why, "password authentication failed") {
		t.Error(why)
	}
	if s, err := os.Stat(socket); err != nil || s.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", s.Mode(), err)
	}
}
