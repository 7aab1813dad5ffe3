package conv

import (
	"bytes"
	"encoding/binary"
	"slices"

	"manada/internal/proxy/classify"
)

// Prepared statements. In session mode Main has the client's own, under the names
// that the client gave them. A server that others use too has them under names of
// the link, shared by all who prepare the same text under the same settings; what a
// link lacks is prepared there when the client uses it.

// prefix begins the link's names. No client gets at them by their names.
var prefix = []byte("manada:")

// maxBody bounds the text of a statement that is kept to be prepared again, in bytes.
const maxBody = 64 << 10

// parse notes a prepared statement and rewrites it: where it hides warnings, and
// with the link's name. It returns the entry, and what is to be sent instead; local
// says that nothing is.
func (c *Conv) parse(r *run, msg []byte) (e entry, instead []byte, local bool) {
	name, rest, ok := bytes.Cut(msg[headerLen:], zero)
	sql, types, good := bytes.Cut(rest, zero)
	e, s := entry{kind: parse}, &stmt{about: about{Kind: classify.Pin, Why: "a text that is not understood"}}
	if ok && good && len(types) >= 2 {
		s.about, s.names = c.classified(sql), c.version()
		s.sql = settingSQL(sql, s.about)
	} else {
		ok = false
	}
	if body := c.worded(r, s, rest); body != nil {
		rest = body
		instead = appendParse(nil, string(name), string(body))
	}
	l := c.links[Main]
	if len(name) == 0 {
		s.before, s.had = c.plain, l.plain
		c.plain, l.plain, e.plain = s, s, s
		return e, instead, false
	}
	if old := c.stmts[string(name)]; c.renames() && old != nil && old.body != "" { // PostgreSQL says that the name is taken
		own := c.has(r, l, old)
		e.note = &note{aliases: []alias{{own, string(name)}}}
		return e, appendParse(nil, own, string(rest)), false
	}
	if !c.renames() || !ok || s.body == "" {
		if c.renames() {
			c.tied("a prepared statement that cannot be carried")
		}
		c.remember(string(name), s)
		e.note = &note{made: string(name), is: s}
		return e, instead, false
	}
	return c.share(r, l, string(name), s)
}

// worded changes the text of a statement where it has to be, and keeps what it is
// prepared with again. body nil: nothing is changed.
func (c *Conv) worded(r *run, s *stmt, rest []byte) (body []byte) {
	named := c.renames() && slices.ContainsFunc(s.about.Prepared, func(u classify.Use) bool { return u.Name != "" })
	switch kept := c.keeps(s, rest); {
	case named:
		if kept {
			s.origin = string(rest)
		}
		return c.renewed(r, s, rest)
	case len(s.about.Mute) > 0:
		body = muted(s.about.Mute).body(rest)
		rest = body
		fallthrough
	default:
		if kept {
			s.body = string(rest)
		}
	}
	s.deeds = deeds(s.about.Prepared)
	return body
}

// keeps says whether a statement's text is kept.
func (c *Conv) keeps(s *stmt, body []byte) bool {
	if c.renames() {
		return len(body) <= maxBody && c.kept+len(body) <= maxKept && len(c.stmts) < maxStatements
	}
	return c.cfg.Split && s.about.Kind == classify.Read && c.kept+len(body) <= maxKept
}

// share prepares a statement under the link's name, unless the link has it.
func (c *Conv) share(r *run, l *Link, name string, s *stmt) (e entry, instead []byte, local bool) {
	e.kind = parse
	if c.stmts[name] != nil { // it is the client's own server that says so
		s.body = ""
		c.remember(name, s)
		e.note = &note{made: name, is: s}
		return e, nil, false
	}
	s.plans = c.plans.now()
	s.key = c.key(l, s)
	own, fresh, gone := l.stmts.use(s.key)
	c.remember(name, s)
	e.note = &note{made: name, is: s}
	if gone != "" {
		c.close(r, l, gone)
	}
	if !fresh && l.status != 'E' && l.q.batch() {
		e.local = '1'
		return e, nil, true
	}
	if !fresh {
		c.close(r, l, own)
	}
	e.note.body = s.key
	return e, appendParse(nil, own, s.body), false
}

// key tells statements apart on a link.
func (c *Conv) key(l *Link, s *stmt) string {
	b := append(append(make([]byte, 0, len(s.body)+64), s.body...), 0)
	b, ok := c.fold(binary.AppendUvarint(b, s.plans), l)
	if !ok || timely(s.body) { // under settings that are not known, or of this moment: it is nobody else's
		l.stmts.private++
		b = binary.BigEndian.AppendUint64(append(b, 0), uint64(l.stmts.private))
	}
	return string(b)
}

// close forgets one of the link's names.
func (c *Conv) close(r *run, l *Link, own string) {
	r.flush()
	l.sent(entry{kind: closing, ours: true})
	r.fx.add(Effect{Kind: Send, Side: r.to, B: r.fx.statement('C', own)})
}

