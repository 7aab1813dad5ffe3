package session

import (
	"encoding/binary"
	"fmt"
	"time"

	"manada/internal/proxy/route"
	"manada/internal/proxy/split"
	"manada/internal/proxy/wire"
)

// read lets the standby answer a unit and brings the answer to the client.
//
// Until the first row nothing is passed on, so that the primary can still be
// asked instead: when the standby goes away, and when it cannot do what the
// primary can. A statement that only seemed to read is refused there (25006).
func (s *session) read(st route.Standby, u split.Unit, b []byte) offered {
	s.owed.reading.Store(true)
	defer s.doneReading()
	s.out.Lock()
	defer s.out.Unlock()
	if s.over || s.torn {
		return offerOver
	}
	head, injected := s.missing(u)
	msg := b
	if len(head) > 0 {
		msg = append(head, b...)
	}
	r := reply{src: s.second.src, strip: 2 * len(injected), quiet: s.watch.hidden()}
	sent := s.send(msg)
	defer func() { <-sent }() // whoever leaves has read all, or closed the connection
	for !r.done {
		err := r.src.fill()
		r.look()
		if r.fatal {
			return s.lost(st, &r, r.err)
		}
		if n := r.passable(); n > 0 {
			if _, werr := s.client.Write(r.src.held()[:n]); werr != nil {
				s.server.Close()
				s.dropSecond()
				return offerOver
			}
			s.Stats.ToClients[s.port].Add(int64(n))
			r.pass(n)
		}
		if err != nil && !r.done {
			return s.lost(st, &r, err)
		}
	}
	s.made(u, injected, r.strip == 0)
	if r.declined {
		s.Log.Debug("read repeated on the primary", "node", st.Name, "error", r.err)
		s.Stats.Repeated.Add(1)
		return offerDeclined
	}
	s.Stats.FromClients[s.port].Add(int64(len(b)))
	s.Stats.read(st.Name, u.Queries)
	return offerAnswered
}

// send writes to the standby while its answer is read: of a batch it answers the
// beginning before it takes the end, and would wait for us as we for it.
func (s *session) send(msg []byte) (sent chan struct{}) {
	sent = make(chan struct{})
	conn := s.second.backend.Conn
	if len(msg) <= atOnce {
		defer close(sent)
		conn.Write(msg) // an error shows in the answer
		return sent
	}
	go func() {
		defer close(sent)
		conn.Write(msg)
	}()
	return sent
}

// atOnce fits into the smallest buffer of a socket.
const atOnce = 2 << 10

// made notes which prepared statements the standby has after a unit.
func (s *session) made(u split.Unit, injected []*split.Stmt, good bool) {
	for _, need := range injected {
		if good {
			s.second.stmts[need.Name] = need
		} else {
			delete(s.second.stmts, need.Name)
		}
	}
	switch {
	case u.Unnamed != nil:
		s.second.stmts[""] = u.Unnamed
	case u.Simple:
		delete(s.second.stmts, "")
	}
}

func (s *session) doneReading() {
	s.owed.reading.Store(false)
	if s.draining.Load() {
		s.endIfIdle()
	}
}

// missing prepares on the standby what the unit needs there.
func (s *session) missing(u split.Unit) (head []byte, injected []*split.Stmt) {
	for _, need := range u.Needs {
		if s.second.stmts[need.Name] != need {
			head = wire.AppendMessage(head, 'C', append([]byte{'S'}, need.Name+"\x00"...))
			head = append(head, need.Parse...)
			injected = append(injected, need)
		}
	}
	return head, injected
}

// lost deals with a standby that went away, or was interrupted, before its
// answer was complete. Called with out held.
func (s *session) lost(st route.Standby, r *reply, err error) offered {
	s.dropSecond()
	if s.ending.Load() != endNot || s.life.ctx.Err() != nil {
		s.torn = s.torn || r.big > 0
		return offerOver // down says why
	}
	if !r.fatal { // else it said good-bye to this session, and perhaps only to it
		s.homes.avoid(st.Name)
	}
	s.Log.Info("standby lost while it answered", "node", st.Name, "user", s.user, "error", err)
	switch {
	case !r.passed:
		s.Stats.Repeated.Add(1)
		return offerDeclined
	case r.big > 0:
		s.torn = true // half a message is with the client: nothing can be said
		s.server.Close()
		return offerOver
	}
	e := &wire.Error{Severity: "ERROR", Code: "40001", Message: fmt.Sprintf("standby %s was lost while it answered", st.Name),
		Detail: "The statement only read, and part of its rows was already sent.", Hint: "Repeat the statement."}
	if _, err := s.client.Write(wire.AppendMessage(e.Append(nil), wire.TypeReady, []byte{'I'})); err != nil {
		s.server.Close()
		return offerOver
	}
	return offerAnswered
}

