package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// turns are what a client does next, by chance; those of the second half only outside
// of a transaction.
var turns = []struct {
	name string
	turn func(*tagged, context.Context)
	tx   bool // also inside of a transaction
	of   int  // how often, of all
}{
	{"look", (*tagged).look, true, 20},
	{"set", (*tagged).setOne, true, 20},
	{"reset", (*tagged).resetOne, true, 6},
	{"begin", (*tagged).beginTx, false, 12},
	{"savepoint", (*tagged).savepoints, true, 4},
	{"end", (*tagged).end, true, 6},
	{"insert", (*tagged).insert, true, 10},
	{"copy in", (*tagged).copyIn, true, 3},
	{"copy out", (*tagged).copyOut, true, 3},
	{"rows", (*tagged).rows, true, 4},
	{"prepared", (*tagged).statements, true, 10},
	{"prepare", (*tagged).sqlPrepare, true, 2},
	{"temporary", (*tagged).temporary, true, 3},
	{"lock", (*tagged).lock, true, 2},
	{"sequence", (*tagged).sequence, false, 4},
	{"listen", (*tagged).listen, false, 2},
	{"notify", (*tagged).notify, true, 4},
	{"cursor", (*tagged).hold, false, 2},
	{"hide", (*tagged).hide, true, 2},
	{"fail", (*tagged).fail, true, 5},
	{"batch", (*tagged).batch, false, 6},
	{"cancel", (*tagged).cancel, false, 4},
	{"discard", (*tagged).discard, false, 2},
	{"leave", (*tagged).leave, true, 3},
	{"vanish", (*tagged).vanish, true, 1},
}

func (c *tagged) turn(ctx context.Context) {
	if c.conn.TxStatus() == 'E' || c.inTx() && c.r.IntN(6) == 0 {
		c.end(ctx)
		return
	}
	if c.sticks && !c.inTx() && c.r.IntN(8) == 0 { // somebody waits for the connection
		c.discard(ctx)
		return
	}
	all := 0
	for _, t := range turns {
		all += t.of
	}
	n := c.r.IntN(all)
	for _, t := range turns {
		if n -= t.of; n < 0 {
			if t.tx || !c.inTx() {
				c.count("turn " + t.name)
				t.turn(c, ctx)
			}
			break
		}
	}
	if c.conn != nil && !c.conn.IsClosed() && c.conn.TxStatus() != 'E' {
		c.knows()
	}
}

func (c *tagged) look(ctx context.Context) {
	if got, ok := c.do(ctx, look, ""); ok {
		c.is(got, c.looks())
	}
}

// value is one that only this client gives, where there are enough of them.
func (c *tagged) value(name string) string {
	c.n++
	pick := func(of ...string) string { return of[c.r.IntN(len(of))] }
	switch id := c.state.id; name {
	case "app.tenant":
		return fmt.Sprintf("t%d.%d", id, c.n)
	case "application_name":
		return fmt.Sprintf("a%d.%d", id, c.n)
	case "DateStyle":
		return pick("ISO, MDY", "ISO, DMY", "German, DMY", "SQL, DMY", "SQL, MDY", "Postgres, DMY")
	case "TimeZone":
		return fmt.Sprintf("Etc/GMT-%d", id%14)
	case "IntervalStyle":
		return pick("postgres", "iso_8601", "sql_standard", "postgres_verbose")
	case "search_path":
		return fmt.Sprintf(pick("s%d, public", "s%d"), id)
	case "work_mem":
		return fmt.Sprintf("%dkB", 2049+id)
	case "lock_timeout":
		return fmt.Sprintf("%dms", 100001+10*id)
	case "role":
		return pick("none", fmt.Sprint("tagged_", id))
	}
	return pick("on", "off")
}

// setOne sets something, in one of the ways there are.
func (c *tagged) setOne(ctx context.Context) {
	name := settings[c.r.IntN(len(settings)-1)]
	if name == "role" && c.r.IntN(3) > 0 { // it keeps its connection
		return
	}
	value, local := c.value(name), c.inTx() && c.r.IntN(3) == 0
	sql := fmt.Sprintf("select set_config('%s', '%s', %v)", name, value, local)
	if c.r.IntN(3) > 0 {
		sql = setting("set ", name, value)
		if local {
			sql = setting("set local ", name, value)
		}
	}
	c.sticks = c.sticks || name == "role"
	if _, ok := c.do(ctx, sql, ""); ok {
		c.set(name, value, local)
	}
}