// has is the link's name for a statement, which is prepared there if need be.
func (c *Conv) has(r *run, l *Link, s *stmt) (own string) {
	if s.key == "" || l.stmts.names[s.key] == nil {
		s.key = c.key(l, s)
	}
	own, fresh, gone := l.stmts.use(s.key)
	if gone != "" {
		c.close(r, l, gone)
	}
	if fresh {
		c.unsure = c.unsure || r.to == Main
		c.prepares(r, l, own, s.body, entry{kind: parse, ours: true, note: &note{body: s.key}})
	}
	return own
}

// hasPlain prepares the unnamed statement, if another one is there.
func (c *Conv) hasPlain(r *run, l *Link, s *stmt) {
	body := s.body
	switch {
	case l.plain == s && c.current(l, s):
		return
	case s.origin != "":
		body = string(c.renewed(r, s, []byte(s.origin)))
	case body == "": // it was left on another server
		l.plain = nil
		c.close(r, l, "")
		return
	}
	s.had = l.plain
	l.plain = s
	c.prepares(r, l, "", body, entry{kind: parse, ours: true, plain: s})
}

// prepares sends a Parse of ours.
func (c *Conv) prepares(r *run, l *Link, name, body string, e entry) {
	r.flush()
	l.sent(e)
	at := len(r.fx.own)
	r.fx.own = appendParse(r.fx.own, name, body)
	r.fx.Marks.ServerParses++
	r.fx.add(Effect{Kind: Send, Side: r.to, B: r.fx.own[at:]})
}

// given gives the link a statement that a message of the client's names, and returns
// the name that it has there.
func (c *Conv) given(r *run, l *Link, name []byte, s *stmt) (own string, renamed bool) {
	switch {
	case s == nil && len(name) == 0 && c.renames() && l.plain != nil: // somebody else's
		l.plain = nil
		c.close(r, l, "")
		return "", false
	case s == nil && c.renames() && bytes.HasPrefix(name, prefix):
		return "?" + string(name), true // which does not exist
	case s == nil:
		return "", false
	case len(name) == 0:
		c.hasPlain(r, l, s)
		return "", false
	case (c.renames() || r.to == Reader) && s.body != "":
		return c.has(r, l, s), true
	case s.origin != "" && !c.current(l, s):
		c.close(r, l, string(name))
		c.prepares(r, l, string(name), string(c.renewed(r, s, []byte(s.origin))), entry{kind: parse, ours: true})
	}
	return "", false
}

// bind notes what is about to be executed, and renames its statement.
func (c *Conv) bind(r *run, msg []byte) (n *note, s *stmt, head int, instead []byte) {
	c.read.wrote = true
	portal, rest, _ := bytes.Cut(msg[headerLen:], zero)
	name, _, ok := bytes.Cut(rest, zero)
	s = c.statement(name)
	if !ok {
		c.unknown("a prepared statement that was not seen")
		return nil, nil, 0, nil
	}
	c.binds(r, portal, s)
	own, renamed := c.given(r, c.links[Main], name, s)
	if !renamed {
		return nil, nil, 0, nil
	}
	if s == nil {
		n = stranger(string(name))
	}
	head = headerLen + len(portal) + 1 + len(name) + 1
	at := len(r.fx.own)
	r.fx.own = appendBind(r.fx.own, msg, portal, name, own)
	return n, s, head, r.fx.own[at:]
}

// binds notes what a Bind means.
func (c *Conv) binds(r *run, portal []byte, s *stmt) {
	if s == nil {
		c.owed.wrote = true
		if !c.renames() {
			c.pinned("a prepared statement that was not seen")
		}
		return
	}
	c.renew(s)
	s.bound = true
	n := c.effect(r, s.about, s.sql, true)
	if again := c.set.behind(s.about); again != nil {
		if n == nil {
			n = &note{}
		}
		n.again = again
	}
	if s.deeds != nil {
		if n == nil {
			n = &note{}
		}
		n.deeds, n.aliases = s.deeds, s.aliases
	}
	switch {
	case len(portal) == 0:
		c.bound = n
	case n != nil && c.portals == nil:
		c.portals = map[string]*note{string(portal): n}
	case n != nil:
		c.portals[string(portal)] = n
	default:
		delete(c.portals, string(portal))
	}
}

// appendBind writes the beginning of a Bind with another name.
func appendBind(b, msg, portal, name []byte, own string) []byte {
	total := int(binary.BigEndian.Uint32(msg[1:])) - len(name) + len(own)
	b = binary.BigEndian.AppendUint32(append(b, 'B'), uint32(total))
	b = append(append(b, portal...), 0)
	return append(append(b, own...), 0)
}

