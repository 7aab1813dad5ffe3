package soak

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// kinds of clients, each with one turn of its work.
var kinds = []struct {
	name string
	turn func(*client, context.Context) error
}{
	{"autocommit", (*client).autocommit},
	{"explicit", (*client).explicit},
	{"prepared", (*client).prepared},
	{"copy", (*client).copyIn},
	{"reader", (*client).read},
	{"idle", (*client).idle},
	{"canceller", (*client).cancelled},
	{standby, (*client).readOnly},
}

// standby is the kind that uses the read-only port.
const standby = "standby"

// client is one connection that is made again when it ended.
type client struct {
	*ledger
	id      int
	kind    string
	turn    func(*client, context.Context) error
	dsn     string
	pause   time.Duration // between two turns, on average
	longest time.Duration // of an explicit transaction
	conn    *pgconn.PgConn
	seq     int
	acked   int // rows that were acknowledged
	unsure  int // rows that may be there, too
	seen    int // all rows that the session saw at a standby
	r       *rand.Rand
}

func tag(client int) string { return fmt.Sprintf("tag-%d", client) }

// run works until ctx ends; what is under way then is finished.
func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.conn == nil && !c.connect(ctx) {
			continue
		}
		turn, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		err := c.turn(c, turn)
		cancel()
		if err == nil && c.conn.IsClosed() {
			c.violation("client %d: its connection ended without an error", c.id)
		}
		if c.conn.IsClosed() {
			c.ended(c.kind)
			c.conn = nil
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(c.r.Int64N(int64(2 * c.pause)))):
		}
	}
	if c.conn != nil {
		_ = c.conn.Close(context.WithoutCancel(ctx))
	}
}

// connect logs in, and gives the session what only this client has.
func (c *client) connect(ctx context.Context) bool {
	dial, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(dial, c.dsn)
	if err == nil {
		_, err = conn.Exec(dial, "set app.tag = '"+tag(c.id)+"'").ReadAll()
		if c.seen = 0; err == nil && c.kind != standby {
			_, err = conn.Prepare(dial, "ins", "insert into soak.ledger values ($1::text::int, $2::text::int, current_setting('app.tag')) returning client, tag", nil)
		}
		if err != nil {
			_ = conn.Close(dial)
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			c.failed(c.kind, "log-in", err)
			time.Sleep(5 * time.Millisecond)
		}
		return false
	}
	c.conn = conn
	return true
}

// settle writes down what became of rows.
func (c *client) settle(what string, err error, seqs ...int) error {
	if err == nil {
		c.acked += len(seqs)
		c.put(c.id, acked, seqs...)
		return nil
	}
	o := c.failed(c.kind, what, err)
	if o == unknown {
		c.unsure += len(seqs)
	}
	c.put(c.id, o, seqs...)
	return err
}

func (c *client) next() int { c.seq++; return c.seq }

func (c *client) insert(seq int) string {
	return fmt.Sprintf("insert into soak.ledger values (%d, %d, current_setting('app.tag')) returning client, tag", c.id, seq)
}

// own holds an answer against what only this client may see.
func (c *client) own(rows [][][]byte) {
	for _, r := range rows {
		if string(r[0]) != fmt.Sprint(c.id) || string(r[1]) != tag(c.id) {
			c.violation("client %d was answered %q", c.id, r)
		}
	}
	if len(rows) != 1 {
		c.violation("client %d was answered %d rows instead of one", c.id, len(rows))
	}
}

func (c *client) autocommit(ctx context.Context) error {
	seq := c.next()
	res, err := c.conn.Exec(ctx, c.insert(seq)).ReadAll()
	if err == nil {
		c.own(res[0].Rows)
	}
	return c.settle("insert", err, seq)
}

func (c *client) prepared(ctx context.Context) error {
	seq := c.next()
	res := c.conn.ExecPrepared(ctx, "ins", [][]byte{fmt.Append(nil, c.id), fmt.Append(nil, seq)}, nil, nil).Read()
	if res.Err == nil {
		c.own(res.Rows)
	}
	return c.settle("execute", res.Err, seq)
}

// explicit is a transaction of two rows that lasts a while.
func (c *client) explicit(ctx context.Context) error {
	one, two := c.next(), c.next()
	lasts := time.Duration(c.r.Int64N(int64(300*time.Millisecond))) + 10*time.Millisecond
	if c.longest > 0 && c.r.IntN(20) == 0 {
		lasts = c.longest / time.Duration(1+9*c.r.IntN(2)) // or a tenth of it
	}
	for i, sql := range []string{"begin", c.insert(one), "", c.insert(two)} {
		if sql == "" {
			time.Sleep(lasts)
			continue
		}
		res, err := c.conn.Exec(ctx, sql).ReadAll()
		if err != nil {
			c.failed(c.kind, "transaction", err)
			c.put(c.id, refused, one, two) // COMMIT was never sent
			return c.giveUp(ctx, err)
		}
		if i > 0 {
			c.own(res[0].Rows)
		}
	}
	res, err := c.conn.Exec(ctx, "commit").ReadAll()
	if err == nil && res[0].CommandTag.String() != "COMMIT" {
		c.violation("client %d: COMMIT was answered %s", c.id, res[0].CommandTag)
	}
	return c.settle("commit", err, one, two)
}

