package session

import (
	"time"

	"manada/internal/proxy/wire"
)

// relay copies bytes both ways until one side ends, and closes the backends.
//
// Two goroutines serve a session: this one brings the messages of its first
// server to the client (down), the other takes the client's apart and brings
// them to that server, or lets a standby answer and brings the answer itself
// (up, second). A side that does not read stops the other by not being read
// from: there is no queue. An idle session holds no buffers (see source).
func (s *session) relay() {
	upDone := make(chan struct{})
	go func() {
		defer close(upDone)
		s.up()
	}()
	last := s.down()
	s.server.Close()
	s.life.end()
	s.client.SetWriteDeadline(time.Now().Add(linger)) // up may be writing to it
	s.interruptSecond()
	s.out.Lock()
	if last != nil && !s.torn {
		farewell(s.client, last) // reads from the client together with up, which only discards now
	}
	s.over = true
	s.out.Unlock()
	s.client.SetReadDeadline(time.Unix(1, 0))
	<-upDone
}

// down brings the server's messages to the client. It returns what the client
// is still to be told, or nil.
func (s *session) down() *wire.Error {
	scan := wire.ServerScan{Status: byte(s.owed.status.Load()), Last: wire.TypeReady, Named: s.walsender}
	src := newSource(s.server)
	defer src.release()
	src.preload(s.rest)
	s.rest = nil
	if s.draining.Load() {
		s.endIfIdle()
	}
	whole := true // nothing of a message is on its way to the client
	defer func() {
		if !whole {
			s.torn = true
			s.out.Unlock()
		}
	}()
	for {
		var err error
		if src.fresh == 0 {
			err = src.fill()
		}
		src.fresh = 0
		var found wire.Found
		var bad error
		for more := true; more; {
			var n int
			b := src.held()
			scan.Watch = s.watch.on.Load()
			if n, found, bad = scan.Feed(b); n > 0 {
				if whole {
					s.out.Lock()
				}
				news := s.note(&scan)
				_, werr := s.client.Write(b[:n])
				if whole = scan.AtBoundary(); whole {
					s.out.Unlock()
				}
				if werr != nil {
					return nil // the client is gone, or does not read and the session has to end
				}
				s.Stats.ToClients[s.port].Add(int64(n))
				src.consume(n)
				if news && s.draining.Load() {
					s.endIfIdle()
				}
			}
			if more = found.Again || found.Size > 0; found.Size > 0 {
				if s.watch.drops(found, scan.Ready) {
					src.consume(found.Size)
				} else {
					scan.Pass()
				}
			}
		}
		switch {
		case found.Unreplicated:
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

// note publishes what the server's messages say about the session, before the
// client has them: it may go on at once, and up has to know that it may.
func (s *session) note(scan *wire.ServerScan) bool {
	s.owed.copyIns.Store(scan.CopyIns)
	s.owed.copyIn.Store(scan.CopyIn)
	if scan.Ready == s.owed.answered.Load() {
		return false
	}
	s.watch.ready(scan)
	if s.walsender && scan.Name != "" {
		name := scan.Name
		s.name.Store(&name) // before it counts as answered
	}
	s.owed.errors.Store(scan.Errors)
	s.owed.status.Store(int32(scan.Status))
	s.owed.answered.Store(scan.Ready)
	return true
}

// ended decides about the last words when the server's stream has ended. In
// the middle of a message nothing can be said any more.
func (s *session) ended(err error, scan *wire.ServerScan) *wire.Error {
	why := s.ending.Load()
	switch why {
	case endNot:
		if s.owed.left.Load() || scan.Fatal {
			return nil // the client left, or the server has said why
		}
		s.Stats.Lost.Add(1)
		s.Log.Info("backend lost", "node", s.node, "user", s.user, "error", err)
	case endDeposed:
		s.Stats.Deposed.Add(1)
	case endLost:
		s.Stats.Lost.Add(1)
	}
	if !scan.AtBoundary() || scan.Fatal { // once is enough
		return nil
	}
	return s.lastWords(why)
}
