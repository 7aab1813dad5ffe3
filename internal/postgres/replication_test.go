package postgres

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/internal/postgres/pgtest"
)

// logIn tries to connect to n as a walsender, kind being the value of the
// parameter replication, and says how it was refused, "" if it was not. shows is
// whose certificate is shown, nil for none.
func (n *node) logIn(role, password, db, kind string, shows *pki.Identity) (*pgconn.PgConn, string) {
	n.t.Helper()
	c, err := pgconn.ParseConfig("sslmode=require host=127.0.0.1 port=" + strconv.Itoa(n.cfg.Port) + " user=" + role + " dbname=" + db)
	must(n.t, err)
	c.Password = password
	if kind != "" {
		c.RuntimeParams["replication"] = kind
	}
	if shows != nil {
		c.TLSConfig = shows.ClientTLS(n.cfg.Node)
	}
	conn, err := pgconn.ConnectConfig(deadline(n.t, 10*time.Second), c)
	if err != nil {
		return nil, err.Error()
	}
	n.t.Cleanup(func() { conn.Conn().Close() })
	return conn, ""
}

// Both kinds of walsender are closed to whoever is not trusted: physical ones by
// pg_hba.conf, those of a database by the attribute; ours shows a certificate.
func TestOnlyTrustedRolesGetAWalsender(t *testing.T) {
	h := newHerd(t)
	ida, idb := h.identity("a", pki.KindData), h.identity("b", pki.KindData)
	a := leader(t, "a", h.of(ida), func(c *Config) {
		c.Replication = []cluster.Replicator{
			{Role: "feed", From: []string{"127.0.0.1"}, Databases: []string{"postgres"}},
			{Role: "far", From: []string{"192.0.2.0/24"}, Databases: []string{"postgres"}},
		}
	})
	// There is a proxy on the very host that the role comes from.
	must(t, a.SetAccess(deadline(t, 5*time.Second), a.cfg.Members, []string{"127.0.0.1"}))
	for _, r := range []string{"reppy", "feed", "far"} {
		a.sql("create role " + r + " login replication password 'x'")
	}
	refused := func(what, why string, parts ...string) {
		t.Helper()
		if !slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(why, p) }) {
			t.Errorf("%s: %q", what, why)
		}
	}
	_, why := a.logIn("reppy", "x", "postgres", "true", nil)
	refused("physical, outside the list", why, "no pg_hba.conf entry for replication connection")
	early, why := a.logIn("reppy", "x", "postgres", "database", nil)
	if why != "" {
		t.Fatalf("replication=database is an ordinary session to pg_hba.conf, and was refused: %s", why)
	}
	// A role that had it before and lost it by hand keeps its walsender.
	a.sql("create role other login replication password 'x'")
	still, why := a.logIn("other", "x", "postgres", "database", nil)
	if why != "" {
		t.Fatal(why)
	}
	a.sql("alter role other noreplication")

	taken, err := a.TakeReplication(deadline(t, 5*time.Second))
	if err != nil || !slices.Equal(taken, []string{"reppy"}) {
		t.Fatalf("taken from %v: %v", taken, err)
	}
	for what, c := range map[string]*pgconn.PgConn{"its walsender": early, "that of a role that had lost it": still} {
		_, err := c.Exec(deadline(t, 5*time.Second), "IDENTIFY_SYSTEM").ReadAll()
		if err == nil {
			t.Errorf("%s goes on", what)
		}
	}
	_, why = a.logIn("reppy", "x", "postgres", "database", nil)
	refused("of a database, outside the list", why, "must be superuser or replication role to start walsender", "permission denied to start WAL sender")
	if taken, err := a.TakeReplication(deadline(t, 5*time.Second)); err != nil || len(taken) > 0 {
		t.Fatalf("again: %v %v", taken, err)
	}
	if v := a.sql("select string_agg(rolname, ' ' order by rolname) from pg_roles where rolreplication"); v != "far feed manada_replication postgres" {
		t.Fatalf("replication belongs to %s", v)
	}

	// Somebody's open transaction holds one role: the other loses it all the same.
	a.sql("create role held login replication")
	a.sql("create role loose login replication")
	tx, err := a.connect(deadline(t, 10*time.Second), "tx", "on")
	must(t, err)
	_, err = run(deadline(t, 5*time.Second), tx, "begin; alter role held connection limit 5")
	must(t, err)
	if taken, err := a.TakeReplication(deadline(t, 5*time.Second)); err == nil || !slices.Equal(taken, []string{"loose"}) {
		t.Fatalf("while a role is held: %v %v", taken, err)
	}
	tx.Conn().Close()
	until(t, "the held role loses it too", func() bool {
		taken, err := a.TakeReplication(deadline(t, 5*time.Second))
		return err == nil && slices.Equal(taken, []string{"held"})
	})

	for _, kind := range []string{"true", "database", ""} {
		if _, why := a.logIn("feed", "x", "postgres", kind, nil); why != "" {
			t.Errorf("role of the list, replication=%q: %s", kind, why)
		}
		_, why := a.logIn("far", "x", "postgres", kind, nil)
		refused("role of the list from elsewhere, replication="+kind, why, "connection requires a valid client certificate")
		if _, why := a.logIn("far", "x", "postgres", kind, idb); why != "" {
			t.Errorf("role of the list by way of a proxy, replication=%q: %s", kind, why)
		}
		_, why = a.logIn(cluster.RoleReplication, a.cfg.Passwords.Replication, "postgres", kind, nil)
		refused("our role without a certificate, replication="+kind, why, "connection requires a valid client certificate", "pg_hba.conf rejects")
	}
	_, why = a.logIn("feed", "x", "template1", "database", nil)
	refused("role of the list in another database", why, "pg_hba.conf rejects")
	_, why = a.logIn(cluster.RoleReplication, a.cfg.Passwords.Replication, "postgres", "database", idb)
	refused("our role in a database", why, "pg_hba.conf rejects")
	if _, why := a.logIn(cluster.RoleReplication, a.cfg.Passwords.Replication, "postgres", "true", idb); why != "" {
		t.Errorf("a member: %s", why)
	}
	// The members move: who is left behind does not get in any more.
	must(t, a.SetAccess(deadline(t, 5*time.Second), []cluster.MemberAccess{{Node: "b", Addrs: []string{"192.0.2.7"}}}, nil))
	until(t, "the old address is refused", func() bool {
		_, why := a.logIn(cluster.RoleReplication, a.cfg.Passwords.Replication, "postgres", "true", idb)
		return strings.Contains(why, "pg_hba.conf rejects")
	})
}

