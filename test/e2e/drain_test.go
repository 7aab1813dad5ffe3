package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// switchoverUnnoticed: clients that share connections keep theirs over a switchover
// and see no error; a transaction that outlasts the hold is told, and who keeps its
// connection learns why it ends.
func switchoverUnnoticed(t *testing.T) {
	e := shared(t, 3*time.Minute)
	first := e.healthy()
	defer e.shareConnections()()
	e.does(e.connection(), "drop table if exists e2e_turns; create table e2e_turns (client text)")
	w := &workers{e: e}
	defer w.end()
	w.begin(12)
	w.more(100)
	long, pinned := e.connection(), e.connection()
	e.does(long, "begin")
	e.does(pinned, "listen something")

	began := time.Now()
	e.ok(e.manada("switchover", standby(first)))
	t.Logf("switched over in %s", time.Since(began).Round(time.Millisecond))
	if s := e.healthy(); s.Primary != standby(first) {
		t.Errorf("the primary is %s", s.Primary)
	}
	if _, err := long.Exec(e.ctx, "select 1").ReadAll(); sqlstate(err) != "40001" || long.IsClosed() {
		t.Errorf("a transaction that outlasts the hold: %v", err)
	}
	e.does(long, "rollback")
	e.does(long, "select 1")
	if _, err := pinned.Exec(e.ctx, "select 1").ReadAll(); sqlstate(err) != "57P01" || !strings.Contains(err.Error(), "this session keeps its server: LISTEN") {
		t.Errorf("a client that keeps its connection: %v", err)
	}
	w.more(100)
	w.end()
	for _, err := range w.errs {
		t.Errorf("a client saw: %v", err)
	}
	if n := e.value(e.DSN(), "select count(*) from e2e_turns"); n != fmt.Sprint(w.turns.Load()) {
		t.Errorf("%s rows are there, %d were acknowledged", n, w.turns.Load())
	}
	e.ok(e.manada("failback"))
	e.healthy()
}

// shareConnections has the clients of the proxy share connections until what it
// returns is called.
func (e *env) shareConnections() (restore func()) {
	e.Helper()
	before, err := os.ReadFile(filepath.Join(e.Data, "proxy", "manada.yaml"))
	if err != nil {
		e.Fatal(err)
	}
	restart := func(text []byte) {
		e.reconfigure("proxy", "proxy", text)
		e.eventually(20*time.Second, "another proxy", func() string {
			c, err := pgconn.Connect(e.ctx, e.DSN())
			if err != nil {
				return err.Error()
			}
			c.Close(e.ctx)
			return ""
		})
	}
	restart(append(bytes.Clone(before), "\nproxy:\n  pool:\n    mode: auto\n"...))
	return func() { restart(before) }
}

// connection is one through the proxy.
func (e *env) connection() *pgconn.PgConn {
	e.Helper()
	c, err := pgconn.Connect(e.ctx, e.DSN())
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { c.Close(e.ctx) })
	return c
}

func (e *env) does(c *pgconn.PgConn, sql string) {
	e.Helper()
	if _, err := c.Exec(e.ctx, sql).ReadAll(); err != nil {
		e.Fatalf("%s: %v", sql, err)
	}
}

func sqlstate(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// workers are clients that write rows, each over one connection, until the first error
// of theirs.
type workers struct {
	e     *env
	turns atomic.Int64 // rows that were acknowledged
	done  atomic.Bool
	all   sync.WaitGroup
	mu    sync.Mutex
	errs  []error
}

func (w *workers) begin(n int) {
	for i := range n {
		c := w.e.connection()
		w.e.does(c, fmt.Sprintf("set app.who = 'client %d'", i))
		w.all.Go(func() {
			if err := w.work(c, i); err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.errs = append(w.errs, fmt.Errorf("client %d: %w", i, err))
			}
		})
	}
}

// work writes with what only this session has: a setting and a prepared statement.
func (w *workers) work(c *pgconn.PgConn, i int) error {
	ctx := w.e.ctx
	if _, err := c.Prepare(ctx, "ins", "insert into e2e_turns values (current_setting('app.who')) returning client", nil); err != nil {
		return err
	}
	for !w.done.Load() {
		if i%2 == 1 {
			if _, err := c.Exec(ctx, "begin").ReadAll(); err != nil {
				return err
			}
		}
		r := c.ExecPrepared(ctx, "ins", nil, nil, nil).Read()
		if r.Err != nil {
			return r.Err
		}
		if got := string(r.Rows[0][0]); got != fmt.Sprintf("client %d", i) {
			return fmt.Errorf("the setting of %s", got)
		}
		time.Sleep(time.Duration(i) * 10 * time.Millisecond)
		if i%2 == 1 {
			if _, err := c.Exec(ctx, "commit").ReadAll(); err != nil {
				return err
			}
		}
		w.turns.Add(1)
	}
	return nil
}

// more waits for that many further rows, or an error.
func (w *workers) more(n int64) {
	w.e.Helper()
	want := w.turns.Load() + n
	w.e.eventually(20*time.Second, "clients at work", func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if now := w.turns.Load(); now < want && len(w.errs) == 0 {
			return fmt.Sprintf("%d of %d", now, want)
		}
		return ""
	})
}

func (w *workers) end() {
	w.done.Store(true)
	w.all.Wait()
}
