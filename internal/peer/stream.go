package peer

import (
	"net/http"
	"time"
)

// sendBeats streams this host's beats to a listener until it leaves, gets
// stuck, or the server ends.
func (s *Server) sendBeats(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	rc.SetWriteDeadline(time.Now().Add(s.cfg.Silence))
	if rc.Flush() != nil {
		return
	}
	if boot := r.Header.Get(proxyHeader); boot != "" {
		defer s.proxies.open(r, boot)()
	}
	sub := s.cfg.Hub.out.subscribe()
	defer sub.close()
	for {
		select {
		case <-s.done:
			return
		case <-r.Context().Done():
			return
		case <-sub.wake:
		}
		line := sub.next()
		if line == nil {
			continue
		}
		rc.SetWriteDeadline(time.Now().Add(s.cfg.Silence))
		if _, err := w.Write(line); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
	}
}

// takeBeats hears a pushed stream until it ends or is silent for too long.
func (s *Server) takeBeats(w http.ResponseWriter, r *http.Request) {
	who, _ := CallerOf(r.Context())
	rc := http.NewResponseController(w)
	src := s.cfg.Hub.in.stream(who.Node)
	defer src.close()
	// The body has no end of its own: when the server ends, reading must.
	stopped := make(chan struct{})
	defer close(stopped)
	s.busy.Go(func() {
		select {
		case <-s.done:
			rc.SetReadDeadline(time.Now())
		case <-stopped:
		}
	})
	arm := func() {
		select {
		case <-s.done:
		default:
			rc.SetReadDeadline(time.Now().Add(s.cfg.Silence))
		}
	}
	err := readLines(r.Body, arm, func(line []byte) { src.line(line) })
	s.cfg.Log.Debug("pushed beats ended", "peer", who.Node, "err", err)
}
