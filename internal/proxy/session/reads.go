package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/conv"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/wire"
)

// reads is how a session gets its reads answered by a standby. It has a home, the
// node that answers them: a standby or the primary, chosen once so that the homes
// are spread evenly.
type reads struct {
	login pool.Login
	alike string // see pool.Backend.Alike

	mu     sync.Mutex
	chosen bool   // the home
	home   string // a standby; "" is the primary
	node   string // that it is connected to; "": none
	until  time.Time
	late   time.Time // when the standby was last seen to be behind
}

const (
	// openTimeout bounds the log-in of a second connection: a read waits for it.
	openTimeout = 2 * time.Second
	// avoidFor keeps reads away from a standby that has failed.
	avoidFor = 2 * time.Second
	// catchUp is how long a read waits for its standby to replay what the session
	// wrote, before the primary answers. A synchronous standby has it already. When
	// that was in vain, the primary answers for behindFor without a wait.
	catchUp   = 10 * time.Millisecond
	replayGap = 500 * time.Microsecond
	behindFor = 100 * time.Millisecond
	// unlikeFor keeps reads away from standbys whose session would be another.
	unlikeFor = time.Minute
)

// standby is the session's home, when that is a standby that reads may be sent to.
func (s *session) standby() (route.Standby, bool) {
	v := s.Topology.Current()
	if !v.HasPrimary() || s.shared == nil && v.Epoch != s.main.epoch || s.draining.Load() {
		return route.Standby{}, false
	}
	usable := s.Reader.Usable(v)
	if len(usable) == 0 {
		return route.Standby{}, false
	}
	r := s.reads
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.chosen {
		r.chosen, r.home = true, s.homes.choose(usable)
	}
	if now := time.Now(); r.home == "" || now.Before(r.until) || now.Sub(r.late) < behindFor {
		return route.Standby{}, false
	}
	for _, st := range usable {
		if st.Name == r.home && !s.homes.avoided(st.Name) {
			return st, true
		}
	}
	for _, st := range usable { // a new home: what was seen at the old one is asked for there
		if st.Name != r.home && !s.homes.avoided(st.Name) {
			s.homes.leave(r.home)
			r.home = st.Name
			s.homes.enter(st.Name)
			return st, true
		}
	}
	return route.Standby{}, false
}

// open logs in to the standby as the client. The session cannot write there, not
// even if the standby is none any more.
func (s *session) open(c *loop.Client, st route.Standby) {
	l := s.reads.login
	l.Params = append([]wire.Param(nil), l.Params...)
	l.Params = append(l.Params, readsOnly)
	ctx, cancel := context.WithTimeout(s.life, openTimeout)
	defer cancel()
	b, err := s.Dialer.Open(ctx, s.wayAs(st.Node, s.user), l)
	if err == nil {
		err = s.sameAs(ctx, b)
		if err == nil {
			err = s.grant(c, st, b)
		} else {
			b.Conn.Close()
		}
	}
	if err == nil {
		return
	}
	if s.life.Err() == nil {
		s.Log.Info("no second connection for reads", "node", st.Name, "user", s.user, "error", err)
		if transient(err) || tooMany(err) {
			s.homes.avoid(st.Name)
		}
		pause := avoidFor
		if errors.Is(err, errUnlike) {
			pause = unlikeFor
		}
		s.reads.pause(pause)
	}
	c.Deny(conv.Reader, nil)
}

func (s *session) grant(c *loop.Client, st route.Standby, b *pool.Backend) error {
	socket, err := loop.Take(b.Conn, b.Rest)
	if err != nil {
		return err
	}
	s.reads.joined(st.Name)
	s.nodes.add(st.Name, 1)
	c.Grant(conv.Reader, &loop.Server{Socket: socket, Link: conv.NewLink(st.Name, 0, nil, b.Status),
		Backend: &backend{node: st.Name, addr: b.Addr, pid: b.PID, key: b.Key}}, func() { s.lostReader(st.Name) })
	return nil
}

// lostReader: a standby's connection is none of the session's any more.
func (s *session) lostReader(node string) {
	s.nodes.add(node, -1)
	s.reads.left(node)
}

var errUnlike = errors.New("its session would have other settings than the first one got at log-in")

// sameAs says whether a second session answers a read as the first one would:
// what PostgreSQL gives a session at log-in may have changed meanwhile.
func (s *session) sameAs(ctx context.Context, b *pool.Backend) error {
	if standby, known := b.InRecovery(); known && !standby {
		return errPromoted
	}
	alike, err := b.Alike(ctx)
	if err == nil && alike != s.reads.alike {
		err = errUnlike
	}
	return err
}

// retire gives up the standby of a session when reads may not be sent there any more.
func (s *session) retire(usable []route.Standby) {
	h := s.handle.Load() // first: before it is set nothing else is
	if h == nil || s.reads == nil {
		return
	}
	node := s.reads.at()
	if node == "" {
		return
	}
	for _, st := range usable {
		if st.Name == node && !s.homes.avoided(node) {
			return
		}
	}
	if s.shared != nil {
		s.pools.desk.Withdraw(&s.shared.claims[conv.Reader])
		h.Deny(conv.Reader, nil)
	}
	h.Release(conv.Reader)
}

// written is where the primary is in its WAL.
func (r *reads) written(s *session, addr, node string) conv.Event {
	none := conv.Event{Kind: conv.Written}
	if r.behind() || addr == "" {
		return none
	}
	ctx, cancel := context.WithTimeout(s.life, openTimeout)
	defer cancel()
	at, err := s.Positions.Written(ctx, addr)
	if err != nil {
		s.Log.Debug("position of the primary unknown", "node", node, "error", err)
		return none
	}
	return conv.Event{Kind: conv.Written, Flushed: at.Flushed, Insert: at.Inserted}
}

// replayed waits a moment for a standby to have replayed up to a position, and
// returns what it has replayed; 0 when that is not known.
func (r *reads) replayed(s *session, addr, node string, upTo cluster.LSN) cluster.LSN {
	if r.behind() {
		return 0
	}
	ctx, cancel := context.WithTimeout(s.life, openTimeout)
	defer cancel()
	for deadline := time.Now().Add(catchUp); ; {
		lsn, err := s.Positions.Replayed(ctx, addr)
		switch {
		case err != nil:
			s.homes.avoid(node)
			s.Log.Info("standby does not say what it has replayed", "node", node, "error", err)
			return 0
		case lsn >= upTo:
			return lsn
		case !time.Now().Before(deadline):
			r.mu.Lock()
			r.late = time.Now()
			r.mu.Unlock()
			return lsn
		}
		pauseFor(ctx, replayGap)
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// behind says whether the standby was seen to be behind a moment ago.
func (r *reads) behind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.late) < behindFor
}

func (r *reads) pause(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Now().Add(d)
}

// at is the standby that the session is connected to.
func (r *reads) at() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.node
}

// where is the session's home; "": the primary, or not chosen yet.
func (r *reads) where() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.home
}

func (r *reads) joined(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.node = node
}

func (r *reads) left(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.node == node {
		r.node = ""
	}
}

// end leaves the home.
func (r *reads) end(h *homes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chosen {
		h.leave(r.home)
	}
}
