package rules

import (
	"testing"
	"time"

	"manada/internal/proxy/wire"
)

func TestQueueTimeout(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 1, QueueTimeout: time.Minute})
	a := d.attach("orders", "app")
	first, second := d.want(a), d.want(a)
	d.expect(first, "server")
	d.wait(59 * time.Second)
	d.expect(second, "waits")
	d.wait(2 * time.Second)
	d.expect(second, "53300 no server connection became free within 1m0s (proxy.pool.queue_timeout)")
	if e := d.denied[second]; e.Severity != "FATAL" || e.Detail != "The pool's 1 connections to a were in use." {
		t.Errorf("%+v", e)
	}
}

func TestWithdrawnClaimIsForgotten(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 1})
	a := d.attach("orders", "app")
	first, second, third := d.want(a), d.want(a), d.want(a)
	d.do(d.b.Withdraw(d.now, second, nil)) // PgBouncer: a client that left the queue must not get a server
	d.give(first)
	d.expect(second, "nothing")
	d.expect(third, "server")
}

func TestReserve(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 1, Reserve: 1, ReserveTimeout: 5 * time.Second})
	a := d.attach("orders", "app")
	d.want(a)
	second, third := d.want(a), d.want(a)
	d.wait(4900 * time.Millisecond)
	d.expect(second, "waits")
	d.wait(200 * time.Millisecond)
	d.expect(second, "server")
	d.expect(third, "waits")
}

func TestMinIsKept(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 5, Min: 2, IdleTimeout: time.Minute})
	a := d.attach("orders", "app")
	c := d.want(a)
	d.give(c)
	d.wait(10 * time.Minute)
	if v := d.b.Pools(d.now)[0]; v.Idle != 2 {
		t.Errorf("%+v", v)
	}
	d.b.Detach(a)
	d.wait(10 * time.Minute)
	if v := d.b.Pools(d.now); len(v) != 0 {
		t.Errorf("nobody needs %+v", v)
	}
}

func TestIdleTimeoutAndLIFO(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 5, IdleTimeout: time.Minute})
	a := d.attach("orders", "app")
	all := []*Claim{d.want(a), d.want(a), d.want(a)}
	last := d.handed[all[2]]
	for _, c := range all {
		d.give(c)
	}
	for range 130 { // one client at a time: the others are not kept busy in turn
		d.wait(time.Second)
		c := d.want(a)
		if d.handed[c] != last {
			t.Fatal("not the server that was used last")
		}
		d.give(c)
	}
	if v := d.b.Pools(d.now)[0]; v.Idle != 1 {
		t.Errorf("%+v", v)
	}
}

// A switchover holds everybody at the old primary; they are served by the new one, in
// their order, or by the old one when it is called off.
func TestSwitchoverHolds(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 1})
	a := d.attach("orders", "app")
	first, second := d.want(a), d.want(a)
	d.do(d.b.Hold(d.now, d.n, nil))
	d.give(first)
	third := d.want(a)
	d.expect(second, "waits")
	d.expect(third, "waits")
	if d.closed != 0 {
		t.Error("what was given back is not kept")
	}
	d.do(d.b.Hold(d.now, nil, nil))
	d.expect(second, "server")
	d.expect(third, "waits")

	d.do(d.b.Hold(d.now, d.n, nil))
	successor := d.b.Node("b")
	d.do(d.b.SetNode(d.now, successor, 10, 2, nil))
	d.do(d.b.Lead(d.now, successor, "", nil))
	d.expect(third, "server")
	if n := d.handed[third].Pool.Node; n != successor {
		t.Errorf("served by %s", n.Name)
	}
	d.do(d.b.Hold(d.now, nil, nil))
	d.give(second)
	d.give(third)
}

