package rules

import "manada/internal/proxy/wire"

// Opened says that a connection is logged in, on a loop.
func (b *Book) Opened(now Moment, s *Server, loop int, out []Decision) []Decision {
	if s.state != opening {
		return out // a Close is on its way
	}
	b.arrived(s)
	s.state, s.Loop, s.opened = used, loop, now // by nobody yet
	s.expires = b.expiry(s)
	s.Pool.retry, s.Pool.Node.retry = backoff{}, backoff{}
	out = b.release(now, s, out)
	out = b.serve(now, s.Pool, out) // more than one at a time again
	return b.settle(b.feed(now, s.Pool.Node, out))
}

// arrived ends the state opening.
func (b *Book) arrived(s *Server) {
	s.Pool.opening--
	s.Pool.Node.opening--
}

// Gave says that a client gave its server back. Unless it is clean, nobody may have
// it, and it is closed.
func (b *Book) Gave(now Moment, s *Server, clean bool, out []Decision) []Decision {
	if s.state != used {
		return out
	}
	s.holder = nil
	if !clean {
		out = b.close(s, nil, out)
		return b.settle(out)
	}
	return b.settle(b.release(now, s, out))
}

// release decides what becomes of a server that is free just now.
func (b *Book) release(now Moment, s *Server, out []Decision) []Decision {
	p := s.Pool
	s.since = now
	if b.unfit(now, s) != "" || b.held(p) || b.over(p) {
		return b.close(s, nil, out)
	}
	if q := b.heir(now, s); q != nil && !b.stands(q) {
		out = b.close(s, q, out)
		return b.grow(now, q, 0, out)
	}
	if p.waiting.n > 0 && !b.stands(p) {
		c := p.waiting.first
		if b.without == fifo {
			c = p.waiting.last
		}
		return b.hand(now, s, c, out)
	}
	s.state = idle
	p.idle[s.Loop].push(s, ofServer)
	p.Node.idle.push(s, ofNode)
	if t := p.Account.Settings.IdleTimeout; t > 0 {
		b.soon(now + t)
	}
	if s.expires > 0 {
		b.soon(s.expires)
	}
	if p.Node.starved.n+p.Node.hungry.n > 0 {
		b.soon(now + stay)
	}
	return out
}

// unlist takes an idle server out of the lists of such.
func (s *Server) unlist() {
	s.Pool.idle[s.Loop].remove(s, ofServer)
	s.Pool.Node.idle.remove(s, ofNode)
}

// unfit says why a server may be handed to nobody; empty: it may.
func (b *Book) unfit(now Moment, s *Server) string {
	switch {
	case s.epoch != s.Pool.Node.epoch && b.without != epochs:
		return "it is of an epoch before"
	case s.generation != s.Pool.Account.generation && b.without != generations:
		return "it is older than a change of its role or database"
	case s.expires > 0 && now >= s.expires:
		return "its lifetime is over"
	}
	return ""
}

// expiry is when a server's lifetime ends: up to a fifth before the time, so that
// those that were opened together are not opened anew together.
func (b *Book) expiry(s *Server) Moment {
	l := s.Pool.Account.Settings.Lifetime
	if l == 0 {
		return 0
	}
	b.spread = (b.spread + 61) % 100 // goes through all of them
	return s.opened + l - l/500*Moment(b.spread)
}

// close asks for a server's end, so that q gets its place when that is not nil.
func (b *Book) close(s *Server, q *Pool, out []Decision) []Decision {
	switch s.state {
	case closing:
		return out
	case idle:
		s.unlist()
	case opening:
		b.arrived(s)
	}
	s.state, s.holder = closing, nil
	s.Pool.closing++
	s.Pool.Node.closing++
	if q != nil {
		s.closeFor = q
		q.due++
	}
	return append(out, Decision{Kind: Close, Server: s})
}

// Closed says that a connection is gone, asked for or not.
func (b *Book) Closed(now Moment, s *Server, out []Decision) []Decision {
	p := s.Pool
	if s.at < 0 {
		return out
	}
	switch s.state {
	case closing:
		p.closing--
		p.Node.closing--
	case idle:
		s.unlist()
	case opening:
		b.arrived(s)
	}
	last := len(p.servers) - 1
	p.servers[s.at] = p.servers[last]
	p.servers[s.at].at = s.at
	p.servers = p.servers[:last]
	s.at, s.state, s.holder = -1, closing, nil
	p.Node.count--
	if q := s.closeFor; q != nil {
		q.due--
		out = b.grow(now, q, 1, out)
		b.forget(q.Account)
	}
	out = b.serve(now, p, out)
	out = b.feed(now, p.Node, out)
	b.forget(p.Account)
	return b.settle(out)
}

// Failed says that a connection could not be opened. It is gone.
func (b *Book) Failed(now Moment, s *Server, err *wire.Error, out []Decision) []Decision {
	p := s.Pool
	if s.state != opening {
		return b.Closed(now, s, out)
	}
	switch {
	case final(err):
		p.retry.failed(now, err)
		if revokes(err) {
			out = b.stale(now, p.Account, out)
		}
		if len(p.servers) == 1 { // no other that could serve them
			out = b.denyAll(p, Decision{Err: err}, out)
		}
		out = b.denyAstray(p, Decision{Err: err}, out)
	case err.Code == tooMany:
		p.retry.failed(now, err)
		if others := p.Node.idle.first; others != nil && others.Pool != p && len(p.servers) == 1 {
			out = b.close(others, nil, out)
			p.retry.at = now // as soon as that one is gone
		}
	default:
		p.Node.retry.failed(now, err)
	}
	return b.Closed(now, s, out)
}

// Leaving says whether a server is to be closed.
func (s *Server) Leaving() bool { return s.state == closing }
