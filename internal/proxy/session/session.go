package session

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/split"
	"manada/internal/proxy/wire"
)

// session is a logged-in client with its backend.
type session struct {
	*Server
	client, server net.Conn
	port           Port
	user           string

	node       string
	addr       string
	epoch      uint64
	primary    bool // bound to the primary of epoch
	backendPID uint32
	backendKey []byte
	key        cancelKey // the client's

	rest []byte // of the server, read during log-in

	// out is held by whoever has begun to write a message, or an answer of a
	// standby, to the client. torn says that one was not finished, over that
	// nothing may be written any more; both guarded by out.
	out        sync.Mutex
	torn, over bool

	track  split.Tracker // up's
	watch  watch
	login  pool.Login // for the second connection
	alike  string     // see pool.Backend.Alike
	second second

	walsender bool
	name      atomic.Pointer[string] // application_name, as a walsender's server reported it last

	// ending is why the session has to end; set once, see end.
	ending atomic.Int32
	life   lifetime
	owed   owed
}

// lifetime bounds what up waits for.
type lifetime struct {
	ctx context.Context
	end context.CancelFunc
}

// owed says whether the client waits for an answer. The relay's two directions
// write one half each.
type owed struct {
	asked    atomic.Uint64 // requests sent, see wire.ClientScan
	tail     atomic.Bool
	left     atomic.Bool
	reading  atomic.Bool   // a standby answers
	answered atomic.Uint64 // ReadyForQuery messages received
	status   atomic.Int32  // transaction status: I, T or E
	copyIns  atomic.Uint64 // how often the server began to read COPY's data
	copyIn   atomic.Bool   // and whether it does
	reads    atomic.Bool   // what is owed only reads, as far as its texts say
	errors   atomic.Uint64 // ErrorResponse messages received before the last ReadyForQuery
}

func (o *owed) any() bool     { return o.unknown() || o.reading.Load() }
func (o *owed) unknown() bool { return o.tail.Load() || o.asked.Load() > o.answered.Load() }
func (o *owed) inTx() bool    { return o.status.Load() != 'I' }
func (o *owed) isIdle() bool  { return !o.any() && !o.inTx() }

func newSession(c *client, b *pool.Backend, d destination, l pool.Login) *session {
	s := &session{
		Server: c.Server, client: c.conn, server: b.Conn, port: c.port, user: c.user,
		node: d.node.Name, addr: d.node.Addr, epoch: d.epoch, primary: d.primary,
		backendPID: b.PID, backendKey: b.Key, rest: b.Rest,
	}
	s.owed.status.Store(int32(b.Status))
	// detached: sessions outlive the log-in's context; relay and end end it
	s.life.ctx, s.life.end = context.WithCancel(context.Background())
	s.login = l
	if s.walsender = c.startup.Walsender(); s.walsender {
		name := b.Settings["application_name"]
		s.name.Store(&name)
	}
	s.second.seen = true // what others wrote before it began
	if c.hidesWarnings() {
		s.watch.hide()
	}
	s.track.Balance = c.Options.Split && c.port == ReadWrite && splittable(c.startup, b)
	return s
}

// stale says whether the session's primary has been deposed: a newer epoch was
// won, and from that moment the old primary can acknowledge nothing.
func (s *session) stale(v route.View) bool {
	return s.primary && v.Known && v.Epoch > s.epoch
}

// Why a session is ended by the proxy.
const (
	endNot int32 = iota
	endDeposed
	endLost
	endShutdown
)

// end interrupts the relay, which then says why. It does not wait.
func (s *session) end(why int32) {
	if !s.ending.CompareAndSwap(endNot, why) {
		return
	}
	s.client.SetWriteDeadline(time.Now().Add(linger)) // one that does not read cannot hold us up
	s.server.SetReadDeadline(time.Unix(1, 0))
	s.life.end()
	s.interruptSecond()
}

func (s *session) endIfIdle() {
	if s.owed.isIdle() {
		s.end(endShutdown)
	}
}

// lastWords is what the client is told when the proxy ends its session, or when
// the node went away without a word (endNot).
func (s *session) lastWords(why int32) *wire.Error {
	var what string
	code, hint := "57P01", "Connect again: the proxy waits for the new primary."
	switch why {
	case endDeposed:
		what = fmt.Sprintf("the primary changed: %s was replaced after epoch %d", s.node, s.epoch)
	case endLost:
		what = fmt.Sprintf("%s does not answer any more", s.node)
	case endShutdown:
		what, hint = "the proxy is shutting down", "Connect again: another proxy, or this one once it is back."
	default:
		code, what = "08006", fmt.Sprintf("the connection to PostgreSQL on %s was lost", s.node)
	}
	e := wire.Fatal(code, what, hint)
	switch {
	case s.owed.unknown() && s.owed.reads.Load() && !s.owed.inTx():
		e.Detail = "The last command only read, as far as its text says; it can be repeated."
	case s.owed.unknown() && !s.owed.reads.Load():
		s.Stats.UnknownResult.Add(1)
		e.Code = "08007"
		e.Message += "; it is not known whether the last command took effect"
		e.Hint = "Connect again and check whether the last transaction is there before repeating it."
	case s.owed.reading.Load():
		e.Detail = "The last command only read; it can be repeated."
	case s.owed.inTx():
		e.Detail = "The open transaction was rolled back."
	}
	return e
}

// unreplicated is told instead of the success of a commit that PostgreSQL did
// locally without waiting for its standbys.
func unreplicated() *wire.Error {
	e := wire.Fatal("08007", "transaction resolution unknown: the wait for synchronous replication was canceled",
		"Connect again and check whether the transaction is there before repeating it.")
	e.Detail = "The transaction has committed on the primary but may not have been replicated; a failover could lose it."
	return e
}

// splittable says whether the texts of a client can be classified, and its
// second connection would be like its first.
func splittable(startup wire.Startup, b *pool.Backend) bool {
	return b.Settings["standard_conforming_strings"] == "on" && classify.Encoding(b.Settings["client_encoding"]) &&
		startup.Get("replication") == ""
}
