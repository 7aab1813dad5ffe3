package rules

import "slices"

// Node finds a node by its name, or adds it: with limit 0, until SetNode says more.
func (b *Book) Node(name string) *Node {
	for _, n := range b.nodes {
		if n.Name == name {
			return n
		}
	}
	n := &Node{Name: name}
	b.nodes = append(b.nodes, n)
	return n
}

// SetNode says how many connections may be held to a node over all pools, and in
// which epoch its role began: servers of an epoch before are handed to nobody.
func (b *Book) SetNode(now Moment, n *Node, limit int, epoch uint64, out []Decision) []Decision {
	if n.limit == limit && n.epoch == epoch {
		return out
	}
	if n.epoch != epoch {
		n.retry = backoff{}
	}
	n.limit, n.epoch = limit, epoch
	if limit == 0 {
		out = b.astray(n, out)
	}
	for _, p := range slices.Clone(n.pools) {
		out = b.trim(p, out)
		out = b.serve(now, p, out)
	}
	return b.settle(b.feed(now, n, out))
}

// Epoch is that in which the node's role began.
func (n *Node) Epoch() uint64 { return n.epoch }

// Lead says which node leads, nil while none does, and then why. Those who wait for
// the primary wait there from now on, in their order.
func (b *Book) Lead(now Moment, n *Node, why string, out []Decision) []Decision {
	b.why = why
	if n == nil {
		n = b.nowhere
	}
	if n == b.primary {
		return out
	}
	from := b.primary
	b.primary = n
	for _, old := range slices.Clone(from.pools) {
		to := b.pool(old.Account, n)
		var after *Claim
		for c := old.waiting.first; c != nil; {
			next := c.next
			if c.anyNode {
				old.waiting.remove(c, ofClaim)
				after = to.join(c, after)
			}
			c = next
		}
		out = b.serve(now, old, out) // it may want less than before
		out = b.serve(now, to, out)
	}
	return b.settle(out)
}

// Nowhere is a node to want that stands for none: who waits there is answered by Look.
func (b *Book) Nowhere() *Node { return b.nowhere }

// Look denies those a server who wait nowhere but do not want the primary, with no
// error: there may be one elsewhere.
func (b *Book) Look(out []Decision) []Decision { return b.settle(b.astray(b.nowhere, out)) }

// astray denies those who wait at a node where nothing will come of it.
func (b *Book) astray(n *Node, out []Decision) []Decision {
	for _, p := range n.pools {
		out = b.denyAstray(p, Decision{}, out)
	}
	return out
}

// denyAstray answers those in a pool's queue who may want a server elsewhere.
func (b *Book) denyAstray(p *Pool, d Decision, out []Decision) []Decision {
	for c := p.waiting.first; c != nil; {
		next := c.next
		if !c.anyNode {
			out = b.deny(c, d, out)
		}
		c = next
	}
	return out
}

// Hold hands out nothing at a node and opens nothing there, until it is called for
// another, or for nil: a switchover is about to take it away (protocol-2.md, 5). What
// is given back is kept, for the switchover may be called off.
func (b *Book) Hold(now Moment, n *Node, out []Decision) []Decision {
	was := b.holding
	if b.holding = n; was == nil || was == n {
		return out
	}
	for _, p := range slices.Clone(was.pools) {
		out = b.serve(now, p, out)
	}
	return b.settle(b.feed(now, was, out))
}

// join lets a claim wait where its order says. after is a claim before it, or nil.
func (p *Pool) join(c, after *Claim) *Claim {
	at := after
	if at == nil {
		if f := p.waiting.first; f != nil && f.order < c.order {
			at = f
		}
	}
	for at != nil && at.next != nil && at.next.order < c.order {
		at = at.next
	}
	c.pool = p
	p.waiting.insert(c, at, ofClaim)
	return c
}

// pool finds or makes an account's pool at a node.
func (b *Book) pool(a *Account, n *Node) *Pool {
	for _, p := range a.pools {
		if p.Node == n {
			return p
		}
	}
	p := &Pool{Account: a, Node: n, idle: make([]list[Server], b.loops)}
	a.pools = append(a.pools, p)
	n.pools = append(n.pools, p)
	return p
}

// maxOpening bounds the log-ins under way at one node: more of them at once, as
// after a failover, only overrun the postmaster and time out together.
const maxOpening = 16

// opens says whether one more connection may be opened to the node now.
func (n *Node) opens(now Moment) bool {
	return n.count < n.limit && n.opening < maxOpening && n.retry.allows(now, n.opening)
}
