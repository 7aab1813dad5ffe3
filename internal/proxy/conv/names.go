package conv

import "manada/internal/proxy/classify"

// naming follows what changes the names of Config.Dangerous. A statement that makes what
// may leave something behind is answered when the names were read again: who hears of
// it finds them changed, whoever it tells.
type naming struct {
	changed bool // by what was sent, since they were read
	asked   bool
	read    bool
}

// defines notes a statement that is about to be executed. What a transaction has made
// is in no names before it ends.
func (c *Conv) defines(is about) {
	switch {
	case c.cfg.Mode != Auto || c.cfg.Dangerous == nil:
	case is.Suspect:
		c.names.changed = true
	case c.names.changed && !is.Ends && !is.Defines:
		c.pinned("what its transaction has made")
	}
}

// learns says whether a ReadyForQuery of Main has to wait for the names. It is the
// last one that is owed: what was sent before is done.
func (c *Conv) learns(r *run, l *Link, status byte) bool {
	n := &c.names
	switch {
	case !n.changed || status != 'I' || l.q.n != 1:
		return false
	case n.read:
		*n = naming{}
		return false
	case !n.asked:
		n.asked = true
		r.fx.add(Effect{Kind: Stop, Side: Main})
		r.fx.add(Effect{Kind: AskNames})
	}
	return true
}

// named: the names were read.
func (n *naming) named(fx *Effects) {
	if n.asked && !n.read {
		n.read = true
		fx.add(Effect{Kind: Start, Side: Main})
	}
}

// version of the names.
func (c *Conv) version() uint64 {
	if c.cfg.Dangerous == nil {
		return 0
	}
	return c.cfg.Dangerous.Version()
}

// renew looks at a prepared statement again when the names have changed since.
func (c *Conv) renew(s *stmt) {
	v := c.version()
	if s.names == v || s.body == "" {
		return
	}
	s.names = v
	if is := c.classified(s.text()); is.Kind == classify.Pin {
		s.about.Kind, s.about.Why = is.Kind, is.Why
	}
}
