package session

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"manada/internal/proxy/split"
	"manada/internal/proxy/wire"
)

// Replication through the proxy may not bear a name with @ or ~: only standbys
// do, and PostgreSQL would let whoever has such a name acknowledge commits. The
// name may come with the start-up packet, from the role's or the database's
// settings, or by SET, set_config or a function; whatever way, the server
// reports it. So each query of a replication session waits for the answers to
// those before it, and none is passed on while the reported name is one of these.

// standbyName says whether only a standby may bear the name.
func standbyName(name string) bool { return strings.ContainsAny(name, "@~") }

func refuseName(name string) *wire.Error {
	return wire.Fatal("42501", fmt.Sprintf("a replication connection through the proxy may not have the application_name \"%s\"", name),
		"Names with @ or ~ are the standbys'. Choose another application_name.")
}

// mayReplicateAs refuses names of the start-up packet, before anybody logs in.
func (c *client) mayReplicateAs() error {
	if !c.startup.Walsender() {
		return nil
	}
	for _, name := range wire.Given(c.startup.Params, "application_name") {
		if standbyName(name) {
			return refuseName(name)
		}
	}
	return nil
}

// upWalsender is up for replication sessions: message by message.
func (s *session) upWalsender() {
	in := intake{src: newSource(s.client)}
	defer in.src.release()
	defer s.closeSecond()
	var scan wire.ClientScan
	skip := 0 // bytes of the current message still to come
	for {
		err := in.fill()
		for {
			b := in.held()
			if skip == 0 && len(b) >= 5 {
				skip = max(5, 1+int(binary.BigEndian.Uint32(b[1:]))) // less is for the server to refuse
				if b[0] == wire.TypeQuery && !s.mayAsk() {
					return
				}
			}
			n := min(skip, len(b))
			if n == 0 {
				break
			}
			if skip -= n; !s.forward(&scan, split.Step{}, b[:n]) {
				return
			}
			in.consume(n)
		}
		if err != nil {
			s.owed.left.Store(true)
			s.hangUp(err)
			return
		}
	}
}

// mayAsk waits until the server has answered what was asked before, and says
// whether the session still bears a name that it may bear. If not it is ended.
func (s *session) mayAsk() bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.owed.unknown() {
		select {
		case <-s.life.ctx.Done():
			return false
		case <-tick.C:
		}
	}
	name := s.name.Load()
	if name == nil || !standbyName(*name) {
		return true
	}
	s.Log.Warn("replication under a standby's name refused", "user", s.user, "name", *name)
	s.out.Lock()
	if !s.over && !s.torn {
		_, _ = s.client.Write(refuseName(*name).Append(nil))
		s.over = true
	}
	s.out.Unlock()
	s.owed.left.Store(true) // it has been told
	s.server.Close()
	return false
}
