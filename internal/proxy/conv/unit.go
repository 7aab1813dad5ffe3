package conv

import (
	"bytes"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// MaxBatch bounds an extended batch that waits for its Sync to be looked at as a
// whole, in bytes; a longer one goes to Main as it comes.
const MaxBatch = 64 << 10

// looked is what was found at the front of what the client sent.
type looked uint8

const (
	lookMain  looked = iota // it is Main's
	lookMore                // more has to be there to know
	lookTaken               // it was answered, or goes to a standby
)

// look finds out whether the unit that begins at the front of r is to be answered
// by the proxy itself, or may be by a standby. That is so only while nothing is
// owed to the client.
func (c *Conv) look(r *run, typ byte, rest []byte) looked {
	if c.owed.peeked { // it has waited for Main
		return lookMain
	}
	read := c.cfg.Split && c.pin == "" && c.idle() && c.set.vars.get(isolation) == ""
	local := c.cfg.PoolNodes != nil && c.status() != 'E' && c.free()
	if !read && !local {
		return lookMain
	}
	switch from[typ].kind {
	case query:
		return c.lookQuery(r, rest, read, local)
	case parse, bind, describe, closing:
		if !read && !c.mayBeLocal(typ, rest) {
			return lookMain
		}
		return c.lookBatch(r, rest, read, local)
	}
	return lookMain
}

// isolation is the setting under which a standby may refuse to read.
const isolation = "default_transaction_isolation"

// mayBeLocal is quick: whether a batch that begins so could be SHOW POOL_NODES.
func (c *Conv) mayBeLocal(typ byte, rest []byte) bool {
	total := messageLen(rest)
	msg := rest[:min(total, len(rest))]
	switch typ {
	case 'P':
		return total <= maxShow && (len(msg) < total || mentionsWord(msg, poolNodes))
	case 'B':
		if len(msg) < min(total, headerLen+2*(maxName+1)) {
			return true
		}
		_, name, _ := bytes.Cut(msg[headerLen:], zero)
		name, _, _ = bytes.Cut(name, zero)
		s := c.statement(name)
		return s != nil && s.about.Kind == classify.PoolNodes
	}
	if len(msg) < total {
		return true
	}
	name, ok := named(msg)
	s := c.statement(name)
	return ok && s != nil && s.about.Kind == classify.PoolNodes
}

// maxShow bounds a message that asks for SHOW POOL_NODES, in bytes.
const maxShow = 1024

func (c *Conv) lookQuery(r *run, rest []byte, read, local bool) looked {
	total := messageLen(rest)
	switch {
	case total > MaxText, !read && total > maxShow:
		return lookMain
	case len(rest) < total:
		return lookMore
	}
	msg := rest[:total]
	if !read && !mentionsWord(msg, poolNodes) {
		return lookMain
	}
	is := c.classifiedQuery(msg)
	switch {
	case is.Kind == classify.PoolNodes && local:
		c.answer(r, msg)
		return lookTaken
	case is.Kind == classify.Read && read:
		c.offer(r, unit{n: total, simple: true, executes: 1})
		return lookTaken
	}
	c.owed.peeked, c.owed.query = true, is
	return lookMain
}

// unit is what a standby may answer.
type unit struct {
	n        int     // its length in bytes
	simple   bool    // a Query
	needs    []*stmt // statements that it uses and does not make
	own      *stmt   // the unnamed one that it makes
	executes int
}

// batch is what is known of a batch so far.
type batch struct {
	unit
	c     *Conv
	read  bool // a standby may answer it
	local bool // the proxy has the answer
	shows bool // it does: something in it is SHOW POOL_NODES
	flush bool // the client wants answers before the end
	name  []byte
	own   *stmt
}

// lookBatch looks at the messages up to Sync.
func (c *Conv) lookBatch(r *run, b []byte, read, local bool) looked {
	u := batch{c: c, read: read, local: local}
	for n := 0; ; {
		rest := b[n:]
		if len(rest) < headerLen {
			return lookMore
		}
		total := messageLen(rest)
		switch {
		case illegal(rest[0], total) != nil, n+total > MaxBatch:
			return lookMain
		case len(rest) < total:
			return lookMore
		}
		n += total
		if rest[0] == wire.TypeSync {
			return u.decide(r, b[:n])
		}
		u.message(rest[0], rest[:total])
		if u.flush || !u.read && !u.local {
			return lookMain // Main may answer before the Sync
		}
	}
}

func (u *batch) decide(r *run, b []byte) looked {
	switch {
	case u.local && u.shows:
		u.c.answer(r, b)
	case u.read && u.executes > 0:
		u.unit.n, u.unit.own = len(b), u.own
		u.c.offer(r, u.unit)
	default:
		return lookMain
	}
	return lookTaken
}

func (u *batch) message(typ byte, msg []byte) {
	var s *stmt
	switch typ {
	case 'P':
		s = u.parse(msg)
	case 'B':
		_, rest, _ := bytes.Cut(msg[headerLen:], zero)
		name, _, _ := bytes.Cut(rest, zero)
		s = u.used(name)
	case 'D', 'C':
		if len(msg) > headerLen && msg[headerLen] == 'P' {
			return
		}
		if name, ok := named(msg); ok {
			s = u.used(name)
		}
		u.read = u.read && typ == 'D' // it is Main's to forget
	case 'E':
		u.executes++
		return
	case 'H':
		u.flush = true
	}
	u.read = u.read && s != nil && s.about.Kind == classify.Read
	u.local = u.local && s != nil && s.about.Kind == classify.PoolNodes
	u.shows = u.local
}

// parse looks at a statement that the batch itself makes. Only the unnamed one may
// live on a standby alone.
func (u *batch) parse(msg []byte) *stmt {
	name, body, _ := bytes.Cut(msg[headerLen:], zero)
	sql, types, ok := bytes.Cut(body, zero)
	if !ok || len(types) < 2 || u.own != nil {
		return nil
	}
	s := &stmt{about: u.c.classified(sql)}
	if u.read = u.read && len(name) == 0; u.read {
		s.body = string(body)
	}
	u.own, u.name = s, name
	return s
}

// used is the statement of that name; one that the batch does not make is needed
// on the standby.
func (u *batch) used(name []byte) *stmt {
	if u.own != nil && bytes.Equal(u.name, name) {
		return u.own
	}
	s := u.c.statement(name)
	if s == nil || s.about.Kind == classify.Read && s.body == "" {
		return nil
	}
	for _, n := range u.needs {
		if n == s {
			return s
		}
	}
	u.needs = append(u.needs, s)
	return s
}
