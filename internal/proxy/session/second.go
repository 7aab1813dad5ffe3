package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/split"
	"manada/internal/proxy/wire"
)

// second is the session's connection to a standby. Only up uses it, but for
// what mu guards.
//
// A session that reads has a home, the node that answers its reads: a standby or
// the primary, chosen once so that the homes are spread evenly. A standby
// answers only when it has replayed all that the session can have seen or
// written on the primary; until then the primary answers. So a session reads
// what it has written, and never sees less than it has seen before.
type second struct {
	chosen  bool   // the home
	home    string // a standby; "" is the primary
	need    cluster.LSN
	seen    bool        // the primary may have shown more than need
	has     cluster.LSN // what the standby has replayed at least, since it was connected to
	until   time.Time   // no standby is used before
	behind  time.Time   // when the standby was last seen to be
	settled uint64      // of the journal
	stmts   map[string]*split.Stmt
	src     *source

	asked, errors uint64 // when the tracker was told last, see next

	mu      sync.Mutex
	backend *pool.Backend
	node    string
	broken  bool // its deadline was moved to interrupt it
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
)

// offered is what has become of an offer.
type offered int

const (
	offerDeclined offered = iota // the primary has to answer
	offerAnswered
	offerOver // so is the session
)

// offer lets a standby answer a unit if there is one that may.
func (s *session) offer(u split.Unit, b []byte) offered {
	st, ok := s.standby()
	if !ok {
		return offerDeclined
	}
	// Connected first and asked second: a standby that crashes may come back with
	// less, and takes the connection with it.
	if s.second.backend == nil && !s.openSecond(st) || !s.fresh(st) || !s.ready(st) {
		return offerDeclined
	}
	return s.read(st, u, b)
}

// standby is the session's home, when that is a standby that reads may be sent to.
func (s *session) standby() (route.Standby, bool) {
	v := s.Topology.Current()
	if !v.HasPrimary() || v.Epoch != s.epoch || s.ending.Load() != endNot || s.Positions == nil {
		return route.Standby{}, false
	}
	usable := s.Reader.Usable(v)
	if len(usable) == 0 {
		return route.Standby{}, false
	}
	if !s.second.chosen {
		s.second.chosen, s.second.home = true, s.homes.choose(usable)
	}
	if s.second.home == "" || time.Now().Before(s.second.until) {
		return route.Standby{}, false
	}
	for _, st := range usable {
		if st.Name == s.second.home && !s.homes.avoided(st.Name) {
			return st, true
		}
	}
	return s.move(usable)
}

// move finds a new home for a session whose standby is of no use now. What it
// has seen there the next one may not have replayed yet.
func (s *session) move(usable []route.Standby) (route.Standby, bool) {
	for _, st := range usable {
		if st.Name != s.second.home && !s.homes.avoided(st.Name) {
			s.homes.leave(s.second.home)
			s.second.home = st.Name
			s.homes.enter(st.Name)
			s.dropSecond()
			s.second.seen = true
			return st, true
		}
	}
	return route.Standby{}, false
}

