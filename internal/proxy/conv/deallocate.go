package conv

import (
	"bytes"
	"strings"

	"manada/internal/proxy/wire"
)

// stranger is the note of a message whose statement nobody has, with a name like ours.
func stranger(name string) *note { return &note{alias: "?" + name, name: name} }

// deallocate renames the statement of a DEALLOCATE.
func (c *Conv) deallocate(r *run, msg []byte) (n *note, instead []byte) {
	name := deallocated(textOf(msg))
	s := c.stmts[name]
	switch {
	case s == nil && strings.HasPrefix(name, string(prefix)):
		return stranger(name), wire.AppendMessage(nil, wire.TypeQuery, []byte("DEALLOCATE "+identifier("?"+name)+"\x00"))
	case name == "" || s == nil || s.body == "":
		return nil, nil
	}
	l := c.links[Main]
	before := l.q.n
	own := c.has(r, l, s)
	if l.q.n > before { // were it to fail, the Query would be skipped
		l.q.at(l.q.n - 1).note.quiet = true
		l.sent(entry{kind: syncing, ours: true})
		r.fx.say(Main, wire.TypeSync, nil)
	}
	return &note{alias: own, name: name, drops: name, body: s.key}, wire.AppendMessage(nil, wire.TypeQuery, []byte("DEALLOCATE "+identifier(own)+"\x00"))
}

// deallocates is the text for a DEALLOCATE that is prepared; "" leaves it as it is.
func (c *Conv) deallocates(r *run, s *stmt, sql string) string {
	name := deallocated([]byte(sql))
	old := c.stmts[name]
	switch {
	case old == nil && strings.HasPrefix(name, string(prefix)):
		s.drops = stranger(name)
		return "DEALLOCATE " + identifier("?"+name)
	case name == "" || old == nil || old.body == "":
		return ""
	}
	own := c.has(r, c.links[Main], old)
	s.drops = &note{alias: own, name: name, drops: name, body: old.key}
	return "DEALLOCATE " + identifier(own)
}

// deallocated is the name in DEALLOCATE [PREPARE] name; "" for all, and where it is
// not written plainly.
func deallocated(sql []byte) string {
	f := bytes.Fields(bytes.TrimRight(sql, "; \t\r\n"))
	if len(f) == 3 && bytes.EqualFold(f[1], []byte("prepare")) {
		f = f[1:]
	}
	if len(f) != 2 || bytes.EqualFold(f[1], []byte("all")) {
		return ""
	}
	name := f[1]
	if name[0] == '"' && len(name) > 2 {
		return string(name[1 : len(name)-1])
	}
	return string(bytes.ToLower(name))
}
