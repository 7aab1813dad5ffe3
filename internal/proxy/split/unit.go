package split

import (
	"bytes"
	"encoding/binary"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// Types of messages of the extended protocol, from the client.
const (
	typeParse    = 'P'
	typeBind     = 'B'
	typeDescribe = 'D'
	typeExecute  = 'E'
	typeClose    = 'C'
	typeCopyData = 'd'
	typeCopyDone = 'c'
	typeCopyFail = 'f'
)

// whole looks at the unit that begins b. Not ok: it is the primary's.
func (t *Tracker) whole(b []byte, quiet, answer bool) (s Step, ok bool) {
	typ, total, ok := header(b)
	if !ok {
		return Step{Do: More}, true
	}
	offer := quiet && t.Balance && !t.pinned
	switch typ {
	case wire.TypeQuery:
		return t.query(b, total, offer, answer)
	case typeParse, typeBind, typeDescribe, typeClose:
		return t.batch(b, offer, answer)
	}
	return Step{}, false
}

// query looks at a simple query.
func (t *Tracker) query(b []byte, total int, offer, answer bool) (Step, bool) {
	if total < headerLen || total > MaxUnit {
		return Step{}, false
	}
	if len(b) < total {
		return Step{Do: More}, true
	}
	sql, good := cstring(b[headerLen:total])
	if !good || len(sql)+1 != total-headerLen {
		return Step{}, false
	}
	about := classify.Text(sql)
	switch {
	case about.Kind == classify.PoolNodes && answer:
		return Step{Do: Answer, N: total}, true
	case about.Kind == classify.Read && offer:
		return Step{Do: Offer, N: total, Unit: Unit{Simple: true, Queries: 1}}, true
	}
	t.peeked, t.peek = about, true
	return Step{}, false
}

// batch looks at the messages up to Sync. Those of a session that is not split
// are only looked at for SHOW POOL_NODES.
func (t *Tracker) batch(b []byte, offer, answer bool) (Step, bool) {
	u := batch{t: t, read: offer, nodes: answer}
	for n := 0; ; {
		typ, total, ok := header(b[n:])
		switch {
		case ok && (total < headerLen || n+total > MaxBatch):
			return Step{}, false
		case !ok || len(b) < n+total:
			return Step{Do: More}, true
		}
		if typ == wire.TypeSync {
			n += total
			switch {
			case u.nodes:
				return Step{Do: Answer, N: n}, true
			case u.read && u.Queries > 0:
				return Step{Do: Offer, N: n, Unit: u.Unit}, true
			}
			return Step{}, false
		}
		u.message(typ, b[n:n+total])
		if u.flushed || !u.read && !u.nodes {
			return Step{}, false // the primary may answer before the Sync
		}
		n += total
	}
}

// batch is what is known of a batch so far.
type batch struct {
	Unit
	t     *Tracker
	read  bool // a standby may answer it
	nodes bool // the proxy has the answer
	// flushed says that the client wants answers before the end.
	flushed bool

	own *Stmt // what it makes itself
}

func (u *batch) message(typ byte, msg []byte) {
	var s *Stmt
	body := msg[headerLen:]
	switch typ {
	case typeParse:
		s = u.parse(msg)
	case typeBind:
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _ := cstring(rest)
		s = u.used(name)
	case typeDescribe, typeClose:
		if len(body) == 0 {
			break
		}
		if body[0] == 'P' {
			return
		}
		name, _ := cstring(body[1:])
		if s = u.used(name); typ == typeClose {
			u.read = false // it is the primary's to forget
		}
	case typeExecute:
		u.Queries++
		return
	case 'H':
		u.flushed = true
	}
	u.read = u.read && s != nil && s.about.Kind == classify.Read
	u.nodes = u.nodes && s != nil && s.about.Kind == classify.PoolNodes
}

// parse looks at a statement that the batch itself makes. Only the unnamed one
// may live on a standby alone.
func (u *batch) parse(msg []byte) *Stmt {
	body := msg[headerLen:]
	name, _ := cstring(body)
	if len(name)+1 > len(body) {
		return nil
	}
	sql, good := cstring(body[len(name)+1:])
	if !good || u.own != nil {
		return nil
	}
	u.own = &Stmt{Name: string(name), Parse: msg, about: classify.Text(sql), only: true}
	if len(name) > 0 {
		u.read = false
	} else {
		u.Unnamed = u.own
	}
	return u.own
}

// used is the statement of that name; one that the batch does not make is
// needed on the standby.
func (u *batch) used(name []byte) *Stmt {
	if u.own != nil && u.own.Name == string(name) {
		return u.own
	}
	s := u.t.stmts[string(name)]
	if s == nil || s.about.Kind == classify.Read && s.Parse == nil {
		return nil
	}
	for _, n := range u.Needs {
		if n == s {
			return s
		}
	}
	u.Needs = append(u.Needs, s)
	return s
}

// Answered tells that a standby has answered a unit. The unnamed statement that
// it made is kept, for the primary does not know it.
func (t *Tracker) Answered(u Unit) {
	if !u.Simple && u.Unnamed == nil {
		return
	}
	t.forget("")
	if u.Unnamed == nil {
		return
	}
	if t.stmts == nil {
		t.stmts = map[string]*Stmt{}
	}
	u.Unnamed.Parse = bytes.Clone(u.Unnamed.Parse)
	t.kept += len(u.Unnamed.Parse)
	t.stmts[""] = u.Unnamed
}

// bound is the statement of a Bind; whole is false when its name is not there yet.
func bound(b []byte, total int) (name []byte, whole bool) {
	body := b[headerLen:min(total, len(b))]
	_, rest, ok := bytes.Cut(body, []byte{0})
	if ok {
		if name, ok = cstring(rest); ok {
			return name, true
		}
	}
	return nil, len(b) >= total || len(b) > 64<<10
}

func cstring(b []byte) (s []byte, ok bool) {
	s, _, ok = bytes.Cut(b, []byte{0})
	return s, ok
}

// header takes a message's head apart; ok is false when it is not there yet.
func header(b []byte) (typ byte, total int, ok bool) {
	if len(b) < headerLen {
		return 0, 0, false
	}
	return b[0], 1 + int(binary.BigEndian.Uint32(b[1:])), true
}

// lacks is the Parse message of the unnamed statement when the unit that begins
// b may use it and only a standby has it. From now on the primary has it too.
func (t *Tracker) lacks(b []byte) []byte {
	typ, total, ok := header(b)
	s := t.stmts[""]
	if t.open || !ok || s == nil || !s.only || total <= headerLen {
		return nil
	}
	switch typ {
	case typeBind:
		_, ok = bound(b, total)
	case typeDescribe, typeClose, typeExecute:
		ok = len(b) >= total
	case typeParse:
		ok = len(b) >= total && b[headerLen] != 0
	default:
		return nil
	}
	if !ok {
		return nil // more of it has to be there first
	}
	msg := s.Parse
	t.kept -= len(msg)
	t.stmts[""] = &Stmt{about: s.about, sql: s.sql}
	return msg
}