// executes is what an Execute means.
func (c *Conv) executes(r *run, msg []byte) (n *note, instead []byte) {
	if unnamed(msg) && c.bare {
		return c.executesNone(r, msg)
	} else if unnamed(msg) {
		n, c.bound = c.bound, nil
	} else {
		name, _, _ := bytes.Cut(msg[headerLen:], zero)
		n = c.portals[string(name)]
		delete(c.portals, string(name))
	}
	if n != nil {
		c.stamp(n)
		c.drops(n, c.links[Main])
	}
	return n, nil
}

// describe renames a Describe's statement.
func (c *Conv) describe(r *run, msg []byte) (n *note, s *stmt, instead []byte) {
	name, ok := named(msg)
	if !ok {
		return nil, nil, nil
	}
	s = c.statement(name)
	own, renamed := c.given(r, c.links[Main], name, s)
	if !renamed {
		return nil, nil, nil
	}
	if s == nil {
		n = stranger(string(name))
	}
	return n, s, r.fx.statement('D', own)
}

// statement writes a Describe or Close of a statement.
func (fx *Effects) statement(typ byte, own string) []byte {
	at := len(fx.own)
	fx.own = binary.BigEndian.AppendUint32(append(fx.own, typ), uint32(4+1+len(own)+1))
	fx.own = append(append(append(fx.own, 'S'), own...), 0)
	return fx.own[at:]
}

// closed forgets a statement that the client closes. The link keeps its own.
func (c *Conv) closed(msg []byte) (e entry, local bool) {
	e.kind = closing
	name, ok := named(msg)
	if !ok {
		return e, false
	}
	if len(name) > 0 {
		s := c.stmts[string(name)]
		e.note = &note{closed: string(name), was: s, at: c.serial}
		// One that nobody knows is closed already, unless it was made by PREPARE.
		local = c.renames() && (s != nil && s.body != "" || s == nil && (c.pin == "" || bytes.HasPrefix(name, prefix)))
	}
	c.forget(string(name))
	if local {
		e.local = '3'
	}
	return e, local
}

// isClosed: a Close was answered. What was closed before it, and came back because
// that was skipped, is closed now.
func (c *Conv) isClosed(n *note) {
	if n == nil {
		return
	}
	if s := c.stmts[n.closed]; s != nil && s.serial <= n.at {
		c.forget(n.closed)
	}
}

// named is the statement that a Describe or Close is about.
func named(msg []byte) (name []byte, ok bool) {
	if len(msg) <= headerLen+1 || msg[headerLen] != 'S' {
		return nil, false
	}
	name, _, ok = bytes.Cut(msg[headerLen+1:], zero)
	return name, ok
}

func (c *Conv) remember(name string, s *stmt) {
	c.forget(name)
	if len(c.stmts) >= maxStatements {
		return
	}
	if c.stmts == nil {
		c.stmts = map[string]*stmt{}
	}
	c.kept += len(s.body)
	c.stmts[name], s.name = s, name
	if s.serial == 0 {
		c.serial++
		s.serial = c.serial
	}
}

func (c *Conv) forget(name string) {
	if name == "" {
		c.plain = nil
	} else if s := c.stmts[name]; s != nil {
		c.kept -= len(s.body)
		delete(c.stmts, name)
	}
}

// forgotten are the statements that DEALLOCATE ALL forgets: those from before it.
type forgotten struct {
	serial int // the client's last one
	seq    int // the link's
}

// stamp notes which statements there are when one is executed that may forget them.
func (c *Conv) stamp(n *note) {
	if n != nil {
		n.forgets = forgotten{c.serial, c.links[Main].stmts.seq}
	}
}

// forgetAll is DEALLOCATE ALL.
func (c *Conv) forgetAll(f forgotten, l *Link) {
	for name, s := range c.stmts {
		if s.serial <= f.serial {
			c.forget(name)
		}
	}
	l.stmts.clear(f.seq)
}

// statement is the client's of that name, or nil.
func (c *Conv) statement(name []byte) *stmt {
	if len(name) == 0 {
		return c.plain
	}
	return c.stmts[string(name)]
}

// revive takes back that a statement was closed.
func (c *Conv) revive(name string, s *stmt) {
	if !s.dead && c.stmts[name] == nil {
		c.remember(name, s)
	}
}

// lost notes that a message was skipped, or has failed.
func (c *Conv) lost(l *Link, e entry) {
	n := e.note
	if p := e.plain; p != nil {
		if l.plain == p {
			l.plain = p.had
		}
		if c.plain == p && !e.ours {
			c.plain = p.before
		}
		p.before, p.had = nil, nil
	}
	if n == nil {
		return
	}
	c.undid(n)
	c.strange = c.strange || e.ours && n.numbers > 0
	if c.plain == nil && (n.before != nil || n.had != nil) {
		c.plain, l.plain = n.before, n.had
	}
	if n.body != "" {
		l.stmts.lost(n.body)
	}
	if n.made != "" {
		n.is.dead = true
		if c.stmts[n.made] == n.is {
			c.forget(n.made)
		}
	}
	if n.was != nil {
		c.revive(n.closed, n.was)
	}
	for name, s := range n.all {
		c.revive(name, s)
	}
}
