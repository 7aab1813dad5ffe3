package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pgconnect"
)

// TestMakeRoom: with every connection taken by an ordinary role the herd's own
// roles get in, for the newest idle sessions are ended, and no others.
func TestMakeRoom(t *testing.T) {
	a := leader(t, "a", func(c *Config) { c.ProbeEvery = 50 * time.Millisecond })
	ctx := deadline(t, 60*time.Second)
	a.sql("create role app login password 'app'")
	local := "host=127.0.0.1 dbname=postgres sslmode=disable port=" + a.sql("show port")
	open := func(role, password string) (*pgconn.PgConn, error) {
		return pgconnect.Open(ctx, pgconnect.Session{Conninfo: local + " user=" + role, Password: password, Name: role})
	}
	var hogs []*pgconn.PgConn
	full := func() {
		t.Helper()
		for {
			c, err := open("app", "app")
			if code(err) == "53300" {
				return
			}
			must(t, err)
			t.Cleanup(func() { c.Conn().Close() })
			hogs = append(hogs, c)
		}
	}
	full()
	busy := hogs[len(hogs)-1]
	_, err := run(ctx, busy, "begin")
	must(t, err)
	if _, err := open(cluster.RoleRewind, "rewind"); code(err) != "53300" {
		t.Fatalf("the reproduction does not work: %v", err)
	}
	until(t, "word of it", func() bool { return strings.Contains(a.observe().Refused, "53300") })
	if !a.observe().Crowded {
		t.Fatal("not seen to be crowded")
	}
	ended, err := a.MakeRoom(ctx)
	must(t, err)
	if len(ended) < 3 || len(ended) > room+1 || ended[0] != "app" {
		t.Errorf("ended %q", ended)
	}
	c, err := pgconnect.Open(ctx, pgconnect.Session{Conninfo: local + " user=" + cluster.RoleRewind, Password: "rewind", Name: "x", Patience: 5 * time.Second})
	must(t, err)
	must(t, c.Close(ctx))
	if _, err := run(ctx, hogs[0], "select 1"); err != nil {
		t.Errorf("the oldest session was ended: %v", err)
	}
	if _, err := run(ctx, busy, "commit"); err != nil {
		t.Errorf("a session in a transaction was ended while idle ones were there: %v", err)
	}
	until(t, "new connections again", func() bool { return a.observe().Refused == "" })
	until(t, "room", func() bool { return !a.observe().Crowded })
	if ended, err := a.MakeRoom(ctx); err != nil || len(ended) > 0 {
		t.Errorf("with room left: %q, %v", ended, err)
	}
}

// TestNewConnectionsFail: what PostgreSQL says to whoever wants in is told, while
// open sessions go on, and the node is not taken for a dead one.
func TestNewConnectionsFail(t *testing.T) {
	a := leader(t, "a", func(c *Config) { c.ProbeEvery = 50 * time.Millisecond })
	a.observe()
	a.sql("alter system set session_preload_libraries = 'nosuch'")
	a.sql("select pg_reload_conf()")
	until(t, "word of it", func() bool {
		o := a.observe()
		return strings.Contains(o.Refused, `could not access file "nosuch"`) && o.State == cluster.PostgresPrimary
	})
	a.sql("alter system reset session_preload_libraries")
	a.sql("select pg_reload_conf()")
	until(t, "all well", func() bool { return a.observe().Refused == "" })
}