func setting(how, name, value string) string {
	if name == "search_path" {
		return how + name + " = " + value
	}
	return how + name + " = '" + value + "'"
}

func (c *tagged) resetOne(ctx context.Context) {
	name := settings[c.r.IntN(len(settings))]
	c.sticks = c.sticks || name == "role"
	switch c.r.IntN(4) {
	case 0:
		if _, ok := c.do(ctx, "reset all", ""); ok {
			c.resetAll()
		}
	case 1:
		if _, ok := c.do(ctx, "set "+name+" to default", ""); ok {
			c.set(name, c.begun[name], false)
		}
	default:
		if _, ok := c.do(ctx, "reset "+name, ""); ok {
			c.set(name, c.begun[name], false)
		}
	}
}

func (c *tagged) beginTx(ctx context.Context) {
	if _, ok := c.do(ctx, "begin", ""); ok {
		c.begin()
	}
}

func (c *tagged) savepoints(ctx context.Context) {
	if !c.inTx() {
		return
	}
	if len(c.saved) > 1 && c.r.IntN(2) == 0 {
		c.backTo(ctx)
	} else if _, ok := c.do(ctx, "savepoint s", ""); ok {
		c.savepoint()
	}
}

func (c *tagged) backTo(ctx context.Context) {
	if _, ok := c.do(ctx, "rollback to s", ""); ok {
		c.rollbackTo()
	}
}

// end ends a transaction, if one is open.
func (c *tagged) end(ctx context.Context) {
	if !c.inTx() {
		return
	}
	failed := c.conn.TxStatus() == 'E'
	if failed && !c.lost && len(c.saved) > 1 && c.r.IntN(2) == 0 {
		c.backTo(ctx)
		return
	}
	sql := "commit"
	if failed || c.r.IntN(3) == 0 {
		sql = "rollback"
	}
	switch _, ok := c.do(ctx, sql, ""); {
	case !ok:
	case sql == "commit":
		c.commit()
	default:
		c.rollback()
	}
}

// writes is the code with which a write has to fail.
func (c *tagged) writes() string {
	if c.mayNotWrite() {
		return "25006"
	}
	return ""
}

func (c *tagged) insert(ctx context.Context) {
	c.n++
	sql := fmt.Sprintf("insert into public.rows(client, n) values (%d, %d) returning concat_ws('|', client, n, tenant, app, who, path)", c.state.id, c.n)
	if got, ok := c.do(ctx, sql, c.writes()); ok {
		who := c.get("role")
		if who == "none" {
			who = "pool"
		}
		c.is(got, fmt.Sprintf("%d|%d|%s|%s|%s|%s", c.state.id, c.n, c.get("app.tenant"), c.get("application_name"), who, c.get("search_path")))
	}
}

func (c *tagged) copyIn(ctx context.Context) {
	if c.mayNotWrite() {
		return
	}
	var b bytes.Buffer
	k := 1 + c.r.IntN(50)
	for range k {
		c.n++
		fmt.Fprintf(&b, "%d\t%d\n", c.state.id, c.n)
	}
	c.note("copy in")
	tag, err := c.conn.CopyFrom(ctx, &b, "copy public.rows(client, n) from stdin")
	if err != nil {
		c.failed(err)
	} else if tag.RowsAffected() != int64(k) {
		c.bad("%s instead of %d", tag, k)
	}
}

func (c *tagged) copyOut(ctx context.Context) {
	var b bytes.Buffer
	c.note("copy out")
	if _, err := c.conn.CopyTo(ctx, &b, "copy ("+look+") to stdout"); err != nil {
		c.failed(err)
		return
	}
	c.is([]string{b.String()}, c.looks()+"\n")
}

// rows are many that bear the client's number.
func (c *tagged) rows(ctx context.Context) {
	one := strings.Repeat(fmt.Sprint(c.state.id, "."), 200)
	n := 1 + c.r.IntN(300)
	got, ok := c.do(ctx, fmt.Sprintf("select repeat('%d.', 200) from generate_series(1, %d)", c.state.id, n), "")
	if ok && (len(got) != n || slices.ContainsFunc(got, func(s string) bool { return s != one })) {
		c.bad("%d rows instead of %d, or somebody else's", len(got), n)
	}
}