func TestAccessLines(t *testing.T) {
	i := &Instance{cfg: Config{TLS: TLSFiles{Cert: "c"}, Replication: []cluster.Replicator{{Role: "feed", From: []string{"10.9.0.0/16", "fd00::9"}, Databases: []string{"app", "replication"}}}},
		access: access{members: []cluster.MemberAccess{{Node: "a", Addrs: []string{"10.0.0.1", "fd00::1"}}, {Node: "old", Addrs: []string{"10.0.0.2"}, NoCert: true}}, proxies: []string{"10.0.0.1"}}}
	text := i.renderHBA()
	for _, want := range []string{
		"hostssl replication manada_replication 10.0.0.1/32 scram-sha-256 clientcert=verify-ca\n",
		"hostssl replication manada_replication fd00::1/128 scram-sha-256 clientcert=verify-ca\n",
		"hostssl replication manada_replication 10.0.0.2/32 scram-sha-256\n",
		"hostssl postgres manada_rewind 10.0.0.1/32 scram-sha-256 clientcert=verify-ca\n",
		"hostssl replication \"feed\" 10.0.0.1/32 scram-sha-256 clientcert=verify-ca\n",
		"hostssl \"app\",\"replication\" \"feed\" fd00::9/128 scram-sha-256\n",
		"host replication \"feed\" all reject\nhost all \"feed\" all reject\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, " replication all ") {
			t.Errorf("replication for everybody: %s", line)
		}
	}
}

