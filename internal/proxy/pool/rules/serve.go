package rules

import (
	"slices"
	"time"
)

// serve hands idle servers to those who wait, and opens more where it may.
func (b *Book) serve(now Moment, p *Pool, out []Decision) []Decision {
	for p.waiting.n > 0 && !b.stands(p) {
		c := p.waiting.first
		s := p.unused(c.loop)
		if s == nil {
			break
		}
		if b.unfit(now, s) != "" {
			out = b.close(s, nil, out)
			continue
		}
		out = b.hand(now, s, c, out)
	}
	return b.grow(now, p, maxOpening, out)
}

// grow opens at most so many connections for a pool, and lists it among those who
// want one where only the node is in the way.
func (b *Book) grow(now Moment, p *Pool, most int, out []Decision) []Decision {
	p.unlist()
	for b.wants(p) && b.room(now, p) {
		n := p.Node
		switch {
		case (n.opens(now) || b.without == nodeLimit && n.count == n.limit) && most > 0:
			most--
			out = b.open(now, p, out)
			continue
		case n.count >= n.limit && p.waiting.n > 0:
			if s := b.evictable(now, p); s != nil {
				out = b.close(s, p, out)
				continue
			}
		}
		p.list()
		break
	}
	if at := max(p.retry.at, p.Node.retry.at); at > now {
		b.soon(at)
	}
	return out
}

// wants says whether a pool has use for one more connection.
func (b *Book) wants(p *Pool) bool {
	if p.Node == b.nowhere || b.stands(p) {
		return false
	}
	have := p.opening + p.due
	return p.waiting.n > have || p.Account.clients > 0 && len(p.servers)+p.due < p.Account.Settings.Min
}

// room says whether a pool's own limits and its last failure allow one more.
func (b *Book) room(now Moment, p *Pool) bool {
	return (len(p.servers)+p.due < p.capacity(now) || b.without == poolLimit) && p.retry.allows(now, p.opening+p.due)
}

// capacity is how many servers a pool may have, the reserve included once its first
// has waited for long enough.
func (p *Pool) capacity(now Moment) int {
	s := &p.Account.Settings
	n := s.Size
	if n == 0 {
		return p.Node.limit
	}
	if s.Reserve > 0 && p.waiting.n > 0 && now-p.waiting.first.since >= s.ReserveTimeout {
		n += s.Reserve
	}
	return min(n, p.Node.limit)
}

func (b *Book) open(now Moment, p *Pool, out []Decision) []Decision {
	s := &Server{Pool: p, Loop: -1, state: opening, since: now, opened: now, generation: p.Account.generation, epoch: p.Node.epoch, at: len(p.servers)}
	if p.waiting.first != nil {
		s.Loop = p.waiting.first.loop
	}
	p.servers = append(p.servers, s)
	p.opening++
	p.Node.opening++
	p.Node.count++
	return append(out, Decision{Kind: Open, Server: s})
}

// How long an unused server is left alone by pools that have about as many, and a
// used one by those of the same node that have none. Without the first, two pools
// at the node's limit would take their connections from each other at each query;
// without the second, thousands of pools would do nothing but log in.
const (
	stay = time.Second
	turn = 50 * time.Millisecond
)

// evictable is the unused server of another pool whose place p may have: the one
// that was unused for longest.
func (b *Book) evictable(now Moment, p *Pool) *Server {
	if b.without == eviction {
		return nil
	}
	looked := 0
	for s := p.Node.idle.first; s != nil && looked < 16; s = s.all.next {
		if s.Pool != p && mayTakeIdle(now, p, s) {
			return s
		}
		looked++
	}
	if s := p.Node.idle.first; s != nil && p.waiting.n > 0 {
		b.soon(s.since + stay)
	}
	return nil
}

func mayTakeIdle(now Moment, p *Pool, s *Server) bool {
	has, have := len(p.servers)+p.due, len(s.Pool.servers)
	return has == 0 || has+2 <= have || now-s.since >= stay
}

// heir is the pool that gets the place of a server that is free just now, for the
// node has no other: when it has fewer, or none and its first came earlier.
func (b *Book) heir(now Moment, s *Server) *Pool {
	p, n := s.Pool, s.Pool.Node
	if n.count < n.limit || b.without == sharing {
		return nil
	}
	q := n.starved.first
	if q == nil {
		q = n.hungry.first
	}
	if q == nil || q == p || q.waiting.n == 0 {
		return nil
	}
	if p.waiting.n == 0 {
		if mayTakeIdle(s.since, q, s) {
			return q
		}
		return nil
	}
	has, have := len(q.servers)+q.due, len(p.servers)
	if has+2 <= have || has == 0 && q.waiting.first.order < p.waiting.first.order && now-s.opened >= turn {
		return q
	}
	return nil
}

// feed opens connections for pools that wait for the node.
func (b *Book) feed(now Moment, n *Node, out []Decision) []Decision {
	for n.opens(now) {
		p := n.starved.first
		if p == nil {
			p = n.hungry.first
		}
		if p == nil {
			break
		}
		out = b.grow(now, p, 1, out)
	}
	return out
}

// list puts a pool among those who wait for its node.
func (p *Pool) list() {
	l := &p.Node.hungry
	if len(p.servers)+p.due == 0 {
		l = &p.Node.starved
	}
	p.in = l
	l.push(p, ofPool)
}

func (p *Pool) unlist() {
	if p.in != nil {
		p.in.remove(p, ofPool)
		p.in = nil
	}
}

// trim closes the unused servers of a pool that nobody may have any more, or that
// are too many.
func (b *Book) trim(p *Pool, out []Decision) []Decision {
	for _, s := range slices.Clone(p.servers) {
		if s.state == idle && (b.unfit(s.since, s) != "" || b.over(p)) {
			out = b.close(s, nil, out)
		}
	}
	return out
}

// over says whether a pool or its node has more servers than it may, those that
// are being closed left out.
func (b *Book) over(p *Pool) bool {
	limit := p.Account.Settings.Size + p.Account.Settings.Reserve
	return p.Account.Settings.Size > 0 && len(p.servers)-p.closing > limit || p.Node.count-p.Node.closing > p.Node.limit
}
