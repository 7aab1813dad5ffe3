package split

import (
	"bytes"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

const headerLen = 5

// MaxUnit bounds a query or message that is held back to be looked at, in bytes;
// a longer query pins the session. MaxBatch bounds an extended batch that waits
// for its Sync to be offered; a longer one goes to the primary as it comes.
const (
	MaxUnit  = 1 << 20
	MaxBatch = 64 << 10
)

// Do is what to do with the bytes of a Step.
type Do uint8

const (
	More    Do = iota // read more first
	Forward           // pass them on to the primary
	Offer             // let a standby answer them, or pass them on
	Answer            // the proxy answers them: SHOW POOL_NODES
)

// Step is the next thing to do with the first N bytes.
type Step struct {
	Do Do
	N  int
	// Instead is sent in the place of the N bytes when it is not nil.
	Instead []byte
	// Before is a Parse message that the primary needs in front of them. Its
	// answer, the first to this Step, is not for the client.
	Before []byte
	// Levels are changes of client_min_messages, in their order.
	Levels []LevelChange
	// Unit describes what is offered.
	Unit Unit
}

// LevelChange is what a unit does to client_min_messages. After is how many
// units of its Step end before it.
type LevelChange struct {
	After int
	Level classify.Level
	Local bool
}

// Unit is a query or a batch that a standby may answer.
type Unit struct {
	// Needs are the prepared statements that it uses and does not make.
	Needs []*Stmt
	// Simple says that it is a simple query. Unnamed is the unnamed statement
	// that it makes; its message is only there until Answered.
	Simple  bool
	Unnamed *Stmt
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
	binds  int                // of the unit under way
	peeked classify.Statement // of the query that comes next
	peek   bool               // it was looked at
	ended  int                // units that end in this Step
	levels []LevelChange      // of this Step

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
	wrote   bool // something else than a read
}

// Pinned says whether nothing is offered any more.
func (t *Tracker) Pinned() bool { return t.pinned }

// Pin keeps the session on the primary.
func (t *Tracker) Pin() { t.pinned = true }

// OnlyReads says that what was forwarded since the last Settle only reads, as
// far as its texts say.
func (t *Tracker) OnlyReads() bool { return !t.pending.wrote && !t.broken }

// Next says what to do with the bytes that the client has sent and that were
// not dealt with yet. With quiet, nothing is owed to the client and it is in no
// transaction; answer says that the proxy may answer by itself.
func (t *Tracker) Next(b []byte, quiet, answer bool) Step {
	t.ended, t.levels = 0, nil
	s := t.next(b, quiet, answer)
	s.Levels = t.levels
	return s
}

func (t *Tracker) next(b []byte, quiet, answer bool) Step {
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
		lacks := t.lacks(rest)
		if n > 0 && (lacks != nil || mute(rest)) {
			return forward(n) // the next one is not passed on as it is
		}
		k, instead, ok := t.message(rest, t.quiet)
		switch {
		case !ok:
			return forward(n)
		case lacks != nil:
			return Step{Do: Forward, N: k, Instead: instead, Before: lacks}
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
	if !t.open {
		t.binds = 0
	}
	switch typ {
	case wire.TypeQuery, typeParse, typeClose:
		if total > MaxUnit {
			t.pinned, t.pending.wrote = true, true
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
		t.pinned, t.Wrote, t.pending.wrote = true, true, true
	case typeExecute:
		t.Wrote = true
	}
	switch typ {
	case wire.TypeQuery, wire.TypeSync, wire.TypeFunctionCall:
		t.pending.units++
		t.ended++
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
	t.binds++
	if t.binds > 1 && (t.pending.set != nil || t.pending.discard) {
		t.pinned = true // what came before may be part of a transaction yet
	}
	s := t.stmts[string(name)]
	if s == nil {
		t.pinned, t.pending.wrote = true, true // made in a way that was not seen
		return
	}
	t.effect(s.about, s.sql, quiet && t.binds == 1)
}

// effect notes what a statement may leave behind in the primary's session.
func (t *Tracker) effect(about classify.Statement, sql string, quiet bool) {
	t.Queries += about.Queries
	t.pending.wrote = t.pending.wrote || about.Kind != classify.Read
	if about.Level != classify.LevelKept {
		t.levels = append(t.levels, LevelChange{t.ended, about.Level, about.Local})
	}
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
