package split

import (
	"bytes"
	"encoding/binary"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

const headerLen = 5

// MaxUnit bounds what is held back to be looked at, in bytes. A longer query
// pins the session, a longer batch goes to the primary.
const MaxUnit = 1 << 20

// Do is what to do with the bytes of a Step.
type Do uint8

const (
	More    Do = iota // read more first
	Forward           // pass them on to the primary
	Offer             // let a standby answer them, or pass them on
	Answer            // the proxy answers them: SHOW POOL_NODES
	Refuse            // they use an unnamed statement that the primary never got
)

// Step is the next thing to do with the first N bytes.
type Step struct {
	Do Do
	N  int
	// Instead is sent in the place of the N bytes when it is not nil.
	Instead []byte
	// Unit describes what is offered.
	Unit Unit
}

// Unit is a query or a batch that a standby may answer.
type Unit struct {
	// Needs are the prepared statements that it uses and does not make.
	Needs []*Stmt
	// Simple says that it is a simple query, Unnamed that it makes the unnamed
	// statement.
	Simple, Unnamed bool
	// Queries counts what is executed.
	Queries int
}

// Stmt is a prepared statement.
type Stmt struct {
	Name  string
	Parse []byte // the whole message; nil when it is not kept
	about classify.Statement
	sql   string // of Settings
	only  bool   // not on the primary: made by a unit that a standby answered
}

// Tracker follows one client. Not safe for concurrent use.
type Tracker struct {
	// Balance allows units to be offered.
	Balance bool
	// Wrote says that the primary was given something since the owner last set it
	// to false: what the session may have seen or done is behind the primary's WAL
	// of that moment.
	Wrote bool
	// Queries counts those that were forwarded.
	Queries int
	// Journal is what to say to another connection.
	Journal Journal

	skip   int  // bytes of a message under way to the primary
	open   bool // the unit under way is the primary's
	quiet  bool // and it began so
	broken bool
	pinned bool
	peeked classify.Statement // of the query that comes next
	peek   bool               // it was looked at
	// refused says that nothing sensible can be done any more.
	refused bool

	stmts   map[string]*Stmt
	kept    int // bytes of their messages
	pending pending
}

// pending is what counts only if the primary answers without an error.
type pending struct {
	set     *Setting
	discard bool
	made    []string // statements
	units   int
}

// Pinned says whether nothing is offered any more.
func (t *Tracker) Pinned() bool { return t.pinned }

// Pin keeps the session on the primary.
func (t *Tracker) Pin() { t.pinned = true }

// Next says what to do with the bytes that the client has sent and that were
// not dealt with yet. With quiet, nothing is owed to the client and it is in no
// transaction; answer says that the proxy may answer by itself.
func (t *Tracker) Next(b []byte, quiet, answer bool) Step {
	if t.broken {
		return forward(len(b))
	}
	n := 0
	for {
		if t.skip > 0 {
			k := min(t.skip, len(b)-n)
			t.skip -= k
			n += k
		}
		rest := b[n:]
		if len(rest) == 0 || t.skip > 0 {
			return forward(n)
		}
		if !t.open {
			if n > 0 && quiet {
				return forward(n) // what follows is looked at once this is answered
			}
			if n == 0 && (quiet || answer) {
				if s, ok := t.whole(rest, quiet, answer); ok {
					return s
				}
			}
		}
		if !t.open {
			t.quiet = quiet && n == 0
		}
		if n > 0 && mute(rest) {
			return forward(n) // the next one is rewritten, by itself
		}
		k, instead, ok := t.message(rest, t.quiet)
		switch {
		case t.refused:
			return Step{Do: Refuse}
		case !ok:
			return forward(n)
		case instead != nil:
			return Step{Do: Forward, N: k, Instead: instead}
		}
		n += k
	}
}

func forward(n int) Step {
	if n == 0 {
		return Step{Do: More}
	}
	return Step{Do: Forward, N: n}
}

// header takes a message's head apart; ok is false when it is not there yet.
func header(b []byte) (typ byte, total int, ok bool) {
	if len(b) < headerLen {
		return 0, 0, false
	}
	return b[0], 1 + int(binary.BigEndian.Uint32(b[1:])), true
}

// message deals with the first message of b, which is the primary's. It returns
// how much of it may be passed on now; not ok: more of it has to be there first.
func (t *Tracker) message(b []byte, quiet bool) (n int, instead []byte, ok bool) {
	typ, total, ok := header(b)
	switch {
	case !ok:
		return 0, nil, false
	case total < headerLen:
		t.broken, t.pinned = true, true
		return len(b), nil, true
	}
	switch typ {
	case wire.TypeQuery, typeParse, typeClose:
		if total > MaxUnit {
			t.pinned = true
			break
		}
		if len(b) < total {
			return 0, nil, false
		}
		instead = t.body(typ, b[:total], quiet)
	case typeBind:
		name, whole := bound(b, total)
		if !whole {
			return 0, nil, false
		}
		t.bind(name, quiet)
	case wire.TypeFunctionCall:
		t.pinned, t.Wrote = true, true
	case typeExecute:
		t.Wrote = true
	}
	if typ == wire.TypeQuery || typ == wire.TypeSync {
		t.pending.units++
	}
	t.open = typ != wire.TypeQuery && typ != wire.TypeSync && typ != wire.TypeFunctionCall && typ != typeCopyData &&
		typ != typeCopyDone && typ != typeCopyFail
	k := min(total, len(b))
	t.skip = total - k
	return k, instead, true
}

// mute says whether the next message is one that may be rewritten.
func mute(b []byte) bool {
	typ, total, ok := header(b)
	return ok && (typ == wire.TypeQuery || typ == typeParse) && total >= headerLen && len(b) >= total && mayMute(b[:total])
}

// body notes what a query, a Parse or a Close means, and rewrites the first two
// where they hide warnings.
func (t *Tracker) body(typ byte, msg []byte, quiet bool) (instead []byte) {
	switch typ {
	case wire.TypeQuery:
		sql, good := cstring(msg[headerLen:])
		about := classify.Statement{Kind: classify.Pin}
		switch {
		case t.peek:
			about = t.peeked
		case good && len(sql)+1 == len(msg)-headerLen:
			about = classify.Text(sql)
		}
		t.peek = false
		t.forget("") // a simple query drops the unnamed statement
		t.Wrote = true
		t.effect(about, settingSQL(sql, about), quiet)
		return unmute(msg, headerLen, about.Mute)
	case typeParse:
		name, good := cstring(msg[headerLen:])
		if !good {
			t.pinned = true
			return nil
		}
		at := headerLen + len(name) + 1
		about := classify.Statement{Kind: classify.Pin}
		sql, good := cstring(msg[at:])
		if good {
			about = classify.Text(sql)
		}
		t.prepare(string(name), msg, sql, about)
		if len(name) > 0 {
			t.pending.made = append(t.pending.made, string(name))
		}
		return unmute(msg, at, about.Mute)
	}
	if len(msg) > headerLen && msg[headerLen] == 'S' {
		if name, good := cstring(msg[headerLen+1:]); good {
			t.forget(string(name))
		}
	}
	return nil
}

// bind applies the effect of a statement that is about to be executed.
func (t *Tracker) bind(name []byte, quiet bool) {
	t.Wrote = true
	s := t.stmts[string(name)]
	switch {
	case s == nil:
		t.pinned = true // made in a way that was not seen
	case s.only:
		t.refused = true
	default:
		t.effect(s.about, s.sql, quiet)
	}
}

// effect notes what a statement may leave behind in the primary's session.
func (t *Tracker) effect(about classify.Statement, sql string, quiet bool) {
	t.Queries += about.Queries
	alone := quiet && t.pending.set == nil && !t.pending.discard
	switch about.Kind {
	case classify.Settings:
		if !alone {
			t.pinned = true // in a transaction it may be rolled back
			return
		}
		t.pending.set = &Setting{Name: about.Setting, SQL: sql}
	case classify.Discard:
		t.stmts, t.kept = nil, 0
		t.pending.discard = alone
		t.pinned = t.pinned || !alone
	case classify.Forget:
		t.stmts, t.kept = nil, 0
	case classify.Pin:
		t.pinned = true
	}
}

// settingSQL is the text of a SET as it is said to the primary.
func settingSQL(sql []byte, about classify.Statement) string {
	if about.Kind != classify.Settings {
		return ""
	}
	return string(unmuteText(sql, about.Mute))
}

// Settle tells whether the primary has answered what was forwarded since the
// last time without an error. It is called when nothing is owed any more.
func (t *Tracker) Settle(failed bool) {
	p := t.pending
	t.pending = pending{}
	switch {
	case failed:
		for _, name := range p.made {
			t.forget(name) // whatever it is now, it is not what was asked for
		}
		if p.units > 1 && (p.set != nil || p.discard) {
			t.pinned = true // which of them failed?
		}
	case p.discard:
		t.pinned = false
		t.Journal.add(Setting{SQL: "DISCARD ALL"})
	case p.set != nil:
		t.Journal.add(*p.set)
	}
}

// maxKept bounds the prepared statements that are kept, in bytes.
const maxKept = 4 << 20

func (t *Tracker) prepare(name string, msg, sql []byte, about classify.Statement) {
	t.forget(name)
	s := &Stmt{Name: name, about: about, sql: settingSQL(sql, about)}
	if name != "" && t.Balance && about.Kind == classify.Read && t.kept+len(msg) <= maxKept {
		s.Parse = bytes.Clone(msg)
		t.kept += len(msg)
	}
	if t.stmts == nil {
		t.stmts = map[string]*Stmt{}
	}
	t.stmts[name] = s
}

func (t *Tracker) forget(name string) {
	if s := t.stmts[name]; s != nil {
		t.kept -= len(s.Parse)
		delete(t.stmts, name)
	}
}
