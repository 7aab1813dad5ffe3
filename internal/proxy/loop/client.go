package loop

import (
	"manada/internal/proxy/conv"
	"manada/internal/proxy/wire"

	"golang.org/x/sys/unix"
)

// Conversation is what a loop drives for a client; *conv.Conv is the real one.
type Conversation interface {
	Step(ev conv.Event, fx *conv.Effects) (consumed int)
	// Runs is the side that works for the client at the moment.
	Runs() conv.Side
	// Busy is what a switchover has to wait for.
	Busy() conv.Busy
}

// Owner is what a client needs of the world around the loops. Its methods are
// called on the loop's thread and must not block.
type Owner interface {
	// Want finds a server for the side. One that is there is returned; else wait says
	// whether one may come, by Client.Grant, or there is none. Client.Deny ends a wait.
	Want(c *Client, side conv.Side) (s *Server, wait bool)
	// AtHand finds a server for Main that waits on the client's loop and may be had at
	// once, or nil. One that is not needed goes back to its Keeper.
	AtHand(c *Client) *Server
	// Withdraw: what was wanted for the side is not any more. What comes all the same goes
	// to its Keeper.
	Withdraw(side conv.Side)
	// Back: a server is none of the client's any more. Its connection is closed, but
	// where it goes back to its Keeper, at once or behind a DISCARD ALL.
	Back(side conv.Side, s *Server, how conv.How)
	// Lost is called before Back for a server that has ended, or was given up. told
	// says that the client was told something because of it.
	Lost(side conv.Side, s *Server, why conv.Why, told bool)
	// Ask asks where the server's node is in the WAL, as AskWritten or AskReplayed
	// says, or has the names read anew. Client.Tell answers. The main server may be nil.
	Ask(c *Client, fx *conv.Effect, s *Server)
	// Cancel sends a cancel request to the server; Client.Tell(CancelDone) answers.
	Cancel(c *Client, side conv.Side, s *Server)
	// Note is for the log: kind is Pinned or Warn.
	Note(kind conv.EffectKind, text string)
	// Count is called after every step in which something was counted, with the main
	// server, nil while there is none.
	Count(n *conv.Counts, main *Server)
	// Ended: the conversation is over. Only Lost and Back may follow.
	Ended()
}

// Client is a client in a loop. Its methods may be called by anybody at any
// time; for a client that has gone they do nothing.
type Client struct {
	loop *Loop
	slot uint32 // the loop's, as is gen
	gen  uint32
}

// Tell lets an event happen.
func (h *Client) Tell(ev conv.Event) {
	h.loop.post(func(l *Loop) {
		if c := l.find(h); c != nil {
			l.step(c, ev)
		}
	})
}

// TellThen lets an event happen and calls done, on the loop's thread, when all
// that follows from it was begun; also when the client has gone.
func (h *Client) TellThen(ev conv.Event, done func()) {
	sent := h.loop.post(func(l *Loop) {
		if c := l.find(h); c != nil {
			l.step(c, ev)
		}
		done()
	})
	if !sent {
		done()
	}
}

// Release takes a server away from the client, unless it works for the client just now.
func (h *Client) Release(side conv.Side) {
	h.loop.post(func(l *Loop) {
		if c := l.find(h); c != nil && c.servers[side] != nil && c.conv.Runs() != side {
			l.gone(l.socks.at(c.socks[side]), conv.Closed)
		}
	})
}

// Grant gives the client the server that it wants for the side. One that is not
// wanted any more goes to its Keeper or is closed, and refused is called.
func (h *Client) Grant(side conv.Side, s *Server, refused func()) {
	if from := s.loop(); from != nil && from != h.loop {
		from.post(func(l *Loop) {
			l.release(s) // or it has gone on, or ended
			h.Grant(side, s, refused)
		})
		return
	}
	sent := h.loop.post(func(l *Loop) {
		c := l.find(h)
		at := s.loop()
		switch {
		case at != nil && at != l: // it came there meanwhile
			h.Grant(side, s, refused)
		case c != nil && c.wants&(1<<side) != 0:
			l.grant(c, side, s)
		default:
			refused()
			l.unwanted(s)
		}
	})
	if !sent {
		refused()
		s.End()
	}
}

// Deny says why there is no server.
func (h *Client) Deny(side conv.Side, e *wire.Error) {
	h.loop.post(func(l *Loop) {
		if c := l.find(h); c != nil && c.wants&(1<<side) != 0 {
			c.wants &^= 1 << side
			l.came(c, side)
			l.step(c, conv.Event{Kind: conv.Denied, Side: side, Err: e})
		}
	})
}

// Kill ends the client with e, within the time for last words.
func (h *Client) Kill(e *wire.Error) {
	h.loop.post(func(l *Loop) {
		if c := l.find(h); c != nil {
			l.kill(c, e)
		}
	})
}

const sides = 3

// client is a client in a loop, a slot.
type client struct {
	gen    uint32
	port   uint8
	wants  uint8     // bits by side: a server was wanted and has not come
	busy   conv.Busy // as far as it is counted, see drain.go
	conv   Conversation
	owner  Owner
	handle *Client

	socks   [sides]uint32 // 0: none
	servers [sides]*Server

	stats           *Stats // of its label
	unit, tx, asked int64  // when what is under way began, see mark; asked 0: no server is wanted

	due  [timers]int64 // 0: not armed
	wake int64         // when the wheel looks at it; 0: not
}

