package rules

import "time"

// tick is how often Tick is worth its while at most: how exact time-outs are.
const tick = 10 * time.Millisecond

// Next is when Tick has something to do, at the earliest; it may turn out to be
// nothing. Earlier moments come with what is told meanwhile.
func (b *Book) Next() Moment {
	if b.next == never {
		return never
	}
	return max(b.next, b.ticked+tick)
}

func (b *Book) soon(m Moment) { b.next = min(b.next, m) }

// Tick does what time alone brings about: it ends waits and unused servers, opens
// those that are to be kept, and tries again what failed.
func (b *Book) Tick(now Moment, out []Decision) []Decision {
	b.next, b.ticked = never, now
	for _, a := range b.sortedAccounts() {
		for _, p := range a.pools {
			out = b.expire(now, p, out)
			out = b.wither(now, p, out)
			out = b.serve(now, p, out)
		}
		b.forget(a)
	}
	for _, n := range b.nodes {
		out = b.feed(now, n, out)
	}
	return b.settle(out)
}

// expire denies those who have waited for too long.
func (b *Book) expire(now Moment, p *Pool, out []Decision) []Decision {
	s := &p.Account.Settings
	for c := p.waiting.first; c != nil; c = p.waiting.first {
		if s.QueueTimeout == 0 || now-c.since < s.QueueTimeout {
			break
		}
		out = b.deny(c, Decision{Err: b.errQueue(c)}, out)
	}
	if c := p.waiting.first; c != nil {
		if s.QueueTimeout > 0 {
			b.soon(c.since + s.QueueTimeout)
		}
		if at := c.since + s.ReserveTimeout; s.Reserve > 0 && at > now {
			b.soon(at)
		}
	}
	return out
}

// wither closes servers that are too old or were not used for too long.
func (b *Book) wither(now Moment, p *Pool, out []Decision) []Decision {
	t := p.Account.Settings.IdleTimeout
	staying := 0
	for _, s := range p.servers {
		if s.state != closing {
			staying++
		}
	}
	least := p.Account.Settings.Min
	if p.Account.clients == 0 {
		least = 0
	}
	for _, s := range p.servers {
		if s.state != idle {
			continue
		}
		if b.unfit(now, s) != "" || t > 0 && now-s.since >= t && staying > least {
			out = b.close(s, nil, out)
			staying--
			continue
		}
		if t > 0 && staying > least {
			b.soon(s.since + t)
		}
		if s.expires > 0 {
			b.soon(s.expires)
		}
	}
	return out
}
