package session

import (
	"errors"
	"io"
	"time"

	"manada/internal/proxy/wire"
)

// relay copies bytes both ways until one side ends, and closes the backend.
//
// Two goroutines serve a session: this one brings the server's messages to the
// client (down), the other the client's to the server (up). A side that does
// not read stops the other by not being read from: there is no queue. An idle
// session holds no buffers (see source).
func (s *session) relay() {
	upDone := make(chan struct{})
	go func() {
		defer close(upDone)
		s.up()
	}()
	last := s.down()
	s.server.Close()
	if last != nil {
		farewell(s.client, last) // reads from the client together with up, which only discards now
	}
	s.client.SetReadDeadline(time.Unix(1, 0))
	<-upDone
}

// up brings the client's bytes to the server.
func (s *session) up() {
	var scan wire.ClientScan
	src := newSource(s.client)
	defer src.release()
	for {
		err := src.fill()
		if b := src.held(); len(b) > 0 {
			scan.Feed(b)
			// Before the server can answer, so that nobody believes that nothing is owed.
			s.owed.tail.Store(scan.Tail)
			s.owed.asked.Store(scan.Asked)
			if scan.Left {
				s.owed.left.Store(true)
			}
			if _, werr := s.server.Write(b); werr != nil {
				return // what the server said last is still being read by down
			}
			s.Stats.FromClients[s.port].Add(int64(len(b)))
			src.consume(len(b))
		}
		if err != nil {
			s.owed.left.Store(true)
			s.hangUp(err)
			return
		}
	}
}

// hangUp passes the client's end of stream on, or its disappearance.
func (s *session) hangUp(err error) {
	if w, ok := s.server.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) && w.CloseWrite() == nil {
		return
	}
	s.server.Close()
}

// down brings the server's messages to the client. It returns what the client
// is still to be told, or nil.
func (s *session) down() *wire.Error {
	scan := wire.ServerScan{Status: byte(s.owed.status.Load()), Last: wire.TypeReady}
	src := newSource(s.server)
	defer src.release()
	src.preload(s.rest)
	s.rest = nil
	if s.draining.Load() {
		s.endIfIdle()
	}
	for {
		var err error
		if src.fresh == 0 {
			err = src.fill()
		}
		src.fresh = 0
		b := src.held()
		n, cancelled, bad := scan.Feed(b)
		if n > 0 {
			if _, werr := s.client.Write(b[:n]); werr != nil {
				return nil // the client is gone, or does not read and the session has to end
			}
			s.Stats.ToClients[s.port].Add(int64(n))
			src.consume(n)
			s.note(&scan)
		}
		switch {
		case cancelled:
			s.Stats.Unreplicated.Add(1)
			s.Log.Warn("commit not replicated, not passed on as success", "node", s.node, "user", s.user)
			return unreplicated()
		case bad != nil:
			s.Log.Error("backend does not speak the protocol", "node", s.node, "error", bad)
			return nil
		case err != nil:
			return s.ended(err, &scan)
		}
	}
}

// note publishes what the server's messages say about the session.
func (s *session) note(scan *wire.ServerScan) {
	if scan.Ready == s.owed.answered.Load() {
		return
	}
	s.owed.status.Store(int32(scan.Status))
	s.owed.answered.Store(scan.Ready)
	if s.draining.Load() {
		s.endIfIdle()
	}
}

// ended decides about the last words when the server's stream has ended. In
// the middle of a message nothing can be said any more.
func (s *session) ended(err error, scan *wire.ServerScan) *wire.Error {
	why := s.ending.Load()
	switch why {
	case endNot:
		if s.owed.left.Load() || scan.Last == wire.TypeError {
			return nil // the client left, or the server has said why
		}
		s.Stats.Lost.Add(1)
		s.Log.Info("backend lost", "node", s.node, "user", s.user, "error", err)
	case endDeposed:
		s.Stats.Deposed.Add(1)
	case endLost:
		s.Stats.Lost.Add(1)
	}
	if !scan.AtBoundary() {
		return nil
	}
	return s.lastWords(why)
}