// say executes a statement of ours on the second connection.
func (s *session) say(sql string) error {
	s.second.limit(time.Now().Add(openTimeout))
	defer s.second.limit(time.Time{})
	if _, err := s.second.backend.Conn.Write(wire.AppendMessage(nil, wire.TypeQuery, []byte(sql+"\x00"))); err != nil {
		return err
	}
	delete(s.second.stmts, "")
	if sql == "DISCARD ALL" {
		clear(s.second.stmts)
	}
	r := reply{src: s.second.src}
	for !r.done {
		err := r.src.fill()
		r.look()
		r.pass(r.at)
		switch {
		case r.err != nil:
			return r.err
		case err != nil && !r.done:
			return err
		}
	}
	return nil
}

// limit sets the deadline of the second connection unless it was interrupted.
func (c *second) limit(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backend != nil && !c.broken {
		c.backend.Conn.SetReadDeadline(t)
	}
}

// reply follows a standby's answer in its source.
type reply struct {
	src   *source
	strip int  // answers to what was injected, still to come
	quiet bool // the client gets no warnings
	at    int  // what was looked at, of the bytes held
	big   int  // bytes to come of a message that no buffer holds

	rows, passed bool
	done         bool
	declined     bool // the primary is to be asked
	fatal        bool // the connection ends
	err          *wire.Error
}

// look takes the messages that have arrived.
func (r *reply) look() {
	for !r.done && !r.fatal {
		b := r.src.held()
		if r.big > 0 {
			n := min(r.big, len(b)-r.at)
			r.at, r.big = r.at+n, r.big-n
		}
		rest := b[min(r.at, len(b)):]
		if r.big > 0 || len(rest) < 5 {
			return
		}
		total := 1 + int(binary.BigEndian.Uint32(rest[1:]))
		if total < 5 {
			r.fatal, r.err = true, wire.Fatal("08P01", "the standby does not speak the protocol", "")
			return
		}
		if len(rest) < total {
			if total <= bufferSize {
				return
			}
			r.rows = true // no buffer holds it: pass on what is there
			r.at, r.big = len(b), total-len(rest)
			return
		}
		r.message(rest[0], rest[5:total], total)
	}
}

// message takes one that is there as a whole.
func (r *reply) message(typ byte, body []byte, total int) {
	switch typ {
	case '1', '3':
		if r.strip > 0 {
			r.strip--
			r.src.cut(r.at, total)
			return
		}
	case wire.TypeParameterStatus:
		r.src.cut(r.at, total) // the client knows the first connection's
		return
	case wire.TypeNotice:
		if r.quiet && wire.ParseError(body).Severity == "WARNING" {
			r.src.cut(r.at, total)
			return
		}
	case wire.TypeDataRow:
		r.rows = true
	case wire.TypeError:
		if r.err = wire.ParseError(body); r.err.Severity == "FATAL" || r.err.Severity == "PANIC" {
			r.fatal = true
			return
		}
		r.declined = !r.passed && repeatable(r.err)
	case wire.TypeReady:
		r.done = true
	}
	r.at += total
	if r.declined {
		r.src.consume(r.at)
		r.at = 0
	}
}

// passable says how much may be given to the client now.
func (r *reply) passable() int {
	if r.declined || !r.passed && !r.rows && !r.done && r.src.n < bufferSize {
		return 0
	}
	return r.at
}

func (r *reply) pass(n int) {
	r.src.consume(n)
	r.at -= n
	r.passed = r.passed || n > 0
}

// repeatable says whether the primary may answer where a standby fails: because
// it may write, has no conflicts with replay, or knows of what was not replayed.
func repeatable(e *wire.Error) bool {
	switch e.Class() {
	case "08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX":
		return e.Code != "57014" // cancelled, or out of time
	}
	return false
}