// boundTimer ends a client that cannot be told its last words.
const (
	boundTimer = conv.Timers
	leftTimer  = conv.Timers + 1 // asks a client in the queue again whether it is there, see asks
	timers     = conv.Timers + 2
)

// queues says whether the client waits for a server: if it has left it need not.
func (c *client) queues() bool { return c.wants&(1<<conv.Main) != 0 }

func (l *Loop) find(h *Client) *client {
	if h.slot == 0 {
		return nil
	}
	if c := l.clients.at(h.slot); c.gen == h.gen && c.conv != nil {
		return c
	}
	return nil
}

// Arrival is a client that is handed over.
type Arrival struct {
	Socket *Socket
	Port   int // counts its bytes, see Traffic
	Label  int // of its Stats: a small number
	Conv   Conversation
	Owner  Owner
	Main   *Server // nil: Conv will want one
	Enters bool    // Conv is told Enter
}

// adopt makes a slot for a client.
func (l *Loop) adopt(h *Client, a Arrival) {
	slot, c := l.clients.get()
	h.slot, h.gen = slot, c.gen
	c.conv, c.owner, c.handle, c.port = a.Conv, a.Owner, h, uint8(a.Port)
	c.stats = l.of(a.Label)
	c.stats.Logins++
	c.socks[conv.Client] = l.attach(slot, conv.Client, a.Socket)
	if a.Main != nil {
		l.grant(c, conv.Main, a.Main)
	}
	if c.conv != nil && l.phase != conv.NoDrain {
		l.step(c, conv.Event{Kind: conv.Drain, Phase: l.phase})
	}
	if c.conv != nil && a.Enters {
		l.step(c, conv.Event{Kind: conv.Enter})
	}
	if c.conv != nil && l.draining {
		l.step(c, conv.Event{Kind: conv.Shutdown})
	}
	if c.conv != nil && l.ending != nil {
		l.kill(c, l.ending)
	}
}

// grant gives a client a server.
func (l *Loop) grant(c *client, side conv.Side, s *Server) {
	if !l.own(c, side, s) { // it has ended on its way
		l.want(c, side)
		return
	}
	c.wants &^= 1 << side
	l.arm(c, leftTimer, 0)
	l.came(c, side)
	if c.servers[side] = s; side == conv.Main {
		c.stats.Assignments++
	}
	l.step(c, conv.Event{Kind: conv.Granted, Side: side, Link: s.Link})
	switch {
	case c.servers[side] != s: // it has done with it
	case s.stale(l.epoch):
		l.gone(l.socks.at(c.socks[side]), conv.Deposed)
	case side == conv.Main && s.promoted(l.leader):
		l.step(c, conv.Event{Kind: conv.Promoted})
	}
}

// kill ends a client with e, or without it when it does not read: see conv.Hurry.
func (l *Loop) kill(c *client, e *wire.Error) {
	l.step(c, conv.Event{Kind: conv.Kill, Err: e})
}

// abandon ends a client whose time for last words is up.
func (l *Loop) abandon(c *client) {
	i := c.socks[conv.Client]
	l.flush()
	l.broke(i, l.socks.at(i))
	l.end(c, false)
}

// end is the end of a client. What was sent to it has some time to arrive.
func (l *Loop) end(c *client, said bool) {
	for side := conv.Main; side < sides; side++ {
		l.drop(c, side, conv.Close)
	}
	i := c.socks[conv.Client]
	s := l.socks.at(i)
	s.client = 0
	l.bufs.put(s.rest)
	s.rest = nil
	l.count(c, conv.Quiet)
	owner := c.owner
	slot := c.handle.slot
	*c = client{gen: c.gen + 1}
	l.clients.put(slot)
	l.load.Add(-1)
	owner.Ended()
	if !said && !s.short && l.outTo != i {
		l.closeSock(i, s)
		return
	}
	l.farewell(i, s)
}

// drop takes the server of a side away, if it has one.
func (l *Loop) drop(c *client, side conv.Side, how conv.How) {
	c.wants &^= 1 << side
	server := c.servers[side]
	if server == nil {
		return
	}
	i := c.socks[side]
	s := l.socks.at(i)
	c.servers[side], c.socks[side] = nil, 0
	l.flush()
	if feeder := c.socks[conv.Client]; feeder != 0 && s.short {
		l.touch(feeder, l.socks.at(feeder)) // it has waited for this one
	}
	if how != conv.Close && server.Keeper != nil && !s.short {
		s.client, s.server, s.stop = 0, server, false
		s.rest = nil // conv has taken all of it, perhaps a moment ago: it is not put back
		if s.armed != unix.EPOLLIN {
			l.touch(i, s)
		}
		c.owner.Back(side, server, how)
		if how == conv.Discard {
			l.clear(i, s)
		} else {
			server.Keeper.Gave(server)
		}
		return
	}
	l.closeServer(i, s, server)
	c.owner.Back(side, server, conv.Close)
	server.closed()
}