// fresh says whether a standby has replayed what the session may have seen. The
// beats are not asked: one may be older than a crash of the standby.
func (s *session) fresh(st route.Standby) bool {
	if time.Since(s.second.behind) < behindFor {
		return false
	}
	ctx, cancel := context.WithTimeout(s.life.ctx, openTimeout)
	defer cancel()
	if s.track.Wrote || s.second.seen {
		at, err := s.Positions.Written(ctx, s.addr)
		if err != nil {
			s.Log.Debug("position of the primary unknown", "node", s.node, "error", err)
			return false
		}
		s.second.need = max(s.second.need, at.Flushed)
		if s.track.Wrote { // perhaps with synchronous_commit = off
			s.second.need = max(s.second.need, at.Inserted)
		}
		s.track.Wrote, s.second.seen = false, false
	}
	if s.second.has >= s.second.need {
		return true
	}
	for deadline := time.Now().Add(catchUp); ; {
		lsn, err := s.Positions.Replayed(ctx, st.Addr)
		switch {
		case err != nil:
			s.homes.avoid(st.Name)
			s.Log.Info("standby does not say what it has replayed", "node", st.Name, "error", err)
			return false
		case lsn >= s.second.need:
			s.second.has = lsn
			return true
		case !time.Now().Before(deadline):
			s.second.behind = time.Now()
			return false
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

// ready tells the connection what the session has set.
func (s *session) ready(st route.Standby) bool {
	said, now := s.track.Journal.Since(s.second.settled)
	for _, sql := range said {
		if err := s.say(sql); err != nil {
			s.Log.Info("a setting could not be repeated on a standby", "node", st.Name, "user", s.user, "error", err)
			s.dropSecond()
			s.second.until = time.Now().Add(time.Minute)
			return false
		}
	}
	s.second.settled = now
	return true
}

// openSecond logs in to the standby as the client. The session cannot write
// there, not even if the standby is none any more.
func (s *session) openSecond(st route.Standby) bool {
	l := s.login
	l.Params = append([]wire.Param(nil), l.Params...)
	l.Params = append(l.Params, wire.Param{Name: "default_transaction_read_only", Value: "on"})
	ctx, cancel := context.WithTimeout(s.life.ctx, openTimeout)
	defer cancel()
	b, err := s.Dialer.Open(ctx, st.Addr, l)
	if err == nil {
		if err = s.sameAs(ctx, b); err != nil {
			b.Conn.Close()
		}
	}
	if err != nil {
		if s.life.ctx.Err() == nil {
			s.Log.Info("no second connection for reads", "node", st.Name, "user", s.user, "error", err)
			if transient(err) || tooMany(err) {
				s.homes.avoid(st.Name)
			}
			s.second.until = time.Now().Add(avoidFor)
			if errors.Is(err, errUnlike) {
				s.second.until = time.Now().Add(time.Minute)
			}
		}
		return false
	}
	s.second.has = 0
	s.second.stmts, s.second.settled, s.second.src = map[string]*split.Stmt{}, 0, newSource(b.Conn)
	s.second.src.preload(b.Rest)
	s.second.src.fresh = 0
	s.second.mu.Lock()
	s.second.backend, s.second.node, s.second.broken = b, st.Name, false
	s.second.mu.Unlock()
	if s.ending.Load() != endNot { // published first, compared second, as in connect
		s.interruptSecond()
	}
	return true
}

var errUnlike = errors.New("its session would have other settings than the first one got at log-in")

// sameAs says whether a second session answers a read as the first one would:
// what PostgreSQL gives a session at log-in may have changed meanwhile.
func (s *session) sameAs(ctx context.Context, b *pool.Backend) error {
	if standby, known := b.InRecovery(); known && !standby {
		return errPromoted
	}
	alike, err := b.Alike(ctx)
	if err == nil && alike != s.alike {
		err = errUnlike
	}
	return err
}

// interruptSecond ends what the standby is doing for the session.
func (s *session) interruptSecond() {
	s.second.mu.Lock()
	defer s.second.mu.Unlock()
	if s.second.backend != nil {
		s.second.broken = true
		s.second.backend.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// endLostSecond gives the standby up when its host does not acknowledge what
// was sent to it.
func (s *session) endLostSecond(limit time.Duration) {
	s.second.mu.Lock()
	lost := s.second.backend != nil && pool.Lost(s.second.backend.Conn, limit)
	s.second.mu.Unlock()
	if lost {
		s.interruptSecond()
	}
}

// dropSecond closes the connection. What comes next opens another.
func (s *session) dropSecond() {
	s.second.mu.Lock()
	b := s.second.backend
	s.second.backend, s.second.node = nil, ""
	s.second.mu.Unlock()
	if b == nil {
		return
	}
	b.Conn.SetWriteDeadline(time.Now().Add(linger))
	b.Conn.Write(wire.AppendMessage(nil, wire.TypeTerminate, nil))
	b.Conn.Close()
	s.second.src.release()
	s.second.src, s.second.stmts = nil, nil
}

func (s *session) closeSecond() {
	s.dropSecond()
	if s.second.chosen {
		s.homes.leave(s.second.home)
	}
}

// secondNode is the standby that the session is connected to.
func (s *session) secondNode() string {
	s.second.mu.Lock()
	defer s.second.mu.Unlock()
	return s.second.node
}

// running is the backend that a cancel request is for.
func (s *session) running() (node, addr string, pid uint32, key []byte) {
	s.second.mu.Lock()
	defer s.second.mu.Unlock()
	if b := s.second.backend; b != nil && s.owed.reading.Load() {
		return s.second.node, b.Addr, b.PID, b.Key
	}
	return s.node, s.addr, s.backendPID, s.backendKey
}
