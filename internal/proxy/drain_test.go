package proxy_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// told are the answers that the leader's agent was given.
type told struct {
	mu    sync.Mutex
	all   []cluster.DrainAnswer
	fails int // so many of them
}

func (a *told) answer(_ context.Context, d *route.Drain, x cluster.DrainAnswer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fails > 0 {
		a.fails--
		return errors.New("refused")
	}
	if d.Agent == "" || d.Leader != "master" {
		return errors.New("asked of nobody")
	}
	a.all = append(a.all, x)
	return nil
}

func (a *told) last() (x cluster.DrainAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) > 0 {
		x = a.all[len(a.all)-1]
	}
	return x
}

// drained starts a proxy whose answers are heard.
func drained(t *testing.T, mode rules.Mode, change func(*proxy.Config)) (*fixture, *told) {
	t.Helper()
	a := &told{}
	f := pooled(t, mode, 5, func(c *proxy.Config) {
		c.AnswerDrain = a.answer
		if change != nil {
			change(c)
		}
	})
	return f, a
}

// drain announces a switchover of epoch 7.
func (f *fixture) drain(id string, rev int64, hold bool, holdFor time.Duration) {
	v := f.view(7)
	v.Drain = &route.Drain{Drain: cluster.Drain{ID: id, Epoch: 7, To: "slave", SoftMS: 300, HoldMS: holdFor.Milliseconds(), ForMS: 5000, Hold: hold},
		Rev: rev, Leader: "master", Agent: "master:7400"}
	f.top.Set(v)
}

// execs runs a statement in the background.
func execs(t *testing.T, c *pgx.Conn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), sql)
		done <- err
	}()
	return done
}

func held(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Errorf("%s is not held: %v", what, err)
	case <-time.After(100 * time.Millisecond): // long enough for one that is not
	}
}

func must(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// A switchover: what is under way ends, what is new waits for the new primary, and the
// leader's agent hears of each step. Nobody sees an error, or loses what it has set or
// prepared.
func TestSwitchoverIsNotNoticed(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Transaction, rules.Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			f, answers := drained(t, mode, nil)
			answers.fails = 3
			role := f.role(t, "login password 'x'")
			dsn := f.dsn(session.ReadWrite, role, "x", "sslmode=disable")
			idle, tx, busy := connect(t, dsn), connect(t, dsn), connect(t, dsn)
			must(t, idle, "set datestyle = 'german'")
			if _, err := idle.Prepare(t.Context(), "st", "select current_setting('DateStyle') || $1::text"); err != nil {
				t.Fatal(err)
			}
			must(t, tx, "begin")
			slow := execs(t, busy, "select pg_sleep(0.5)")
			eventually(t, "it is asked", func() bool { return f.Status().Primary.Sessions >= 2 })

			f.drain("d1", 5, false, time.Minute)
			eventually(t, "the agent is told of the first phase", func() bool {
				return answers.last() == cluster.DrainAnswer{ID: "d1", Rev: 5, Open: 2}
			})
			must(t, connect(t, dsn), "select 1") // all goes on
			f.drain("d1", 6, true, time.Minute)
			eventually(t, "the agent is told of the hold", func() bool { a := answers.last(); return a.Hold && a.Rev == 6 && a.Open > 0 })
			asks := execs(t, idle, "insert into pg_temp.none values (1)")
			late := make(chan error, 1)
			go func() { // its settings are new here: PostgreSQL is asked at its log-in
				c, err := pgx.Connect(t.Context(), dsn+"&work_mem=7MB")
				if err == nil {
					err = c.Close(t.Context())
				}
				late <- err
			}()
			held(t, "a statement", asks)
			held(t, "a log-in", late)
			must(t, tx, "select 1") // its transaction goes on
			must(t, tx, "commit")
			if err := <-slow; err != nil {
				t.Errorf("what was under way: %v", err)
			}
			eventually(t, "nothing is open", func() bool { return answers.last() == cluster.DrainAnswer{ID: "d1", Rev: 6, Hold: true} })

			f.top.Set(gap())
			held(t, "a statement while nobody leads", asks)
			f.top.Set(f.view(8))
			if err := <-asks; code(err) != "42P01" { // asked once, of the new primary
				t.Errorf("the held statement: %v", err)
			}
			if err := <-late; err != nil {
				t.Errorf("the held log-in: %v", err)
			}
			var who string
			if err := idle.QueryRow(t.Context(), "st", " it is").Scan(&who); err != nil || who != "German, DMY it is" {
				t.Errorf("settings and statements: %q, %v", who, err)
			}
			for _, c := range []*pgx.Conn{idle, tx, busy} {
				must(t, c, "select 1")
			}
		})
	}
}

