package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// witness gathers what must never be.
type witness struct {
	mu     sync.Mutex
	wrong  []string
	counts map[string]int // of turns and of errors
	killed atomic.Int64   // orders to kill everybody: odd while one is under way
}

func (w *witness) violation(format string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) < 30 {
		w.wrong = append(w.wrong, fmt.Sprintf(format, a...))
	}
}

func (w *witness) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// tagged is a client that does anything at all, and holds every answer against what
// only it can have.
type tagged struct {
	*witness
	*state
	dsn      string
	begun    map[string]string
	r        *rand.Rand
	conn     *pgconn.PgConn
	n        int
	among    int             // so many
	open     map[string]bool // prepared statements that were not closed
	asks     bool            // for last values, on this connection: from then on it keeps the server in which it inserts
	cancels  bool            // a request to cancel may be under way
	listened bool            // ever, on this connection
	wronged  bool            // something was not as it must be: the connection is left
	kills    int64           // when it was answered last
	doing    string          // for whoever reads of a violation
	before   []string
}

func (c *tagged) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.conn == nil && !c.connect(ctx) {
			continue
		}
		turn, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		c.turn(turn)
		if c.conn != nil && c.wronged {
			_ = c.conn.Close(turn)
		}
		cancel()
		if c.conn != nil && c.conn.IsClosed() {
			c.conn = nil
		}
	}
	if c.conn != nil {
		_ = c.conn.Close(context.WithoutCancel(ctx))
	}
}

func (c *tagged) connect(ctx context.Context) bool {
	cfg, err := pgconn.ParseConfig(c.dsn)
	if err != nil {
		panic(err)
	}
	c.state, c.cancels, c.listened, c.open, c.wronged, c.asks = newState(c.state.id, c.begun), false, false, map[string]bool{}, false, false
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) {
		if !c.listened || n.Channel != c.channel() || n.Payload != "for "+c.channel() {
			c.bad("notified %q on %s", n.Payload, n.Channel)
		}
	}
	dial, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if c.conn, err = pgconn.ConnectConfig(dial, cfg); err != nil {
		c.conn = nil
		if ctx.Err() == nil {
			c.note("log-in")
			c.failed(err)
		}
		return false
	}
	c.kills = c.killed.Load()
	c.note("--- a new connection")
	return true
}

func (c *tagged) note(what string) {
	if what == look {
		what = "look"
	}
	c.doing = what
	c.before = append(c.before[max(0, len(c.before)-20):], what)
}

func (c *tagged) bad(format string, a ...any) {
	if c.wronged { // this follows from that
		return
	}
	c.wronged = true
	c.violation("client %d, %s: %s\n  before: %s", c.state.id, c.doing, fmt.Sprintf(format, a...), strings.Join(c.before, "\n          "))
}

// failed judges an error that the client did not ask for: it tells of a lost server,
// and of nothing else.
func (c *tagged) failed(err error) {
	var pg *pgconn.PgError
	switch {
	case !errors.As(err, &pg):
		c.count("error without a word")
		// What a driver could not write hides what it was told; and in the middle of a message
		// nothing can be said.
		if !strings.HasPrefix(c.doing, "copy") && !strings.HasPrefix(c.doing, "select repeat") {
			c.bad("ended without a word: %v", err)
		}
	case pg.Code == "57014" && c.cancels:
		c.count("cancelled")
	case pg.Code == "40001", pg.Code == "08007":
		c.count(pg.Code)
		c.lost = true
	case pg.Code == "57P01" && c.doing == "selec": // nobody knows what that leaves behind, until it has failed
		c.count(pg.Code)
	case pg.Code == "57P01" && c.killing(), (pg.Code == "57P01" || pg.Code == "08006") && (c.sticks || c.asks):
		c.count(pg.Code)
	default:
		c.bad("%v", err)
	}
	c.settle()
}

// killing says whether everybody is killed, or was since the client was answered last.
func (c *tagged) killing() bool {
	n := c.killed.Load()
	return n%2 == 1 || n != c.kills
}

// settle follows what has become of the transaction behind an error.
func (c *tagged) settle() {
	if c.lost = c.lost && c.inTx(); c.conn != nil && !c.conn.IsClosed() && c.inTx() && c.conn.TxStatus() == 'I' {
		c.rollback()
	}
}

// do runs a statement by any protocol; err is none but for refusals that were
// expected: of the codes in want exactly one must come.
func (c *tagged) do(ctx context.Context, sql, want string) (rows []string, ok bool) {
	res, err := c.ask(ctx, sql)
	var pg *pgconn.PgError
	switch {
	case want != "" && errors.As(err, &pg) && pg.Code == want:
		c.settle()
		return nil, false
	case err != nil:
		c.failed(err)
		return nil, false
	case want != "":
		c.bad("did not fail with %s: %q", want, rows)
	}
	c.cancels, c.kills = false, c.killed.Load()
	for _, r := range res {
		rows = append(rows, string(r[0]))
	}
	return rows, true
}

func (c *tagged) ask(ctx context.Context, sql string) ([][][]byte, error) {
	way := c.r.IntN(3)
	c.note(sql)
	c.before[len(c.before)-1] += []string{"", " (extended)", " (prepared)"}[way]
	switch way {
	case 0:
		res, err := c.conn.Exec(ctx, sql).ReadAll()
		if err != nil || len(res) == 0 {
			return nil, err
		}
		return res[len(res)-1].Rows, nil
	case 1:
		res := c.conn.ExecParams(ctx, sql, nil, nil, nil, nil).Read()
		return res.Rows, res.Err
	}
	return c.askPrepared(ctx, fmt.Sprint("n", c.r.IntN(3)), sql) // each has its own text under it
}

// askPrepared prepares a text, executes and closes it. What failed behind its Parse is
// closed the next time.
func (c *tagged) askPrepared(ctx context.Context, name, sql string) ([][][]byte, error) {
	if c.open[name] {
		if err := c.closes(ctx, name); err != nil {
			return nil, err
		}
	}
	c.open[name] = true
	if _, err := c.conn.Prepare(ctx, name, sql, nil); err != nil {
		return nil, err
	}
	res := c.conn.ExecPrepared(ctx, name, nil, nil, nil).Read()
	if res.Err == nil {
		if res.Err = c.closes(ctx, name); res.Err == nil { // it may be cancelled where it waits for a server
			delete(c.open, name)
		}
	}
	return res.Rows, res.Err
}

// closes closes a prepared statement. The driver's own Deallocate leaves a ReadyForQuery
// unread where that fails.
func (c *tagged) closes(ctx context.Context, name string) error {
	p := c.conn.StartPipeline(ctx)
	p.SendDeallocate(name)
	return c.results(p)
}

// is holds one answer against what it must be.
func (c *tagged) is(rows []string, want string) {
	if len(rows) != 1 || rows[0] != want {
		c.bad("\n  got  %q\n  want %q", rows, want)
	}
}

// knows holds what the driver was told against what is in force.
func (c *tagged) knows() {
	if c.wronged {
		return
	}
	for _, name := range reported {
		if got := c.conn.ParameterStatus(name); got != c.tells(name) {
			c.bad("was told %s = %q, it is %q", name, got, c.tells(name))
		}
	}
}