// giveUp ends a transaction whose session lives on.
func (c *client) giveUp(ctx context.Context, err error) error {
	if !c.conn.IsClosed() && c.conn.TxStatus() != 'I' {
		if _, err := c.conn.Exec(ctx, "rollback").ReadAll(); err != nil {
			c.failed(c.kind, "rollback", err)
		}
	}
	return err
}

// copyIn writes five rows by one COPY. What ended an idle session is asked for
// first: the driver's CopyFrom does not tell it.
func (c *client) copyIn(ctx context.Context) error {
	if err := c.idle(ctx); err != nil {
		return err
	}
	var b bytes.Buffer
	var seqs []int
	for range 5 {
		seqs = append(seqs, c.next())
		fmt.Fprintf(&b, "%d\t%d\t%s\n", c.id, c.seq, tag(c.id))
	}
	done, err := c.conn.CopyFrom(ctx, &b, "copy soak.ledger from stdin")
	if err == nil && done.RowsAffected() != 5 {
		c.violation("client %d: COPY was answered %s", c.id, done)
	}
	return c.settle("copy", err, seqs...)
}

// read writes and reads what it wrote, both by the setting of its session.
func (c *client) read(ctx context.Context) error {
	if err := c.autocommit(ctx); err != nil {
		return err
	}
	res, err := c.conn.Exec(ctx, fmt.Sprintf("select %d, current_setting('app.tag'), count(*), repeat(current_setting('app.tag')||' ', 3000) from soak.ledger where client = %d and tag = current_setting('app.tag')", c.id, c.id)).ReadAll()
	if err != nil {
		c.failed(c.kind, "select", err)
		return err
	}
	c.own(res[0].Rows)
	if want := strings.Repeat(tag(c.id)+" ", 3000); string(res[0].Rows[0][3]) != want {
		c.violation("client %d reads a long value that is not its own: %.60q", c.id, res[0].Rows[0][3])
	}
	var n int
	if _, err := fmt.Sscan(string(res[0].Rows[0][2]), &n); err != nil || n < c.acked || n > c.acked+c.unsure {
		c.violation("client %d reads %s rows, %d were acknowledged and %d may be there, too", c.id, res[0].Rows[0][2], c.acked, c.unsure)
	}
	return nil
}

// readOnly reads at a standby, by itself or in a transaction. What a session has seen
// there it sees again.
func (c *client) readOnly(ctx context.Context) error {
	look := fmt.Sprintf("select %d, current_setting('app.tag'), count(*) from soak.ledger", c.id)
	turn := []string{look}
	if c.r.IntN(2) == 0 {
		turn = []string{"begin", look, "select pg_sleep(0.02)", look, "commit"}
	}
	for _, sql := range turn {
		res, err := c.conn.Exec(ctx, sql).ReadAll()
		if err != nil {
			c.failed(c.kind, "read", err)
			return c.giveUp(ctx, err)
		}
		if sql != look {
			continue
		}
		c.own(res[0].Rows)
		var n int
		if _, err := fmt.Sscan(string(res[0].Rows[0][2]), &n); err != nil || n < c.seen {
			c.violation("client %d reads %s rows at a standby where it has seen %d", c.id, res[0].Rows[0][2], c.seen)
		}
		c.seen = n
	}
	return nil
}

// cancelled asks for something that takes a moment and cancels it at any time,
// also too late: whatever runs then is not this client's and goes on.
func (c *client) cancelled(ctx context.Context) error {
	asked := make(chan error, 1)
	conn, after := c.conn, time.Duration(c.r.Int64N(int64(20*time.Millisecond)))
	go func() {
		time.Sleep(after)
		asked <- conn.CancelRequest(ctx)
	}()
	res, err := c.conn.Exec(ctx, fmt.Sprintf("select %d, current_setting('app.tag'), pg_sleep(0.01)", c.id)).ReadAll()
	<-asked // a proxy that went away has ended the session, too
	if err == nil {
		c.own(res[0].Rows)
		return nil
	}
	if code, _ := judge(err); code == "57014" {
		return nil
	}
	c.failed(c.kind, "select", err)
	return err
}

// idle asks seldom, so that a switchover finds it doing nothing.
func (c *client) idle(ctx context.Context) error {
	res, err := c.conn.Exec(ctx, fmt.Sprintf("select %d, current_setting('app.tag')", c.id)).ReadAll()
	if err != nil {
		c.failed(c.kind, "select", err)
		return err
	}
	c.own(res[0].Rows)
	return nil
}
