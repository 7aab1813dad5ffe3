package conv

import "manada/internal/proxy/wire"

// The unnamed portal that a failed Query has left in its transaction must not be executed:
// PostgreSQL 15 reads there what it has freed (portal->stmts in exec_execute_message), and
// may crash. Nobody has a use for it either: where the Query did not fail there is none.

// unnamed says whether a Bind or Execute is of the unnamed portal.
func unnamed(msg []byte) bool { return len(msg) > headerLen && msg[headerLen] == 0 }

// unfilled notes that what e was to do with the unnamed portal was not done.
func (c *Conv) unfilled(l *Link, e entry) {
	if !e.fills {
		return
	}
	for i := range l.q.n {
		if next := l.q.at(i); next.fills {
			next.bare = e.bare
			return
		}
	}
	c.bare = e.bare
}

// mayBeBare says whether a Bind of an earlier batch is not answered yet: if it fails, the
// portal that an Execute names is what a Query has left.
func (c *Conv) mayBeBare(typ byte, msg []byte) bool {
	l := c.links[Main]
	return typ == 'E' && l != nil && !l.failing && !c.bare && !c.rebound && unnamed(msg) && l.q.rebinds()
}

// rebinds says whether a Bind takes the place of what a Query has left.
func (q *queue) rebinds() bool {
	for i := range q.n {
		if e := q.at(i); e.kind == bind && e.bare {
			return true
		}
	}
	return false
}

// noOne is a name that no portal has, and no statement.
const noOne = "manada:none"

// executesNone has PostgreSQL say that there is no such portal.
func (c *Conv) executesNone(r *run, msg []byte) (n *note, instead []byte) {
	at := len(r.fx.own)
	r.fx.own = wire.AppendMessage(r.fx.own, 'E', append([]byte(noOne), msg[headerLen:]...))
	return &note{aliases: []alias{{noOne, ""}}}, r.fx.own[at:]
}
