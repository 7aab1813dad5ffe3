package desk

import (
	"context"
	"time"

	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/wire"
)

// Want asks for a server of an account at a node, or at whoever leads when n is nil,
// for a client on a loop. One that is there at once is given back, for the caller to
// take as if by Take; else the claim's Taker hears of it.
func (d *Desk) Want(c *rules.Claim, a *rules.Account, n *rules.Node, loop int) (s *rules.Server, from int) {
	var room [4]rules.Decision // nothing is allocated in the ordinary case
	d.mu.Lock()
	out := d.book.Want(time.Since(d.began), c, a, n, loop, room[:0])
	if len(out) > 0 && out[0].Kind == rules.Hand && out[0].Claim == c {
		s, from = out[0].Server, out[0].From
		out = out[1:]
	}
	d.note(out)
	d.mu.Unlock()
	d.carry(out)
	return s, from
}

// AtHand is Want for a client that would not wait: a server that is unused on its loop and
// may be had at once, or nil.
func (d *Desk) AtHand(c *rules.Claim, a *rules.Account, loop int) *rules.Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.book.AtHand(time.Since(d.began), c, a, loop)
}

// Withdraw ends a wait. A server that is on its way all the same is given back by
// whoever it reaches.
func (d *Desk) Withdraw(c *rules.Claim) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision { return d.book.Withdraw(now, c, out) })
}

// Gave gives a server back; its connection stays watched on the loop of who had it.
func (d *Desk) Gave(s *rules.Server, clean bool) {
	var room [4]rules.Decision
	d.mu.Lock()
	out := d.book.Gave(time.Since(d.began), s, clean, room[:0])
	d.note(out)
	d.mu.Unlock()
	d.carry(out)
}

// Closed says that a server's connection is gone, asked for or not.
func (d *Desk) Closed(s *rules.Server) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision { return d.book.Closed(now, s, out) })
}

// Attach counts a client that has proved who it is. data is how its account logs in,
// the newest proof of it.
func (d *Desk) Attach(database, user string, r rules.Rights, data any) (a *rules.Account, refused *wire.Error) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision {
		if a, refused, out = d.book.Attach(now, database, user, r, out); refused == nil {
			a.Data = data
		}
		return out
	})
	return a, refused
}

// Detach ends what Attach began.
func (d *Desk) Detach(a *rules.Account) {
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision {
		d.book.Detach(a)
		return out
	})
}

// Enter counts a client that has a connection of its own; in no database when it
// replicates physically.
func (d *Desk) Enter(database, user string, r rules.Rights, physical bool) (o *rules.Own, refused *wire.Error) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision {
		if physical {
			o, refused = d.book.EnterPhysical(user, r)
			return out
		}
		o, refused, out = d.book.Enter(now, database, user, r, out)
		return out
	})
	return o, refused
}

// Leave ends what Enter began.
func (d *Desk) Leave(o *rules.Own) {
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision {
		d.book.Leave(o)
		return out
	})
}

// Node is the node of a name, with how to get there, its limit and the epoch in which
// its role began.
func (d *Desk) Node(name string, data any, limit int, epoch uint64) (n *rules.Node) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision {
		n = d.book.Node(name)
		n.Data = data
		return d.book.SetNode(now, n, limit, epoch, out)
	})
	return n
}

// Lead says who leads, nil while nobody does, and then why.
func (d *Desk) Lead(n *rules.Node, why string) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision { return d.book.Lead(now, n, why, out) })
}

// Nowhere is a node for claims that wait for Look.
func (d *Desk) Nowhere() *rules.Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.book.Nowhere()
}

// Look sends those away who wait nowhere, to want a server elsewhere.
func (d *Desk) Look() {
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision { return d.book.Look(out) })
}

// Hold hands out nothing at the node of a name until it is called for another, or for
// none (empty): it is being switched over.
func (d *Desk) Hold(node string) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision {
		if node == "" {
			return d.book.Hold(now, nil, out)
		}
		return d.book.Hold(now, d.book.Node(node), out)
	})
}

// Configure takes other settings.
func (d *Desk) Configure(cfg rules.Config) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision { return d.book.Configure(now, cfg, out) })
}

// Pause holds a database, or all when the name is empty, and waits until nothing of
// it is open. One that was cancelled meanwhile holds nothing any more.
func (d *Desk) Pause(ctx context.Context, database string) *wire.Error {
	var e *wire.Error
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision {
		out, e = d.book.Pause(database, out)
		return out
	})
	if e != nil {
		return e
	}
	if e = d.await(ctx, database, rules.Quiet); e != nil {
		_ = d.Resume(ctx, database) // or somebody else has
	}
	return e
}

// Resume ends Pause and Kill.
func (d *Desk) Resume(_ context.Context, database string) (e *wire.Error) {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision {
		out, e = d.book.Resume(now, database, out)
		return out
	})
	return e
}

// Reconnect closes each connection as soon as it is given back.
func (d *Desk) Reconnect(_ context.Context, database string) *wire.Error {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision {
		return d.book.Reconnect(now, database, out)
	})
	return nil
}

// WaitClose waits until no connection is left that is to be closed.
func (d *Desk) WaitClose(ctx context.Context, database string) *wire.Error {
	return d.await(ctx, database, rules.Fresh)
}

// Kill pauses a database and ends its connections. Its clients are the caller's.
func (d *Desk) Kill(_ context.Context, database string) *wire.Error {
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision { return d.book.Kill(database, out) })
	return nil
}

// Disable lets no new client of a database in.
func (d *Desk) Disable(_ context.Context, database string) *wire.Error {
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision { d.book.Disable(database); return out })
	return nil
}

// Enable ends Disable.
func (d *Desk) Enable(_ context.Context, database string) *wire.Error {
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision { d.book.Enable(database); return out })
	return nil
}

// await waits until a database is as wanted.
func (d *Desk) await(ctx context.Context, database string, what rules.What) *wire.Error {
	done := make(chan struct{})
	var id uint64
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision {
		id, out = d.book.Await(database, what, out)
		d.settled[id] = done
		return out
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		d.book.Forsake(id)
		delete(d.settled, id)
		return &wire.Error{Severity: "ERROR", Code: "57014", Message: "canceling statement due to user request"}
	}
}

// View shows what the book knows.
func (d *Desk) View(show func(b *rules.Book, now rules.Moment)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	show(d.book, time.Since(d.began))
}