// Whose a walsender is, and from where, is read; idle ones count, and take the
// place of a member until they are ended.
func TestStrangersAreSeenAndKeepAMemberOut(t *testing.T) {
	h := newHerd(t)
	ida, idb := h.identity("a", pki.KindData), h.identity("b", pki.KindData)
	feed := []cluster.Replicator{{Role: "feed", From: []string{"127.0.0.1"}}}
	a := leader(t, "a", h.of(ida), func(c *Config) {
		c.Replication = feed
		c.Params = map[string]string{"shared_buffers": "16MB", "max_connections": "40", "max_wal_senders": "3"}
	})
	a.sql("create role feed login replication password 'x'")
	b := standby(t, a, "b", 1, 1, h.of(idb))
	if s := a.observe().Senders; len(s) != 1 || s[0].Role != cluster.RoleReplication || s[0].Addr != "127.0.0.1" {
		t.Fatalf("the member's walsender: %+v", s)
	}
	must(t, b.CutUpstream(deadline(t, 5*time.Second)))
	must(t, b.EndReceiver(deadline(t, 5*time.Second)))
	until(t, "its walsender is gone", func() bool { return len(a.observe().Senders) == 0 })
	for range 3 {
		if _, why := a.logIn("feed", "x", "postgres", "true", nil); why != "" {
			t.Fatal(why)
		}
	}
	o := a.observe()
	if len(o.Senders) != 3 || o.MaxSenders != 3 {
		t.Fatalf("%d of %d walsenders: %+v", len(o.Senders), o.MaxSenders, o.Senders)
	}
	b.follow(a, 1)
	until(t, "the member is refused", func() bool {
		log, _ := os.ReadFile(b.cfg.LogFile)
		return strings.Contains(string(log), "max_wal_senders")
	})
	var pids []int
	for _, s := range o.Senders {
		if s.Role != "feed" {
			t.Errorf("%+v", s)
		}
		pids = append(pids, s.PID)
	}
	must(t, a.EndSenders(deadline(t, 5*time.Second), pids))
	until(t, "the member streams", func() bool { return b.observe().Streaming })
}

// What the simulator's PostgreSQL does too: a walsender acknowledges by its name
// alone, and what was released stays so until PostgreSQL was restarted.
func TestAWalsenderAcknowledgesByItsNameAlone(t *testing.T) {
	h := newHerd(t)
	a := leader(t, "a", h.of(h.identity("a", pki.KindData)), func(c *Config) {
		c.Replication = []cluster.Replicator{{Role: "feed", From: []string{"127.0.0.1"}, Databases: []string{"postgres"}}}
	})
	a.sql("create role feed login replication password 'x'")
	a.sql("create table public.t (i int)")
	if _, err := a.SetSync(deadline(t, 5*time.Second), cluster.WaitFor(1, 1, "b")); err != nil {
		t.Fatal(err)
	}
	impersonate := func(kind string, beyond uint64) (stop func()) {
		c, err := pgconn.ParseConfig("sslmode=require host=127.0.0.1 user=feed password=x dbname=postgres port=" + strconv.Itoa(a.cfg.Port))
		must(t, err)
		c.RuntimeParams["replication"], c.RuntimeParams["application_name"] = kind, "b@e1"
		ctx, cancel := context.WithCancel(deadline(t, 30*time.Second))
		began, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- pgtest.Impersonate(ctx, c, beyond, func() { close(began) }) }()
		select {
		case <-began:
		case err := <-ended:
			t.Fatal(err)
		}
		return func() { cancel(); <-ended }
	}
	if !a.waits("insert into public.t values (1)") {
		t.Fatal("a commit does not wait for b")
	}
	for _, kind := range []string{"true", "database"} {
		stop := impersonate(kind, 0)
		until(t, "a commit is released by a false name, replication="+kind, func() bool { return !a.waits("insert into public.t values (2)") })
		stop()
		until(t, "its walsender is gone", func() bool { return len(a.observe().Senders) == 0 })
		if !a.waits("insert into public.t values (3)") {
			t.Fatal("a commit does not wait any more")
		}
	}
	stop := impersonate("true", 1<<40)
	until(t, "the lie is seen", func() bool {
		s := a.observe().Senders
		return len(s) == 1 && s[0].Flush > a.observe().Inserted && !a.waits("insert into public.t values (4)") // it is counted, too
	})
	stop()
	until(t, "its walsender is gone", func() bool { return len(a.observe().Senders) == 0 })
	if _, err := a.SetSync(deadline(t, 5*time.Second), cluster.HoldCommits()); err != nil {
		t.Fatal(err)
	}
	if waits, err := a.ProbeInForce(deadline(t, 10*time.Second)); err != nil || waits {
		t.Fatalf("after a lie commits wait: %v %v; the rule that restarts PostgreSQL would not be needed", waits, err)
	}
}
