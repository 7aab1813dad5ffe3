package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/conv"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/wire"
)

// seat is the node at which a client of the read-only port has its servers: a standby,
// for as long as reads may be sent there, else the primary. It becomes another standby
// only once that has replayed all that the client may have seen.
type seat struct {
	mu     sync.Mutex
	node   string // a standby; "" is the primary
	chosen bool
	read   bool      // it had a server somewhere
	moving bool      // a standby is being looked at, see move
	until  time.Time // the primary is good enough
	left   bool      // the client has gone
}

const (
	// seatPatience is how long a standby may take to have replayed what a client may have
	// seen elsewhere, where the primary can answer instead; that then does for seatPause.
	seatPatience = 100 * time.Millisecond
	seatPause    = 2 * time.Second
	maxReplayGap = 20 * time.Millisecond
)

// mayRead refuses a client of the read-only port while there is no node for it.
func (c *client) mayRead() error {
	v := c.Topology.Current()
	if c.port != ReadOnly || c.options().ReadOnlyFallback || !v.Known || len(c.Reader.Usable(v)) > 0 {
		return nil
	}
	return noStandby(v, nil)
}

// wantSeat asks the pools for a server at the client's seat.
func (s *session) wantSeat(c *loop.Client) (*loop.Server, bool) {
	s.handle.CompareAndSwap(nil, c)
	to, ok, wait := s.takeSeat(c, s.Topology.Current())
	if wait {
		return nil, true
	}
	node := s.pools.desk.Nowhere()
	if ok {
		node = s.pools.nodeOf(to)
	}
	server, _ := s.pools.desk.Want(&s.shared.claims[conv.Main], s.shared.account, node, c.Index())
	if server == nil {
		return nil, true
	}
	s.seat.used()
	return server.Data.(*loop.Server), false
}

// takeSeat finds the seat; there says whether one is at present. wait says that a standby has
// to be looked at first: the client asks again then.
func (s *session) takeSeat(c *loop.Client, v route.View) (_ string, there, wait bool) {
	st := s.seat
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.moving {
		return "", false, true
	}
	to, ok := s.nextSeat(v)
	switch {
	case !ok:
		return "", false, false
	case to != "" && st.read && to != st.node && s.Positions != nil:
		st.moving = true
		s.work.Go(func() { s.move(c, to) })
		return "", false, true
	}
	s.sit(to)
	return to, true, false
}

// nextSeat is where the client is to read next; "" is the primary. It is false while
// there is no such node. seat.mu is held.
func (s *session) nextSeat(v route.View) (to string, ok bool) {
	st, fallback := s.seat, s.options().ReadOnlyFallback
	if st.chosen && st.node != "" && s.fits(v.Standby(st.node)) {
		return st.node, true
	}
	if fallback && v.HasPrimary() && time.Now().Before(st.until) {
		return "", true
	}
	var fit []string
	for i := range v.Standbys {
		if s.fits(&v.Standbys[i]) {
			fit = append(fit, v.Standbys[i].Name)
		}
	}
	switch {
	case len(fit) > 0:
		return s.seats.least(fit), true
	case !v.HasPrimary() && st.chosen && st.node != "" && !s.seats.avoided(st.node):
		return st.node, true // nobody leads: it goes on with what it has
	}
	return "", fallback
}

// fits says whether reads may be sent to a standby; nil is one that is not there.
func (s *Server) fits(one *route.Standby) bool {
	return one != nil && s.Reader.Limits.Usable(*one) && !s.seats.avoided(one.Name)
}

// sit makes a node the seat. seat.mu is held.
func (s *session) sit(node string) {
	st := s.seat
	if st.left || st.chosen && st.node == node {
		return
	}
	if st.chosen {
		s.seats.leave(st.node)
	}
	if node == "" {
		s.Stats.Fallbacks.Add(1)
	}
	s.seats.enter(node)
	st.chosen, st.node = true, node
}

func (st *seat) used() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.read = true
}

// at is the seat; "" is the primary.
func (st *seat) at() (node string, chosen bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.node, st.chosen
}

// leave gives the seat up.
func (st *seat) leave(h *homes) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.left = true; st.chosen {
		h.leave(st.node)
	}
}

var (
	errAway   = errors.New("reads may not be sent there any more")
	errBehind = errors.New("it has not replayed yet what this session may have seen")
)

// move takes the seat to a standby once that has what the client may have seen, or to
// the primary where it may, and has the client ask again.
func (s *session) move(c *loop.Client, to string) {
	st, o := s.seat, s.options()
	patience := o.ConnectWait
	if o.ReadOnlyFallback {
		patience = seatPatience
	}
	ctx, cancel := context.WithTimeout(s.life, patience)
	defer cancel()
	err := s.catchUp(ctx, to)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.moving = false
	switch {
	case err == nil:
		s.sit(to)
	case errors.Is(err, errAway): // there may be another
	case o.ReadOnlyFallback:
		st.until = time.Now().Add(seatPause)
		s.sit("")
	default:
		s.Log.Info("no standby to read from", "node", to, "user", s.user, "error", err)
		c.Deny(conv.Main, noStandby(s.Topology.Current(), fmt.Errorf("%s: %w", to, err)))
		return
	}
	c.Deny(conv.Main, nil)
}

// catchUp waits until a standby has replayed all that can have been seen anywhere when it
// was called.
func (s *session) catchUp(ctx context.Context, to string) error {
	need, err := s.newest(ctx)
	for gap := replayGap; err == nil; gap = min(2*gap, maxReplayGap) {
		v := s.Topology.Current()
		one := v.Standby(to)
		if !s.fits(one) {
			return errAway
		}
		has, failed := s.Positions.Replayed(ctx, one.Nearest())
		switch {
		case failed != nil && ctx.Err() == nil:
			s.Log.Info("standby does not say what it has replayed", "node", to, "error", failed)
			s.seats.avoid(to)
			return errAway
		case failed == nil && has >= need:
			return nil
		}
		if pauseFor(ctx, gap); ctx.Err() != nil {
			err = errBehind
		}
	}
	return err
}

// newest is where the primary is in its WAL: no standby has shown more.
func (s *session) newest(ctx context.Context) (cluster.LSN, error) {
	for {
		err := errNoNode
		if v := s.Topology.Current(); v.HasPrimary() {
			var at pool.Position
			if at, err = s.Positions.Written(ctx, v.Primary.Nearest()); err == nil {
				return at.Flushed, nil
			}
		}
		if pauseFor(ctx, maxReplayGap); ctx.Err() != nil {
			return 0, fmt.Errorf("where the primary is in its WAL is not known: %w", err)
		}
	}
}

// seatDenied: there is no server at the seat. Where that is the standby's fault the
// client asks again, for another.
func (s *session) seatDenied(e *wire.Error) {
	node, _ := s.seat.at()
	if e != nil && e.Code == cannotRead && node != "" {
		s.Log.Info("no connection to a standby", "node", node, "user", s.user, "error", e)
		s.seats.avoid(node)
		e = nil
	}
	s.handle.Load().Deny(conv.Main, e)
}