func TestLifetimeIsSpread(t *testing.T) {
	d := newDesk(t, 50, Settings{Lifetime: time.Hour})
	a := d.attach("orders", "app")
	var all []*Claim
	for range 50 {
		all = append(all, d.want(a))
	}
	for _, c := range all {
		d.give(c)
	}
	at := map[Moment]int{}
	for d.now < time.Hour {
		before := d.closed
		d.wait(time.Second)
		if n := d.closed - before; n > 0 {
			at[d.now] = n
		}
	}
	if d.closed != 50 || len(at) < 40 || d.closed-at[time.Hour] < 40 {
		t.Errorf("%d closed at %d moments", d.closed, len(at))
	}
}

func TestUsedServerOutlivesItsLifetime(t *testing.T) {
	d := newDesk(t, 50, Settings{Lifetime: time.Minute})
	a := d.attach("orders", "app")
	c := d.want(a)
	s := d.handed[c]
	d.wait(time.Hour)
	if d.closed != 0 {
		t.Fatal("closed under its client")
	}
	d.give(c)
	if c = d.want(a); d.closed != 1 || d.handed[c] == s {
		t.Error("an old server is handed out again")
	}
}

// What PostgreSQL answers is told in its words; connections that are too many, or a
// node that starts, are waited for.
func TestFailuresAreTold(t *testing.T) {
	for _, c := range []struct{ code, message, want string }{
		{"28P01", `password authentication failed for user "app"`, "28P01 password"},
		{"28000", `role "app" is not permitted to log in`, "28000 role"},
		{"3D000", `database "orders" does not exist`, "3D000 database"},
		{"42501", `permission denied for database "orders"`, "42501 permission"},
		{"55000", `database "orders" is not currently accepting connections`, "55000 database"},
		{"57P03", "the database system is starting up", "waits"},
		{"53300", "sorry, too many clients already", "waits"},
		{"08006", "connection refused", "waits"},
	} {
		d := newDesk(t, 10, Settings{Size: 3, QueueTimeout: time.Minute})
		a := d.attach("orders", "app")
		d.fails = wire.Fatal(c.code, c.message, "")
		one, two := d.want(a), d.want(a)
		d.expect(one, c.want)
		d.expect(two, c.want)
		if c.want == "waits" {
			d.wait(30 * time.Second)
			if n := len(d.opens); n < 15 || n > 40 {
				t.Errorf("%s: %d attempts in 30 s", c.code, n)
			}
			d.fails = nil
			d.wait(3 * time.Second)
			d.expect(one, "server")
			d.expect(two, "server")
			continue
		}
		tried := len(d.opens)
		for range 100 {
			d.expect(d.want(a), c.want)
		}
		if len(d.opens) != tried {
			t.Errorf("%s: %d more attempts at once", c.code, len(d.opens)-tried)
		}
		d.fails = nil
		d.wait(time.Second)
		d.expect(d.want(a), "server")
	}
}

// While others of the pool serve them, nobody is told of an attempt that failed.
func TestFailureBesideServers(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 3, QueueTimeout: time.Minute})
	a := d.attach("orders", "app")
	one := d.want(a)
	d.fails = wire.Fatal("28P01", `password authentication failed for user "app"`, "")
	two := d.want(a)
	d.expect(two, "waits")
	d.give(one)
	d.expect(two, "server")
}

// A role that lost its right loses its servers, and then is told.
func TestRoleThatLostItsRight(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 3, QueueTimeout: time.Minute})
	a := d.attach("orders", "app")
	one := d.want(a)
	d.fails = wire.Fatal("28000", `role "app" is not permitted to log in`, "")
	two := d.want(a)
	d.expect(two, "waits") // for the one that is in use
	d.give(one)
	d.wait(100 * time.Millisecond)
	d.expect(two, "28000 role")
	if v := d.b.Pools(d.now)[0]; v.Idle+v.Active != 0 {
		t.Errorf("%+v", v)
	}
}

// A log-in that PostgreSQL would refuse costs the pool its servers.
func TestRefusedLoginRevokes(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 3})
	a := d.attach("orders", "app")
	d.give(d.want(a))
	no := anyone
	no.Connect = false
	_, err, out := d.b.Attach(d.now, "orders", "app", no, nil)
	d.do(out)
	if err == nil || err.Code != "42501" || d.closed != 1 {
		t.Errorf("%v, %d closed", err, d.closed)
	}
	if _, err, out = d.b.Attach(d.now, "orders", "app", limited(0, -1), nil); err == nil || len(out) != 0 {
		t.Error("a limit is no loss of the right")
	}
}

