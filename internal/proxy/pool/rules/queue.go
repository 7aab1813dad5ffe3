package rules

// Want asks for a server of an account at a node, or at whoever leads when n is
// nil, for a client on a loop. The answer may be among the decisions at once; else
// the claim waits behind those who came before.
func (b *Book) Want(now Moment, c *Claim, a *Account, n *Node, loop int, out []Decision) []Decision {
	if c.pool != nil {
		return out // it waits already
	}
	c.account, c.loop, c.since, c.anyNode = a, loop, now, n == nil
	b.lastClaim++
	c.order = b.lastClaim
	if n == nil {
		n = b.primary
	} else if n.limit == 0 && n != b.nowhere { // it has left
		return append(out, Decision{Kind: Deny, Claim: c})
	}
	p := b.pool(a, n)
	if p.waiting.n == 0 && !b.stands(p) {
		if s := p.unused(loop); s != nil && b.unfit(now, s) == "" {
			return b.hand(now, s, c, out)
		}
	}
	if err := p.retry.refusal(now); err != nil && len(p.servers) == 0 {
		return append(out, Decision{Kind: Deny, Claim: c, Err: err})
	}
	c.pool = p
	p.waiting.push(c, ofClaim)
	if q := a.Settings.QueueTimeout; q > 0 {
		b.soon(now + q)
	}
	if a.Settings.Reserve > 0 {
		b.soon(now + a.Settings.ReserveTimeout)
	}
	return b.settle(b.serve(now, p, out))
}

// AtHand is Want for one who would not wait: a server at whoever leads that is unused on
// the loop, where nobody waits before, is the claim's; nil: there is none.
func (b *Book) AtHand(now Moment, c *Claim, a *Account, loop int) *Server {
	if c.pool != nil {
		return nil
	}
	p := b.pool(a, b.primary)
	if p.waiting.n > 0 || b.stands(p) {
		return nil
	}
	s := p.idle[loop].last
	if s == nil || b.unfit(now, s) != "" {
		return nil
	}
	c.account, c.loop = a, loop
	b.taken(now, s, c)
	return s
}

// Withdraw takes a claim that waits out of its queue: the client left. One that was
// handed a server meanwhile has to give that back.
func (b *Book) Withdraw(now Moment, c *Claim, out []Decision) []Decision {
	p := c.pool
	if p == nil {
		return out
	}
	p.waiting.remove(c, ofClaim)
	c.pool = nil
	return b.settle(b.serve(now, p, out)) // it may be that nobody wants what it waited for
}

// deny answers a claim that waits.
func (b *Book) deny(c *Claim, d Decision, out []Decision) []Decision {
	c.pool.waiting.remove(c, ofClaim)
	c.pool = nil
	d.Kind, d.Claim = Deny, c
	return append(out, d)
}

// denyAll answers everybody in a pool's queue.
func (b *Book) denyAll(p *Pool, d Decision, out []Decision) []Decision {
	for p.waiting.first != nil {
		out = b.deny(p.waiting.first, d, out)
	}
	return out
}

// hand gives a server to a claim, which leaves the queue if it was in one.
func (b *Book) hand(now Moment, s *Server, c *Claim, out []Decision) []Decision {
	if c.pool != nil {
		c.pool.waiting.remove(c, ofClaim)
		c.pool = nil
	}
	from := s.Loop
	b.taken(now, s, c)
	return append(out, Decision{Kind: Hand, Server: s, Claim: c, From: from})
}

// taken makes a server a claim's.
func (b *Book) taken(now Moment, s *Server, c *Claim) {
	if s.state == idle {
		s.unlist()
	}
	s.state, s.holder, s.since, s.Loop = used, c, now, c.loop
}

// held says whether an order of the console holds a pool.
func (b *Book) held(p *Pool) bool {
	return (b.pausedAll || p.Account.Database.paused) && b.without != pauses
}

// stands says whether nothing of a pool is handed out at present, or opened for it.
func (b *Book) stands(p *Pool) bool {
	return b.held(p) || p.Node == b.holding && b.without != holds
}

// unused is the idle server that was used last, on this loop if there is one.
func (p *Pool) unused(loop int) *Server {
	if s := p.idle[loop].last; s != nil {
		return s
	}
	for i := range p.idle {
		if s := p.idle[i].last; s != nil {
			return s
		}
	}
	return nil
}
