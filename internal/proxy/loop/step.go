package loop

import (
	"time"

	"manada/internal/proxy/conv"
)

// step lets an event happen to a client and does what conv says, in order. What
// follows from that is done after it (settle): a step never calls another.
func (l *Loop) step(c *client, ev conv.Event) (consumed int) {
	l.fx.Reset()
	consumed = c.conv.Step(ev, &l.fx)
	if l.fx.Count.Any() {
		c.owner.Count(&l.fx.Count, c.servers[conv.Main])
	}
	if l.fx.Marks.Any() {
		l.mark(c, &l.fx.Marks)
	}
	l.said = false
	for i := range l.fx.List {
		fx := &l.fx.List[i]
		l.said = l.said || fx.Kind == conv.Send && fx.Side == conv.Client
		if fx.Kind == conv.End {
			l.end(c, l.said)
			break
		}
		l.apply(c, fx)
	}
	if l.phase != conv.NoDrain && c.conv != nil {
		l.count(c, c.conv.Busy())
	}
	return consumed
}

func (l *Loop) apply(c *client, fx *conv.Effect) {
	switch fx.Kind {
	case conv.Send:
		l.write(c, fx.Side, fx.B)
	case conv.Stop, conv.Start:
		l.reading(c, fx.Side, fx.Kind == conv.Start)
	case conv.Want:
		l.want(c, fx.Side)
	case conv.Take:
		l.take(c)
	case conv.Withdraw:
		c.wants &^= 1 << fx.Side
		l.arm(c, leftTimer, 0)
		l.came(c, fx.Side)
		c.owner.Withdraw(fx.Side)
	case conv.Give:
		l.drop(c, fx.Side, fx.How)
	case conv.AskReplayed:
		if s := c.servers[conv.Reader]; s != nil {
			c.owner.Ask(c.handle, fx, s)
		}
	case conv.AskWritten, conv.AskNames:
		c.owner.Ask(c.handle, fx, c.servers[conv.Main])
	case conv.SendCancel:
		if s := c.servers[fx.Side]; s != nil {
			c.owner.Cancel(c.handle, fx.Side, s)
		}
	case conv.Arm:
		l.arm(c, fx.Timer, fx.D)
	case conv.Hurry:
		l.arm(c, boundTimer, linger)
	case conv.Pinned, conv.Warn:
		c.owner.Note(fx.Kind, fx.Text)
	}
}

// want has a server found for a side.
func (l *Loop) want(c *client, side conv.Side) {
	c.wants |= 1 << side
	if side == conv.Main {
		c.asked = l.now
	}
	s, wait := c.owner.Want(c.handle, side)
	switch {
	case s != nil && s.loop() != l:
		c.handle.Grant(side, s, func() {})
	case s != nil || !wait:
		l.answers = append(l.answers, answer{c.handle, side, s})
	}
	i := c.socks[conv.Client]
	l.touch(i, l.socks.at(i)) // if it has hung up it need not wait
}

// answer is what a Want got at once: a server, or none. It is told after the step.
type answer struct {
	to     *Client
	side   conv.Side
	server *Server
}

func (l *Loop) answer() {
	for len(l.answers) > 0 {
		a := l.answers[len(l.answers)-1]
		l.answers = l.answers[:len(l.answers)-1]
		c := l.find(a.to)
		switch {
		case c == nil || c.wants&(1<<a.side) == 0:
			if a.server != nil {
				l.unwanted(a.server)
			}
		case a.server != nil:
			l.grant(c, a.side, a.server)
		default:
			c.wants &^= 1 << a.side
			l.came(c, a.side)
			l.step(c, conv.Event{Kind: conv.Denied, Side: a.side})
		}
	}
}

// reading starts or stops reading from a side. After a start what is held is
// offered again.
func (l *Loop) reading(c *client, side conv.Side, on bool) {
	i := c.socks[side]
	if i == 0 {
		return
	}
	s := l.socks.at(i)
	s.stop = !on
	if on {
		s.again = true
		l.resume = append(l.resume, i)
	}
	l.touch(i, s)
}

// settle does what has followed from the steps so far: held bytes that are
// wanted now are offered, what was put together is sent, epoll is told.
func (l *Loop) settle() {
	for {
		if l.resumed < len(l.resume) {
			i := l.resume[l.resumed]
			l.resumed++
			l.offerHeld(i, l.socks.at(i))
			continue
		}
		l.resume, l.resumed = l.resume[:0], 0
		if len(l.answers) > 0 {
			l.answer()
			continue
		}
		l.flush()
		if len(l.dirty) == 0 {
			return
		}
		i := l.dirty[len(l.dirty)-1]
		l.dirty = l.dirty[:len(l.dirty)-1]
		s := l.socks.at(i)
		if s.dirty {
			s.dirty = false
			l.rearm(i, s)
		}
	}
}

