package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/postgres/pgtest"
)

// hostileOwner: whoever owns database postgres hijacks none of the herd's
// sessions there: agents, look-ups, positions, backup, archive check, rewind.
func hostileOwner(t *testing.T) {
	e := shared(t, 3*time.Minute)
	old := e.healthy()
	dsn := e.NodeDSN(old.Primary)
	marks := map[string]func() string{}
	for _, n := range []string{"master", "slave"} {
		marks[n] = e.logFrom(n, "postgresql")
	}
	e.value(dsn, strings.Join(pgtest.Hostile, ";\n"))
	const unharmed = " options='-c search_path=pg_catalog -c role=none -c session_authorization=postgres -c default_transaction_read_only=off -c statement_timeout=0'"
	defer func() {
		for _, q := range pgtest.Tame {
			s, err := e.Status(e.ctx)
			if err == nil {
				_, err = e.Value(e.ctx, e.NodeDSN(s.Primary)+unharmed, q)
			}
			if err != nil {
				t.Errorf("%s: %v", q, err)
			}
		}
	}()
	app := strings.Replace(e.DSN(), "user=postgres", "user=app", 1)
	app = app[:strings.Index(app, " password=")] + " password=app"
	safe := " options='-c search_path=pg_catalog -c default_transaction_read_only=off -c role=none -c session_authorization=app -c statement_timeout=0'"
	e.value(app+safe, "select 1")
	e.ok(e.manada("backup", "--type", "incr"))
	e.ok(e.face("--stanza=herd", "check"))
	if err := e.KillPostmaster(old.Primary); err != nil {
		t.Fatal(err)
	}
	e.takenOver(old)
	e.healthy()
	e.value(app+safe, "select 1")
	for n, log := range marks {
		for _, line := range strings.Split(log(), "\n") {
			if strings.Contains(line, pgtest.Hijacked+" by") && !strings.Contains(line, "app@") {
				t.Errorf("%s: %s", n, line)
			}
		}
	}
	s := e.healthy()
	if v := e.value(e.NodeDSN(s.Primary)+unharmed, "select rolsuper from pg_roles where rolname = 'app'"); v != "f" {
		t.Error("app has become a superuser")
	}
}

// hog keeps every connection of a node that it can get, and takes those back
// that it loses.
func (e *env) hog(ctx context.Context, dsn string, n int) *atomic.Int64 {
	var held atomic.Int64
	for range n {
		go func() {
			for ctx.Err() == nil {
				c, err := pgconn.Connect(ctx, dsn)
				if err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(50 * time.Millisecond):
					}
					continue
				}
				held.Add(1)
				_ = c.WaitForNotification(ctx) // until the session ends
				held.Add(-1)
				c.Conn().Close()
			}
		}()
	}
	return &held
}

// connectionsTaken: an ordinary role holds every connection of both nodes and
// takes back what it loses. Failover, rewind, backup and look-ups go on.
func connectionsTaken(t *testing.T) {
	e := shared(t, 4*time.Minute)
	old := e.healthy()
	e.value(e.DSN(), "create role hog login password 'hog'")
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	as := func(dsn string) string {
		return strings.Replace(strings.Replace(dsn, "user=postgres", "user=hog", 1), "password='"+e.Password()+"'", "password=hog", 1)
	}
	for _, n := range []string{"master", "slave"} {
		held := e.hog(ctx, as(e.NodeDSN(n)), 200)
		e.eventually(time.Minute, "connections of "+n+" taken", func() string {
			if h := held.Load(); h < 185 {
				return fmt.Sprint(h)
			}
			return ""
		})
	}
	e.eventually(20*time.Second, "word of it", func() string {
		out := e.manada("status").out
		if !strings.Contains(out, "M-P09") || !strings.Contains(out, "hog") {
			return out
		}
		return ""
	})
	if err := e.KillPostmaster(old.Primary); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e.takenOver(old)
	e.healthy()
	t.Logf("synchronous again %d ms after the kill, every connection taken", time.Since(began).Milliseconds())
	e.ok(e.manada("backup", "--type", "incr"))
	if v := e.value(e.DSN(), "select current_user"); v != "postgres" {
		t.Error(v)
	}
	// It finds no connection, or is one of those who are ended to make room.
	if _, err := e.Value(e.ctx, as(e.DSN()), "select 1"); err != nil && !strings.Contains(err.Error(), "53300") && !strings.Contains(err.Error(), "57P01") {
		t.Errorf("a client of the role that holds all connections is told: %v", err)
	}
	stop()
	e.eventually(20*time.Second, "end of the hog", func() string {
		if _, err := e.Value(e.ctx, e.DSN(), "drop role hog"); err != nil {
			return err.Error()
		}
		return ""
	})
}

// newConnectionsFail: nobody gets in any more, sessions that are open go on; it is
// told within 5 s, in PostgreSQL's words, and is no reason to fail over.
func newConnectionsFail(t *testing.T) {
	e := shared(t, time.Minute)
	s := e.healthy()
	c, err := pgconn.Connect(e.ctx, e.NodeDSN(s.Primary))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(e.ctx)
	run := func(q string) {
		t.Helper()
		if _, err := c.Exec(e.ctx, q).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	run("alter system set session_preload_libraries = 'nosuch'")
	putBack := func() {
		run("alter system reset session_preload_libraries")
		run("select pg_reload_conf()")
	}
	defer putBack()
	run("select pg_reload_conf()")
	began := time.Now()
	e.eventually(bound, "word of it", func() string {
		if text := e.manada("status").out; !strings.Contains(text, "M-P08") || !strings.Contains(text, `"nosuch"`) {
			return text
		}
		return ""
	})
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("told after %s", d)
	}
	if r := e.manada("status", "--check"); r.code != 3 {
		t.Errorf("status --check: exit %d", r.code)
	}
	putBack()
	e.eventually(bound, "end of it", func() string {
		if out := e.manada("status").out; strings.Contains(out, "M-P08") {
			return out
		}
		return ""
	})
	if now := e.healthy(); now.Epoch != s.Epoch {
		t.Errorf("epoch %d became %d", s.Epoch, now.Epoch)
	}
}
