package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pgconnect"
)

// Who is waited for before a switchover: sessions of clients in a transaction or
// in a statement, whatever they hide, and nobody of the herd's own.
func TestClientsUnderWay(t *testing.T) {
	a := leader(t, "a", func(c *Config) { c.Params = map[string]string{"max_prepared_transactions": "2"} })
	ctx := deadline(t, 60*time.Second)
	a.sql("create role app superuser login password 'app'")
	a.sql("create table public.t (x int)")
	local := "host=127.0.0.1 dbname=postgres sslmode=disable port=" + a.sql("show port")
	open := func(role, password string) *pgconn.PgConn {
		t.Helper()
		c, err := pgconnect.Open(ctx, pgconnect.Session{Conninfo: local + " user=" + role, Password: password, Name: "x", Patience: 5 * time.Second})
		must(t, err)
		t.Cleanup(func() { c.Conn().Close() })
		return c
	}
	do := func(c *pgconn.PgConn, sql string) {
		t.Helper()
		_, err := run(ctx, c, sql)
		must(t, err)
	}
	look := func(what string, open, inCommit int) Clients {
		t.Helper()
		c, err := a.LookAtClients(ctx)
		must(t, err)
		if c.Open != open || c.InCommit != inCommit {
			t.Errorf("%s: %+v, want %d open, %d in COMMIT", what, c, open, inCommit)
		}
		return c
	}
	app, hidden, own := open("app", "app"), open("app", "app"), open(cluster.RoleRewind, "rewind")
	do(own, "begin; select 1")
	look("idle sessions and one of the herd's own", 0, 0)
	do(app, "begin")
	do(hidden, "set track_activities = off; begin; insert into public.t values (1)")
	time.Sleep(30 * time.Millisecond) // so that there is an age to see
	if c := look("two transactions", 2, 0); c.Oldest < 20*time.Millisecond || c.Oldest > time.Minute {
		t.Errorf("the oldest transaction is %s old", c.Oldest)
	}
	do(app, "rollback")
	do(hidden, "prepare transaction 'p'")
	look("one ended, one prepared", 0, 0)

	// In COMMIT: nobody acknowledges.
	_, err := a.SetSync(ctx, cluster.HoldCommits())
	must(t, err)
	until(t, "commits wait", func() bool { ok, err := a.ProbeInForce(ctx); return err == nil && ok })
	waits := make(chan error, 1)
	go func() { _, err := run(ctx, app, "insert into public.t values (2)"); waits <- err }()
	until(t, "the commit waits", func() bool { c, err := a.LookAtClients(ctx); return err == nil && c.InCommit == 1 && c.Open == 1 })
	_, err = a.SetSync(ctx, cluster.CommitAlone())
	must(t, err)
	must(t, <-waits)
	look("acknowledged", 0, 0)

	// Idle sessions of who came by himself are ended, others are not.
	busy := open("app", "app")
	socket, err := a.connect(ctx, "psql", "on")
	must(t, err)
	t.Cleanup(func() { socket.Conn().Close() })
	do(busy, "begin")
	n, err := a.EndIdleClients(ctx)
	must(t, err)
	if n != 1 { // one hides that it is idle
		t.Errorf("%d sessions ended, want 1", n)
	}
	if _, err := run(ctx, app, "select 1"); code(err) != "57P01" {
		t.Errorf("the idle session: %v", err)
	}
	do(busy, "commit")
	do(own, "commit")
	do(socket, "select 1")
	a.EndLooking()
	look("looked again after the session was closed", 0, 0)
	do(busy, "rollback prepared 'p'")
}
