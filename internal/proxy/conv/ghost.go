package conv

import (
	"bytes"

	"manada/internal/proxy/wire"
)

// ghost is a transaction whose server is lost. It was rolled back there; the client
// hears so at its next statement (40001), and then has a failed transaction to end,
// as with PostgreSQL.
type ghost struct {
	status byte // T: not told yet; E: it failed; 0: there is none
	skips  bool // everything up to Sync is skipped
	ends   bool // what is bound ends the transaction
	over   bool // it has ended, and a Sync is to come

	canceled bool // there is no transaction: what has waited for a server is cancelled
}

// haunt begins one.
func (c *Conv) haunt(status byte) { c.ghost = ghost{status: status} }

// haunted says whether the client's messages are answered without a server.
func (c *Conv) haunted(typ byte) bool {
	g := &c.ghost
	if g.over && !g.skips && typ != wire.TypeSync { // something new
		*g = ghost{}
	}
	return g.status != 0 || g.skips || g.over || g.canceled
}

// meets takes the message at the front of r for a transaction that is lost.
func (c *Conv) meets(r *run, typ byte, total int, rest []byte) bool {
	if len(rest) < c.wants(typ, total) {
		return false
	}
	have := min(total, len(rest))
	r.drop(have)
	c.lapses = total - have
	c.wail(r, typ, rest[:have], total)
	return true
}

// wail answers one message for a transaction that is lost, or was cancelled before it
// has begun.
func (c *Conv) wail(r *run, typ byte, msg []byte, total int) {
	g := &c.ghost
	switch from[typ].kind {
	case syncing:
		g.skips, g.ends, g.over, g.canceled = false, false, false, false
		c.open = false
		r.fx.say(Client, wire.TypeReady, []byte{c.status()})
		return
	case query:
		if g.skips {
			return
		}
		c.plain = nil
		if g.canceled {
			c.moan(r)
			r.fx.say(Client, wire.TypeReady, []byte{c.status()})
			return
		}
		c.wailQuery(r, textOf(msg), len(msg) < total)
		return
	case call:
		if !g.skips {
			c.moan(r)
			r.fx.say(Client, wire.TypeReady, []byte{c.status()})
		}
		return
	case none, copyData, copyEnd:
		return
	}
	c.open = true
	if !g.skips && (g.canceled || !c.wailBatch(r, typ, msg)) {
		c.moan(r)
		if g.skips = true; g.over { // a commit has failed: the transaction is over
			g.status = 0
		}
	}
}

// moan is the error of a statement.
func (c *Conv) moan(r *run) {
	e := &wire.Error{Severity: "ERROR", Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}
	switch g := &c.ghost; {
	case g.canceled:
		e.Code, e.Message = "57014", "canceling statement due to user request"
		g.canceled = false
	case g.status == 'T':
		e = serialization("the transaction was rolled back: its server was lost, or has changed its role")
		g.status = 'E'
	}
	at := len(r.fx.own)
	r.fx.own = e.Append(r.fx.own)
	r.fx.add(Effect{Kind: Send, Side: Client, B: r.fx.own[at:]})
}

// wailQuery answers a simple query.
func (c *Conv) wailQuery(r *run, text []byte, long bool) {
	switch told := c.ghost.status == 'E'; {
	case !long && endsWith(text, "rollback", "abort"), !long && told && endsWith(text, "commit", "end"):
		c.ghost = ghost{}
		r.fx.say(Client, wire.TypeComplete, tagRollback)
	case !long && endsWith(text, "commit", "end"):
		c.moan(r) // as a commit that fails
		c.ghost = ghost{}
	default:
		c.moan(r)
	}
	r.fx.say(Client, wire.TypeReady, []byte{c.status()})
}

// wailBatch answers a message of a batch that ends the transaction; anything else
// has failed.
func (c *Conv) wailBatch(r *run, typ byte, msg []byte) bool {
	g := &c.ghost
	switch typ {
	case 'P':
		return c.wailParse(r, msg)
	case 'B':
		return c.wailBind(r, msg)
	case 'D':
		if name, ok := named(msg); ok {
			if s := c.statement(name); s == nil || !ending(s.text()) {
				return false
			}
			r.fx.say(Client, 't', []byte{0, 0})
		} else if !g.ends {
			return false
		}
		r.fx.say(Client, 'n', nil)
	case 'E':
		if !g.ends {
			return false
		}
		*g = ghost{over: true}
		r.fx.say(Client, wire.TypeComplete, tagRollback)
	case 'C':
		if name, ok := named(msg); ok {
			c.forget(string(name))
		}
		r.fx.say(Client, '3', nil)
	}
	return true
}

func (c *Conv) wailParse(r *run, msg []byte) bool {
	name, rest, _ := bytes.Cut(msg[headerLen:], zero)
	text, _, ok := bytes.Cut(rest, zero)
	if len(name) == 0 {
		c.plain = nil
	}
	if !ok || !ending(text) || len(rest) > maxBody || c.stmts[string(name)] != nil {
		return false
	}
	s := &stmt{about: c.classified(text), body: string(rest)}
	if len(name) == 0 {
		c.plain = s
	} else {
		c.remember(string(name), s)
	}
	r.fx.say(Client, '1', nil)
	return true
}

func (c *Conv) wailBind(r *run, msg []byte) bool {
	g := &c.ghost
	_, rest, _ := bytes.Cut(msg[headerLen:], zero)
	name, _, _ := bytes.Cut(rest, zero)
	s := c.statement(name)
	if s == nil || !ending(s.text()) {
		return false
	}
	if g.over = g.status == 'T' && endsWith(s.text(), "commit", "end"); g.over {
		return false
	}
	g.ends = true
	r.fx.say(Client, '2', nil)
	return true
}

// ending says whether a text ends a transaction, and does nothing else.
func ending(text []byte) bool { return endsWith(text, "rollback", "abort", "commit", "end") }

// endsWith says whether a text is one statement that ends the transaction, by one of
// the words. ROLLBACK TO a savepoint does not.
func endsWith(text []byte, words ...string) bool {
	f := bytes.Fields(bytes.TrimRight(text, "; \t\r\n"))
	if len(f) == 0 || len(f) > 2 || bytes.IndexByte(text, ';') >= 0 && bytes.IndexByte(bytes.TrimRight(text, "; \t\r\n"), ';') >= 0 {
		return false
	}
	if len(f) == 2 && !bytes.EqualFold(f[1], []byte("work")) && !bytes.EqualFold(f[1], []byte("transaction")) {
		return false
	}
	for _, w := range words {
		if bytes.EqualFold(f[0], []byte(w)) {
			return true
		}
	}
	return false
}