// offerHeld offers what is held of a socket.
func (l *Loop) offerHeld(i uint32, s *sock) {
	c, gen := l.clientOf(s), s.gen
	if c == nil || s.stop {
		return
	}
	if len(s.rest) > 0 {
		l.keep(s, l.offer(c, i, s.rest), true)
	}
	if s.gen == gen && s.client != 0 && s.over && !s.stop && !s.eof {
		l.gone(s, conv.Closed)
	}
}

func (l *Loop) clientOf(s *sock) *client {
	if s.client == 0 {
		return nil
	}
	return l.clients.at(s.client)
}

// offer gives conv what has come from a side. It returns what conv left.
func (l *Loop) offer(c *client, i uint32, b []byte) []byte {
	s := l.socks.at(i)
	gen := s.gen
	for {
		s.again = false
		ev := conv.Event{Kind: conv.Bytes, Side: conv.Side(s.side), Bytes: b}
		if ev.Side == conv.Client && c.servers[conv.Main] == nil && c.wants == 0 {
			ev.Link = l.reach(c)
		}
		b = b[l.step(c, ev):]
		if l.hand != nil {
			l.unwanted(l.hand)
			l.hand = nil
		}
		l.answer()
		if s.gen != gen || s.client == 0 {
			return nil
		}
		if !s.again || s.stop || len(b) == 0 {
			return b
		}
	}
}

// reach finds a server that a client may take for what it says. One of which it has to
// hear something goes the long way, by Want.
func (l *Loop) reach(c *client) *conv.Link {
	s := c.owner.AtHand(c.handle)
	switch {
	case s == nil:
		return nil
	case s.loop() != l || s.stale(l.epoch) || s.promoted(l.leader):
		l.unwanted(s)
		return nil
	}
	l.hand = s
	return s.Link
}

// take gives a client the server that was offered to it.
func (l *Loop) take(c *client) {
	s := l.hand
	l.hand = nil
	l.own(c, conv.Main, s)
	c.servers[conv.Main] = s
	c.stats.Assignments++
	c.stats.Wait.observe(0)
}

// gone tells conv that a side has ended. A client may be told of twice: that it
// sends no more, and that nothing reaches it.
func (l *Loop) gone(s *sock, why conv.Why) {
	c := l.clientOf(s)
	if c == nil {
		return
	}
	side, owner := conv.Side(s.side), c.owner
	if side == conv.Client {
		s.eof, s.half = true, true
		l.step(c, conv.Event{Kind: conv.Gone, Side: side, Why: why})
		return
	}
	i, server, gen := c.socks[side], c.servers[side], c.gen
	c.servers[side], c.socks[side] = nil, 0
	l.closeServer(i, s, server)
	l.step(c, conv.Event{Kind: conv.Gone, Side: side, Why: why})
	owner.Lost(side, server, why, l.said)
	owner.Back(side, server, conv.Close)
	server.closed()
	if c.gen == gen {
		l.touch(c.socks[conv.Client], l.socks.at(c.socks[conv.Client])) // it may have waited for this one
	}
}

// arm sets a timer; 0 disarms it.
func (l *Loop) arm(c *client, t conv.Timer, d time.Duration) {
	if d <= 0 {
		c.due[t] = 0
		return
	}
	c.due[t] = l.clock() + int64(d)
	l.wakeClient(c)
}

// wakeClient has the wheel look at a client in time for its next timer.
func (l *Loop) wakeClient(c *client) {
	next := int64(0)
	for _, due := range c.due {
		if due != 0 && (next == 0 || due < next) {
			next = due
		}
	}
	if next != 0 && (c.wake == 0 || next < c.wake) {
		c.wake = next
		l.wheel.add(entry{slot: c.handle.slot, gen: c.gen, due: next})
	}
}

// expired lets the timers happen for which the wheel woke a client or a socket.
func (l *Loop) expired(e entry) {
	if e.socket {
		if s := l.socks.at(e.slot); s.gen == e.gen && s.wake == e.due {
			s.wake = 0
			if s.client == 0 && s.due != 0 {
				l.lingered(e.slot, s)
			}
		}
		return
	}
	c := l.clients.at(e.slot)
	if c.gen != e.gen || c.wake != e.due {
		return
	}
	c.wake = 0
	for t := range c.due {
		if c.due[t] == 0 || c.due[t] > l.now {
			continue
		}
		c.due[t] = 0
		switch conv.Timer(t) {
		case boundTimer:
			l.abandon(c)
		case leftTimer:
			l.asks(c)
		default:
			l.step(c, conv.Event{Kind: conv.Expired, Timer: conv.Timer(t)})
		}
		if c.gen != e.gen {
			return
		}
	}
	l.wakeClient(c)
}