func TestNoThundering(t *testing.T) {
	d := newDesk(t, 1000, Settings{})
	d.slow = true
	a := d.attach("orders", "app")
	for range 10000 {
		d.want(a)
	}
	if len(d.opens) != maxOpening {
		t.Errorf("%d log-ins at once", len(d.opens))
	}
	d.do(d.b.Failed(d.now, d.opens[0], wire.Fatal("57P03", "the database system is starting up", ""), nil))
	for _, s := range d.opens[1:maxOpening] {
		d.do(d.b.Failed(d.now, s, wire.Fatal("57P03", "the database system is starting up", ""), nil))
	}
	before := len(d.opens)
	d.wait(10 * time.Second)
	if n := len(d.opens) - before; n != 1 {
		t.Errorf("%d log-ins at once after a failure", n)
	}
}

func TestLimitsOfClients(t *testing.T) {
	d := newDesk(t, 10, Settings{}, "orders", "max_clients=3", "*/app", "max_clients=2", "stock/app", "max_clients=1")
	d.b.cfg.MaxClients = 5
	try := func(db, user string, r Rights, want string) {
		t.Helper()
		_, err, out := d.b.Attach(d.now, db, user, r, nil)
		d.do(out)
		got := ""
		if err != nil {
			got = err.Code + " " + err.Message
		}
		if got != want {
			t.Errorf("%s/%s: %q, want %q", db, user, got, want)
		}
	}
	try("stock", "app", anyone, "")
	try("stock", "app", anyone, `53300 too many clients for role "app" in database "stock": the proxy allows 1 (max_clients in proxy.pool.overrides)`)
	try("orders", "app", anyone, "")
	try("orders", "app", anyone, `53300 too many clients for role "app": the proxy allows 2 (max_clients in proxy.pool.overrides)`)
	try("orders", "web", limited(1, 2), "")
	try("orders", "web", limited(1, -1), `53300 too many connections for role "web"`)
	try("orders", "etl", limited(-1, 2), `53300 too many connections for database "orders"`)
	try("orders", "etl", limited(0, 0), `53300 too many connections for role "etl"`)
	root := limited(0, 0)
	root.Superuser = true
	try("orders", "root", root, "")
	try("orders", "etl", anyone, `53300 too many clients for database "orders": the proxy allows 3 (max_clients in proxy.pool.overrides)`)
	try("other", "etl", anyone, "")
	try("other", "etl", anyone, `53300 sorry, too many clients already: the proxy allows 5 (proxy.max_clients)`)
}

// Clients with a connection of their own count as the others do, and keep nothing of a
// pool. Who replicates physically is in no database, and PostgreSQL looks at its rights.
func TestOwnClientsCount(t *testing.T) {
	d := newDesk(t, 10, Settings{Min: 1}, "orders", "max_clients=3", "*/app", "max_clients=2")
	d.b.cfg.MaxClients = 5
	enter := func(db, user string, r Rights, want string) (o *Own) {
		t.Helper()
		var err *wire.Error
		if out := []Decision(nil); db == "" {
			o, err = d.b.EnterPhysical(user, r)
		} else {
			o, err, out = d.b.Enter(d.now, db, user, r, nil)
			d.do(out)
		}
		got := ""
		if err != nil {
			got = err.Message
		}
		if got != want {
			t.Errorf("%s/%s: %q, want %q", db, user, got, want)
		}
		return o
	}
	const full, role = "too many clients for role \"app\": the proxy allows 2 (max_clients in proxy.pool.overrides)", "too many connections for role \"feed\""
	first, second := enter("orders", "app", anyone, ""), enter("", "app", Rights{RoleLimit: -1}, "")
	enter("orders", "app", anyone, full)
	enter("", "app", Rights{RoleLimit: -1}, full)
	d.b.Leave(second)
	a := d.attach("orders", "app")
	enter("", "app", Rights{RoleLimit: -1}, full)
	d.b.Detach(a)
	d.b.Leave(first)
	feed := enter("", "feed", Rights{RoleLimit: 1}, "")
	enter("", "feed", Rights{RoleLimit: 1}, role)
	enter("orders", "feed", limited(1, -1), role)
	enter("orders", "web", limited(-1, 0), `too many connections for database "orders"`)
	web := enter("orders", "web", limited(-1, 1), "")
	enter("orders", "etl", limited(-1, 1), `too many connections for database "orders"`)
	d.wait(10 * time.Minute)
	if v := d.b.Pools(d.now); len(v) != 0 {
		t.Errorf("nobody needs %+v", v)
	}
	d.b.Leave(feed)
	d.b.Leave(web)
	if b := d.b; len(b.accounts)+len(b.users)+len(b.databases)+b.clients != 0 {
		t.Errorf("left: %v %v %v %d", b.accounts, b.users, b.databases, b.clients)
	}
}

