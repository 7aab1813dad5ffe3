package session

import "manada/internal/proxy/conv"

// options are those in use.
func (s *Server) options() *Options {
	if o := s.live.Load(); o != nil {
		return o
	}
	return &s.Options
}

// Current is a copy of the options in use.
func (s *Server) Current() Options { return *s.options() }

// Reload takes other options while clients are served. Limits, who may log in and
// modes are for those who come; time-outs and pools also for those who are there: what
// of them runs begins anew. TLS, loops and the secret of mock exchanges stay as they
// are.
func (s *Server) Reload(o Options) {
	old := s.options()
	o.ClientTLS, o.Loops, o.MockSecret = old.ClientTLS, old.Loops, old.MockSecret
	s.live.Store(&o)
	s.door.bound(o.MaxUnproved)
	s.pools.desk.Configure(o.Pool)
	s.pools.follow(s.Topology.Current())
	for _, one := range s.registry.list() {
		one.reload(&o)
	}
}

// reload gives the client's conversation the limits of options.
func (s *session) reload(o *Options) {
	h := s.handle.Load()
	if h == nil || s.conf.Walsender {
		return // it is on its way to its loop, see caughtUp; or it has no limits
	}
	h.Tell(conv.Event{Kind: conv.Limited, Limits: o.limits()})
}

// limits are those of a client that is logged in.
func (o *Options) limits() *conv.Limits {
	return &conv.Limits{Query: o.QueryTimeout, Tx: o.TxTimeout, IdleTx: o.IdleTxTimeout, Idle: o.IdleTimeout}
}

// caughtUp looks after a hand-over whether there was a Reload meanwhile.
func (s *session) caughtUp() {
	if o := s.options(); o != s.began {
		s.reload(o)
	}
}
