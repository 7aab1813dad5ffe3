package conv

import (
	"bytes"
	"slices"
	"strings"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// SQL has its own words for prepared statements: PREPARE, EXECUTE, DEALLOCATE. Their
// names are those of the protocol. Where the link has a statement under a name of its
// own, that is put into the text.

// alias is the name of a statement that the server has under another one.
type alias struct{ own, name string }

// stranger is the note of a message whose statement nobody has, with a name like ours.
func stranger(name string) *note { return &note{aliases: []alias{{"?" + name, name}}} }

// deed is what a statement does to prepared ones once it has succeeded. It is not
// undone by a rollback.
type deed struct {
	classify.Use
	key string // of the link's
}

// aliased puts the link's names into a client's text.
func (c *Conv) aliased(r *run, w *rewritten, uses []classify.Use) {
	l := c.links[Main]
	for _, u := range uses {
		a := deed{Use: u}
		if own, key := c.own(r, l, u.Name); own != "" {
			a.key = key
			w.aliases = append(w.aliases, alias{own, u.Name})
			w.edits = append(w.edits, edit{u.Span, identifier(own)})
		}
		w.deeds = append(w.deeds, a)
	}
}

// own is the link's name for a statement of the client's; "" where it is the client's.
func (c *Conv) own(r *run, l *Link, name string) (own, key string) {
	s := c.stmts[name]
	switch {
	case s == nil && strings.HasPrefix(name, string(prefix)):
		return "?" + name, ""
	case s == nil || s.body == "" || !c.renames():
		return "", ""
	}
	own = c.has(r, l, s)
	return own, s.key
}

// apart ends what was prepared before a Query, from place from of the queue: were it to
// fail, the Query would be skipped.
func (c *Conv) apart(l *Link, from int, fx *Effects) {
	if l.q.n == from {
		return
	}
	for ; from < l.q.n; from++ {
		if n := l.q.at(from).note; n != nil {
			n.quiet = true
		}
	}
	l.sent(entry{kind: syncing, ours: true})
	fx.say(Main, wire.TypeSync, nil)
}

// deeds is what a statement does that names none.
func deeds(uses []classify.Use) (out []deed) {
	for _, u := range uses {
		out = append(out, deed{Use: u})
	}
	return out
}

// renewed is a Parse message behind the name, with the link's names of now.
func (c *Conv) renewed(r *run, s *stmt, body []byte) []byte {
	var w rewritten
	c.aliased(r, &w, s.about.Prepared)
	s.deeds, s.aliases = w.deeds, w.aliases
	return w.body(body)
}

// current says whether the names in a statement are the link's yet.
func (c *Conv) current(l *Link, s *stmt) bool {
	for _, u := range s.about.Prepared {
		own := ""
		for _, a := range s.aliases {
			if a.name == u.Name {
				own = a.own
			}
		}
		switch old := c.stmts[u.Name]; {
		case s.origin == "":
		case old == nil && own != "" && own[0] == '?':
		case old == nil || old.body == "":
			if own != "" {
				return false
			}
		case l.stmts.names[old.key] == nil || l.stmts.names[old.key].name != own:
			return false
		}
	}
	return true
}

// drops forgets what an Execute of DEALLOCATE or DISCARD ALL drops, before what comes
// behind it: as a Close it is undone where it is skipped.
func (c *Conv) drops(n *note, l *Link) {
	all := n.about.Kind == classify.Discard
	for _, a := range n.deeds {
		all = all || a.What == classify.DropsAll
		if s := c.stmts[a.Name]; s != nil && a.What == classify.Drops {
			n.closed, n.was, n.at = a.Name, s, c.serial
			c.forget(a.Name)
			l.stmts.lost(a.key)
		}
	}
	if all {
		n.all, c.stmts, c.kept = c.stmts, nil, 0
	}
}

// acted: a statement that names prepared ones has succeeded.
func (c *Conv) acted(a deed, n *note, l *Link) {
	switch {
	case a.What == classify.DropsAll:
		c.forgetAll(n.forgets, l)
	case a.What == classify.Makes && c.cfg.Mode == Auto:
		c.remember(a.Name, &stmt{about: about{Kind: classify.Pin, Why: "PREPARE"}})
	case a.What == classify.Drops && n.text != nil:
		c.forget(a.Name)
		l.stmts.lost(a.key)
	}
}

// clients writes an error with the client's names.
func (n *note) clients(body []byte) []byte {
	for _, a := range n.aliases {
		body = bytes.ReplaceAll(body, []byte(a.own), []byte(a.name))
	}
	return body
}

// clients writes an error about a statement with the client's name; nil: it names none.
func (s *stmt) clients(body []byte) []byte {
	at := bytes.Index(body, prefix)
	if at < 0 {
		return nil
	}
	to := at + len(prefix)
	for to < len(body) && body[to] >= '0' && body[to] <= '9' {
		to++
	}
	return slices.Concat(body[:at], []byte(s.name), body[to:])
}