// When the hold's time is up: a transaction that is open gets 40001 and its session
// lives; who keeps its server is told why.
func TestHoldIsOver(t *testing.T) {
	f, answers := drained(t, rules.Auto, nil)
	role := f.role(t, "login password 'x'")
	dsn := f.dsn(session.ReadWrite, role, "x", "sslmode=disable")
	open, busy, pinned := connect(t, dsn), connect(t, dsn), connect(t, dsn)
	must(t, open, "begin")
	must(t, busy, "begin")
	must(t, pinned, "listen something")
	raw, err := pinned.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Conn.Close()
	f.drain("d1", 6, true, 300*time.Millisecond)
	eventually(t, "the hold", func() bool { return answers.last().Hold })
	slow := execs(t, busy, "select pg_sleep(0.6)")
	e := lastWords(t, raw.Conn)
	if e.Code != "57P01" || e.Severity != "FATAL" || !strings.Contains(e.Message, "the primary changes, and this session keeps its server: LISTEN") {
		t.Errorf("pinned: %+v", e)
	}
	if err := <-slow; err != nil {
		t.Errorf("a statement under way: %v", err)
	}
	eventually(t, "nothing is open", func() bool { return answers.last().Open == 0 })
	for _, c := range []*pgx.Conn{open, busy} {
		if _, err := c.Exec(t.Context(), "select 1"); code(err) != "40001" {
			t.Errorf("an open transaction: %v", err)
		}
		must(t, c, "rollback")
	}
	f.top.Set(f.view(8))
	must(t, open, "select 1")
	must(t, busy, "select 1")
}

