package session

import (
	"context"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
	"manada/internal/proxy/wire"
)

// Connections to standbys that clients share, one read at a time. They cannot write,
// and their sessions are like the account's on the primary.

// place is how to get to a node, and what its connections are for: a node's Data.
type place struct {
	node    route.Node
	standby bool
}

// noReader is why a read finds no standby: the primary answers it. It is final to the
// pools, so that nobody waits for the next attempt.
func noReader(err error) *wire.Error {
	return wire.Fatal("25006", "no connection to the standby: "+err.Error(), "")
}

// alikeKey is an account by its names.
type alikeKey struct{ database, user string }

// checked says whether a new connection is to the kind of node that was wanted. Where
// reads are split it also finds out whether its session is like those of the account
// on the primary: what PostgreSQL gives a session at log-in may have changed meanwhile.
func (p *pools) checked(ctx context.Context, b *pool.Backend, a *rules.Account, standby bool) *wire.Error {
	switch is, known := b.InRecovery(); {
	case standby && known && !is:
		return noReader(errPromoted)
	case !standby && is:
		return wire.Fatal("57P03", errRecovery.Error(), "")
	case !p.Options.Split:
		return nil
	}
	alike, err := b.Alike(ctx)
	k := alikeKey{a.Database.Name, a.User}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !standby && err != nil:
		delete(p.alike, k) // no standby is like it then
	case !standby:
		if len(p.alike) >= maxWelcomes {
			clear(p.alike)
		}
		p.alike[k] = alike
	case err != nil:
		return noReader(err)
	case p.alike[k] != alike:
		return noReader(errUnlike)
	}
	return nil
}

// readers tells the desk of the standbys that reads may be sent to. p.mu is held.
func (p *pools) readers(v route.View) {
	now := map[string]*rules.Node{}
	for _, s := range v.Standbys {
		now[s.Name] = p.desk.Node(s.Name, place{s.Node, true}, p.limit(v, s.Node), v.Epoch)
	}
	for name := range p.standbys {
		if now[name] == nil && name != v.Primary.Name {
			p.desk.Node(name, place{}, 0, v.Epoch)
		}
	}
	p.standbys = now
}

// wantReader asks the pools for a connection to a standby.
func (s *session) wantReader(c *loop.Client) (*loop.Server, bool) {
	st, ok := s.standby()
	if !ok {
		return nil, false
	}
	p := s.pools
	p.mu.Lock()
	node := p.standbys[st.Name]
	p.mu.Unlock()
	if node == nil {
		return nil, false
	}
	s.handle.CompareAndSwap(nil, c)
	s.reads.joined(st.Name)
	server, _ := p.desk.Want(&s.shared.claims[conv.Reader], s.shared.account, node, c.Index())
	if server == nil {
		return nil, true
	}
	return server.Data.(*loop.Server), false
}

// readerDenied keeps the reads of a session on the primary for a while.
func (s *session) readerDenied(e *wire.Error) {
	node := s.reads.at()
	s.reads.left(node)
	s.reads.pause(avoidFor)
	s.Log.Info("no connection for reads", "node", node, "user", s.user, "error", e)
}

// unreachable keeps all reads away from a standby that could not be connected to.
func (p *pools) unreachable(node string, err error) *wire.Error {
	if transient(err) || tooMany(err) {
		p.homes.avoid(node)
	}
	return noReader(err)
}
