package session

import (
	"context"
	"errors"

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

// noReader is why a read finds no standby: another node answers it. It is final to the
// pools, so that nobody waits for the next attempt.
func noReader(err error) *wire.Error {
	return wire.Fatal(cannotRead, "no connection to the standby: "+err.Error(), "")
}

// cannotRead is no code that PostgreSQL has for a log-in.
const cannotRead = "25006"

// alikeKey is an account by its names.
type alikeKey struct{ database, user string }

// checked says whether a new connection is to the kind of node that was wanted. Where
// reads are split it also finds out what its session is like, and notes that of the
// primary: what PostgreSQL gives a session at log-in may have changed meanwhile.
func (p *pools) checked(ctx context.Context, b *pool.Backend, a *rules.Account, standby bool) (alike string, refused *wire.Error) {
	switch is, known := b.InRecovery(); {
	case standby && known && !is:
		return "", noReader(errPromoted)
	case !standby && is:
		return "", wire.Fatal("57P03", errRecovery.Error(), "")
	case !p.Options.Split:
		return "", nil
	}
	alike, err := b.Alike(ctx)
	k := alikeKey{a.Database.Name, a.User}
	p.likes.Lock()
	defer p.likes.Unlock()
	switch {
	case standby && err != nil:
		return "", noReader(err)
	case standby:
	case err != nil:
		delete(p.alike, k) // no standby is like it then
	default:
		if len(p.alike) >= maxWelcomes {
			clear(p.alike)
		}
		p.alike[k] = alike
	}
	return alike, nil
}

// unlike says whether a standby's session is another one than those of its account on the
// primary. Clients of the read-only port may have it.
func (p *pools) unlike(s *rules.Server) bool {
	a := s.Pool.Account
	p.likes.Lock()
	defer p.likes.Unlock()
	like, known := p.alike[alikeKey{a.Database.Name, a.User}]
	return !known || like != s.Data.(*loop.Server).Backend.(*pooledServer).alike
}

// nodeOf is the node of a seat; nil is the primary.
func (p *pools) nodeOf(seat string) *rules.Node {
	if seat == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.standbys[seat]; n != nil {
		return n
	}
	return p.desk.Nowhere() // it has not come yet, or has left
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
	switch {
	case server == nil:
		return nil, true
	case p.unlike(server):
		p.desk.Gave(server, true)
		s.readerDenied(errUnlike)
		return nil, false
	}
	return server.Data.(*loop.Server), false
}

// readerDenied keeps the reads of a session on the primary for a while.
func (s *session) readerDenied(e error) {
	node, pause := s.reads.at(), avoidFor
	s.reads.left(node)
	if errors.Is(e, errUnlike) {
		pause = unlikeFor
	}
	s.reads.pause(pause)
	s.Log.Info("no connection for reads", "node", node, "user", s.user, "error", e)
}

// unreachable keeps all reads away from a standby that could not be connected to.
func (p *pools) unreachable(node string, err error) *wire.Error {
	if transient(err) || tooMany(err) {
		p.homes.avoid(node)
		p.seats.avoid(node)
	}
	return noReader(err)
}