// Sessions that have their own server are told why, and replaced by ones at the new
// primary; readers at standbys hear nothing of it.
func TestSwitchoverOfSessions(t *testing.T) {
	f, answers := drained(t, rules.Session, nil)
	role := f.role(t, "login password 'x'")
	own := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	reader := connect(t, f.dsn(session.ReadOnly, role, "x", "sslmode=disable"))
	f.drain("d1", 6, true, time.Minute)
	eventually(t, "the hold", func() bool { return answers.last().Hold })
	asks := execs(t, own, "select 1")
	held(t, "a session's statement", asks)
	query[int](t, reader, "select 1")
	f.top.Set(gap())
	if err := <-asks; code(err) != "57P01" || !strings.Contains(err.Error(), "this session keeps its server: its pool's mode is session") {
		t.Errorf("a session: %v", err)
	}
	f.top.Set(f.view(8))
	query[int](t, reader, "select 1")
	query[int](t, connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable")), "select 1")
}

// A drain that is withdrawn, or that nobody renews, ends where it began: with the same
// sockets, on the same servers.
func TestSwitchoverIsCalledOff(t *testing.T) {
	f, answers := drained(t, rules.Auto, func(c *proxy.Config) { c.Pool.Default.Size = 1; c.DrainGrace = 100 * time.Millisecond })
	role := f.role(t, "login password 'x'")
	one := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	pid := query[int](t, one, "select pg_backend_pid()")
	f.drain("d1", 6, true, time.Minute)
	eventually(t, "the hold", func() bool { return answers.last().Hold })
	asks := execs(t, one, "select 1")
	held(t, "a statement", asks)
	f.top.Set(f.view(7))
	if err := <-asks; err != nil {
		t.Error(err)
	}
	if now := query[int](t, one, "select pg_backend_pid()"); now != pid {
		t.Errorf("served by %d, before by %d", now, pid)
	}
	v := f.view(7)
	v.Drain = &route.Drain{Drain: cluster.Drain{ID: "d2", Epoch: 7, HoldMS: 100, ForMS: 300, Hold: true}, Rev: 8, Leader: "master", Agent: "master:7400"}
	f.top.Set(v)
	eventually(t, "the second hold", func() bool { a := answers.last(); return a.Hold && a.ID == "d2" })
	if err := <-execs(t, one, "select 1"); err != nil { // held for 400 ms and no longer
		t.Error(err)
	}
}

// A statement that wrote and was ended by the primary's fast stop: it was rolled back,
// is told so, and its session lives.
func TestWriteEndedByTheStop(t *testing.T) {
	f, _ := drained(t, rules.Auto, nil)
	role := f.role(t, "login password 'x'")
	f.admin(t, "create table ended(i int); grant all on ended to "+role)
	f.afterwards(t, "drop table ended")
	c := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	admin := connect(t, superuser(f.primary.addr()))
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "insert into ended select 1 from pg_sleep(30)", mode)
			done <- err
		}()
		eventually(t, "it is ended", func() bool {
			return query[int](t, admin, "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1 and wait_event = 'PgSleep'", role) == 1
		})
		var e *pgconn.PgError
		if err := <-done; !errors.As(err, &e) || e.Code != "40001" || e.Severity != "ERROR" {
			t.Errorf("%v: %v", mode, err)
		}
		if n := query[int](t, c, "select count(*) from ended"); n != 0 {
			t.Errorf("%d rows of a statement that was rolled back", n)
		}
	}
}

// Nobody is told twice that its connection ends.
func TestOneFatalOnly(t *testing.T) {
	f, answers := drained(t, rules.Session, nil)
	role := f.role(t, "login password 'x'")
	raw, err := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable")).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Conn.Close()
	f.drain("d1", 6, true, 50*time.Millisecond)
	eventually(t, "the hold", func() bool { return answers.last().Hold })
	f.admin(t, "select pg_terminate_backend(pid) from pg_stat_activity where usename = '"+role+"'")
	f.top.Set(gap())
	raw.Conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var fatal []string
	for {
		typ, body, err := wire.ReadMessage(raw.Conn, 1<<20)
		if err != nil {
			break
		}
		if typ == wire.TypeError {
			fatal = append(fatal, wire.ParseError(body).Message)
		}
	}
	if len(fatal) != 1 {
		t.Errorf("last words: %q", fatal)
	}
}

// The agent waits for the hold's answer: it comes at once, also right behind that of a
// count, which is not told again for a while.
func TestHoldIsAnsweredAtOnce(t *testing.T) {
	f, answers := drained(t, rules.Auto, nil)
	c := connect(t, f.dsn(session.ReadWrite, f.role(t, "login password 'x'"), "x", "sslmode=disable"))
	best := time.Hour
	for i := range int64(5) { // one of them is not slowed down by others
		id := string(rune('a' + i))
		f.drain(id, 10*i+1, false, time.Minute)
		eventually(t, "the agent is told of the drain", func() bool { return answers.last() == cluster.DrainAnswer{ID: id, Rev: 10*i + 1} })
		must(t, c, "begin")
		eventually(t, "and of a count", func() bool { return answers.last().Open == 1 })
		began := time.Now()
		f.drain(id, 10*i+2, true, time.Minute)
		eventually(t, "and of the hold", func() bool { return answers.last().Hold })
		best = min(best, time.Since(began))
		must(t, c, "rollback")
		f.top.Set(f.view(7))
	}
	if best > 100*time.Millisecond {
		t.Errorf("the hold was answered after %s at best", best)
	}
}