func TestOverrides(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 5, QueueTimeout: time.Minute}, "orders/app", "size=1", "*/app", "size=2 mode=transaction", "orders", "size=3 idle_timeout=5s")
	s := d.b.cfg.For("orders", "app")
	if s.Size != 1 || s.Mode != Transaction || s.IdleTimeout != 5*time.Second || s.QueueTimeout != time.Minute {
		t.Errorf("%+v", s)
	}
	if s = d.b.cfg.For("orders", "web"); s.Size != 3 || s.Mode != Session {
		t.Errorf("%+v", s)
	}
	for _, bad := range [][2]string{{"", "size=1"}, {"*", "size=1"}, {"orders/", "size=1"}, {"orders/*", "size=1"}, {"orders", ""}, {"orders", "size"}, {"orders", "size=0"}, {"orders", "sice=3"},
		{"orders", "mode=sesion"}, {"orders", "idle_timeout=-1s"}, {"orders", "idle_timeout=5"}, {"orders", "min=99999999999"}} {
		if o, err := ParseOverride(bad[0], bad[1]); err == nil {
			t.Errorf("%q: %q is taken for %+v", bad[0], bad[1], o)
		}
	}
}

func TestPrimaryMoves(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 1, QueueTimeout: time.Minute})
	a := d.attach("orders", "app")
	d.want(a)
	first, second := d.want(a), d.want(a)
	d.do(d.b.Lead(d.now, nil, "db1 fell", nil))
	d.expect(first, "waits")
	late := d.want(a)
	other := d.b.Node("b")
	d.do(d.b.SetNode(d.now, other, 10, 2, nil))
	d.do(d.b.Lead(d.now, other, "", nil))
	d.expect(first, "server")
	if d.handed[first].Pool.Node != other {
		t.Error("not at the new primary")
	}
	d.give(first)
	d.expect(second, "server")
	d.give(second)
	d.expect(late, "server")
	d.do(d.b.Lead(d.now, nil, "db2 fell", nil))
	lost := d.want(a)
	d.wait(2 * time.Minute)
	d.expect(lost, "57P03 no primary to connect to after waiting 1m0s: db2 fell")
}

func TestConfigureTakesLessAtOnce(t *testing.T) {
	d := newDesk(t, 10, Settings{Size: 4})
	a := d.attach("orders", "app")
	busy := []*Claim{d.want(a), d.want(a)}
	d.give(d.want(a))
	cfg := d.b.cfg
	cfg.Default.Size = 1
	d.do(d.b.Configure(d.now, cfg, nil))
	d.give(busy[0])
	if v := d.b.Pools(d.now)[0]; v.Idle+v.Active != 1 {
		t.Errorf("%+v", v)
	}
	cfg.Default.Size = 2
	d.do(d.b.Configure(d.now, cfg, nil))
	d.expect(d.want(a), "server")
}
