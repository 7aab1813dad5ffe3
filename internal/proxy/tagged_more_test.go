package proxy_test

import (
	"context"
	"fmt"

	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5/pgconn"
)

// sequence has one for all clients: what a client is told of it is its own last value,
// or that there is none in this connection (docs/guarantees.md).
func (c *tagged) sequence(ctx context.Context) {
	if c.r.IntN(2) == 0 || c.state.id%4 > 0 { // few ask: they keep their connections
		if got, ok := c.do(ctx, "select nextval('public.sq')", c.writes()); ok {
			c.last = got[0]
		}
		return
	}
	c.asks = true
	sql := "select currval('public.sq')"
	switch res, err := c.ask(ctx, sql); {
	case code(err) == "55000":
		c.settle()
	case err != nil:
		c.failed(err)
	case c.last == "" || string(res[0][0]) != c.last:
		c.bad("got %s, its own last value is %q", res[0][0], c.last)
	}
}

func (c *tagged) listen(ctx context.Context) {
	if c.listens {
		if _, ok := c.do(ctx, "unlisten *", ""); ok {
			c.listens = false
		}
		return
	}
	c.listened, c.sticks = true, true
	if _, ok := c.do(ctx, "listen "+c.channel(), ""); ok {
		c.listens = true
	}
}

// notify tells anybody; nobody who does not listen hears of it.
func (c *tagged) notify(ctx context.Context) {
	to := fmt.Sprint("ch", c.r.IntN(c.among))
	c.do(ctx, fmt.Sprintf("select pg_notify('%s', 'for %s')", to, to), "")
}

func (c *tagged) hold(ctx context.Context) {
	mine := fmt.Sprint("held by ", c.state.id)
	c.sticks = true
	switch {
	case !c.cursor && c.r.IntN(2) == 0:
		c.do(ctx, "fetch 1 from h", "34000")
	case !c.cursor:
		if _, ok := c.do(ctx, "declare h cursor with hold for select '"+mine+"' from generate_series(1, 1000)", ""); ok {
			c.cursor = true
		}
	case c.r.IntN(3) == 0:
		if _, ok := c.do(ctx, "close h", ""); ok {
			c.cursor = false
		}
	default:
		if got, ok := c.do(ctx, "fetch 1 from h", ""); ok {
			c.is(got, mine)
		}
	}
}

// hide sets what no text of the client names.
func (c *tagged) hide(ctx context.Context) {
	c.n++
	value := fmt.Sprintf("h%d.%d", c.state.id, c.n)
	sql, want := "select public.hide('"+value+"')", ""
	switch c.r.IntN(3) {
	case 0:
		sql = "do $$ begin perform set_config('app.hidden', '" + value + "', false); end $$"
	case 1:
		sql, want = "insert into public.trapped values ('"+value+"')", c.writes()
	}
	c.sticks = true
	if _, ok := c.do(ctx, sql, want); ok {
		c.set("app.hidden", value, false)
	}
}

func (c *tagged) fail(ctx context.Context) {
	if c.r.IntN(2) == 0 {
		c.do(ctx, "selec", "42601")
		return
	}
	c.do(ctx, "select 1 / 0 from generate_series(1, 5)", "22012")
}

// batch sets, looks and perhaps fails in one trip: then nothing has happened.
func (c *tagged) batch(ctx context.Context) {
	name := settings[c.r.IntN(7)]
	value, fails := c.value(name), c.r.IntN(3) == 0
	c.note(fmt.Sprintf("batch: %s = %s, fails: %v", name, value, fails))
	before := c.clone()
	p := c.conn.StartPipeline(ctx)
	if c.r.IntN(4) == 0 {
		c.sticks = true // what is set is not in the text
		p.SendQueryParams("select set_config($1, $2, false)", [][]byte{[]byte(name), []byte(value)}, nil, nil, nil)
	} else {
		p.SendQueryParams(setting("set ", name, value), nil, nil, nil, nil)
	}
	p.SendQueryParams(look, nil, nil, nil, nil)
	if fails {
		p.SendQueryParams("select 1 / 0", nil, nil, nil, nil)
	}
	c.set(name, value, false)
	switch err := c.results(p); {
	case err == nil && fails:
		c.bad("did not fail")
	case err != nil:
		c.kept = before
		if code(err) != "22012" || !fails {
			c.failed(err)
		}
	}
}

// results of a batch: the second is what a look finds.
func (c *tagged) results(p *pgconn.Pipeline) error {
	err := p.Sync()
	for n := 0; err == nil; n++ {
		var got any
		if got, err = p.GetResults(); err != nil {
			break
		}
		switch r := got.(type) {
		case *pgconn.PipelineSync:
			return p.Close()
		case *pgconn.ResultReader:
			res := r.Read()
			if err = res.Err; err == nil && n == 1 {
				c.is([]string{string(res.Rows[0][0])}, c.looks())
			}
		}
	}
	if closed := p.Close(); err == nil {
		err = closed
	}
	return err
}

func (c *tagged) discard(ctx context.Context) {
	if _, ok := c.do(ctx, "discard all", ""); ok {
		c.discardAll()
	}
}

// leave says good-bye, whatever is open.
func (c *tagged) leave(ctx context.Context) {
	c.note("leave")
	_ = c.conn.Close(ctx)
}

// vanish is gone in the middle of something, with all that it has.
func (c *tagged) vanish(context.Context) {
	h, err := c.conn.Hijack()
	if err != nil {
		c.bad("%v", err)
		return
	}
	c.conn = nil
	defer h.Conn.Close()
	say := func(sql string) []byte { return wire.AppendMessage(nil, wire.TypeQuery, append([]byte(sql), 0)) }
	ghost := fmt.Sprintf("set app.tenant = 'ghost of %d'; set role tagged_%d", c.state.id, c.state.id)
	b := say(ghost)
	switch c.r.IntN(5) {
	case 0:
		b = b[:len(b)-3]
	case 1:
		b = append(say("begin"), b...)
	case 2:
		b = append(append(b, say("copy public.rows(client, n) from stdin")...), wire.AppendMessage(nil, 'd', []byte("7\t"))...)
	case 3:
		b = append(b, say("select pg_sleep(0.05); select repeat('ghost', 1000) from generate_series(1, 2000)")...)
	case 4:
		b = []byte("garbage")
	}
	_, _ = h.Conn.Write(b) // it may be gone already
}