// statements are the protocol's: others have others under these names, and the same
// under other names.
func (c *tagged) statements(ctx context.Context) {
	name, kind := fmt.Sprint("st", c.r.IntN(3)), fmt.Sprint("kind ", c.r.IntN(5))
	sql := "select '" + kind + "' || $1 || coalesce(current_setting('app.tenant', true), '')"
	c.note(name + ": " + sql)
	var err error
	if have, ok := c.stmts[name]; ok && c.r.IntN(4) > 0 {
		res := c.conn.ExecPrepared(ctx, name, [][]byte{fmt.Append(nil, " for ", c.state.id, " ")}, nil, nil).Read()
		if err = res.Err; err == nil {
			c.is([]string{string(res.Rows[0][0])}, fmt.Sprintf("%s for %d %s", have, c.state.id, c.get("app.tenant")))
		}
	} else if ok {
		if err = c.closes(ctx, name); err == nil {
			delete(c.stmts, name)
		}
	} else if _, err = c.conn.Prepare(ctx, name, sql, nil); err == nil {
		c.stmts[name] = kind
	}
	if err != nil {
		c.failed(err)
	}
}

func (c *tagged) sqlPrepare(ctx context.Context) {
	c.n++
	mine := fmt.Sprintf("q%d.%d", c.state.id, c.n)
	c.sticks = true
	switch {
	case c.prepared == "" && c.r.IntN(2) == 0:
		c.do(ctx, "execute q", "26000")
	case c.prepared == "":
		if _, ok := c.do(ctx, "prepare q as select '"+mine+"'", ""); ok {
			c.prepared = mine
		}
	case c.r.IntN(3) == 0:
		if _, ok := c.do(ctx, "deallocate q", ""); ok {
			c.prepared = ""
		}
	default:
		if got, ok := c.do(ctx, "execute q", ""); ok {
			c.is(got, c.prepared)
		}
	}
}

func (c *tagged) temporary(ctx context.Context) {
	mine := fmt.Sprint("client ", c.state.id)
	c.sticks = true
	switch {
	case !c.temp && c.r.IntN(2) == 0:
		c.do(ctx, "select who from pg_temp.tmp", "42P01")
	case !c.temp:
		if _, ok := c.do(ctx, "create temp table tmp as select '"+mine+"'::text as who", c.writes()); ok {
			c.temp = true
		}
	case c.get("role") != "none" || c.mayNotWrite(): // it may be another role's
	case c.r.IntN(3) == 0:
		if _, ok := c.do(ctx, "drop table pg_temp.tmp", ""); ok {
			c.temp = false
		}
	default:
		if got, ok := c.do(ctx, "select who from pg_temp.tmp", ""); ok {
			c.is(got, mine)
		}
	}
}

// lock takes one that no other client takes; it stays over a rollback.
func (c *tagged) lock(ctx context.Context) {
	l := c.state.id + 1000*c.r.IntN(3)
	c.sticks = true
	if i := slices.Index(c.locks, l); i >= 0 {
		if got, ok := c.do(ctx, fmt.Sprintf("select pg_advisory_unlock(%d)", l), ""); ok {
			c.is(got, "t")
			c.locks = slices.Delete(c.locks, i, i+1)
		}
	} else if got, ok := c.locksAtLast(ctx, l); ok {
		c.is(got, "t")
		c.locks = append(c.locks, l)
	}
}

// locksAtLast waits until a server that the client has left in a transaction is gone: it may
// have the lock.
func (c *tagged) locksAtLast(ctx context.Context, l int) (got []string, ok bool) {
	for range 500 {
		got, ok = c.do(ctx, fmt.Sprintf("select pg_try_advisory_lock(%d)", l), "")
		if !ok || got[0] == "t" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return got, ok
}

// cancel asks for the end of what runs, also too late.
func (c *tagged) cancel(ctx context.Context) {
	c.cancels = true
	conn, after := c.conn, time.Duration(c.r.Int64N(int64(6*time.Millisecond)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(after)
		_ = conn.CancelRequest(ctx) // of a connection that may be gone
	}()
	if got, ok := c.do(ctx, fmt.Sprintf("select concat(%d, pg_sleep(0.003))", c.state.id), ""); ok {
		c.is(got, fmt.Sprint(c.state.id))
	}
	<-done
	c.cancels = true // its signal may be on its way yet
}
