package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"manada/internal/pki"
	"manada/internal/verb"
)

// ServerConfig says what a Server needs.
type ServerConfig struct {
	Self pki.Name // this host
	Hub  *Hub     // nil on a host with nothing but a proxy
	// TLS is pki.Identity.ServerTLSOptionalClient where newcomers may join
	// over this port, else ServerTLS.
	TLS *tls.Config
	// Join answers POST /v1/join, the one request without a client
	// certificate (pki.Authority). nil: nobody joins here.
	Join http.Handler
	// Refresh answers POST /v1/refresh, which proves itself and needs no client
	// certificate either (rotate.Keeper). nil: nobody is answered.
	Refresh http.Handler
	// Admit may refuse a caller whose certificate TLS has verified, as that of
	// a host that was removed from the herd. nil: all are admitted.
	Admit func(*x509.Certificate) error
	// Watch wraps the listener, to end connections of callers that are not
	// admitted any more (pki.Identity.Listener). nil: none.
	Watch func(net.Listener) net.Listener
	Log   *slog.Logger
	// Silence is how long a stream may be stuck. Default 2 s.
	Silence time.Duration
}

// Server answers the verbs of the registry (package verb) that were mounted on it: over
// the port by which the herd's hosts hear and call each other, and over a socket of the
// host. It mounts by itself what its configuration has: beats, the view, newcomers.
type Server struct {
	cfg   ServerConfig
	verbs *verbs
	done  chan struct{} // closed when Serve ends: streams have no other end

	proxies proxies // that listen

	mu      sync.Mutex
	stopped bool // no request enters any more
	busy    sync.WaitGroup
}

// NewServer makes a server. Its TLS configuration must ask for certificates.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Silence <= 0 {
		cfg.Silence = defaultSilence
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, verbs: newVerbs(cfg.Self.Node), done: make(chan struct{})}
	s.Handle(verb.Join, open(cfg.Join))
	s.Handle(verb.Refresh, open(cfg.Refresh))
	if cfg.Hub != nil {
		s.Handle(verb.Beats, http.HandlerFunc(s.sendBeats))
		s.Handle(verb.PushBeats, http.HandlerFunc(s.takeBeats))
		s.Handle(verb.View, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, cfg.Hub.View()) }))
		s.Handle(verb.Proxies, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, s.listening()) }))
	}
	return s
}

// Handle mounts a verb. The handler finds out who calls with CallerOf; that he may, and
// that he gave what the verb takes, was seen to. Mount before Serve.
func (s *Server) Handle(v verb.Verb, h http.Handler) { s.verbs.handle(v, h) }

// Serve answers on the listener until ctx ends, which ends all streams at once
// and gives calls a second to finish. It closes the listener. A server serves once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		TLSConfig:         s.cfg.TLS.Clone(),
		ReadHeaderTimeout: 3 * time.Second, // bounds the TLS handshake too
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		// HTTP/1.1 only: a stream of beats shall have a connection to itself.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	ended := make(chan error, 1)
	var tuned net.Listener = &tunedListener{l, s.cfg.Silence}
	if s.cfg.Watch != nil {
		tuned = s.cfg.Watch(tuned)
	}
	go func() { ended <- srv.ServeTLS(tuned, "", "") }()
	var err error
	select {
	case err = <-ended:
		close(s.done)
	case <-ctx.Done():
		close(s.done)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		srv.Shutdown(grace)
		<-ended
	}
	srv.Close()
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.busy.Wait()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve peers on %s: %w", l.Addr(), err)
	}
	return nil
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		return
	}
	defer s.busy.Done()
	by, err := s.admit(r)
	s.verbs.serve(w, r, who{by, false, err})
}

// ServeLocal answers programs of this host over a socket, which its user alone may open,
// until ctx ends.
func (s *Server) ServeLocal(ctx context.Context, path string) error {
	l, err := ListenLocal(path)
	if err != nil {
		return fmt.Errorf("listen for this host's programs: %w", err)
	}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.verbs.serve(w, r, who{Name: s.cfg.Self, local: true})
	})}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve this host's programs: %w", err)
	}
	return nil
}

// enter counts a request in, unless Serve is already waiting for the last ones.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.busy.Add(1)
	return true
}

// open answers what needs no client certificate.
func open(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h == nil {
			WriteError(w, Refuse(http.StatusNotFound, CodeNotFound, "ask another data or witness host of the herd", "this host does not answer that"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, verb.MaxBody)
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Second))
		h.ServeHTTP(w, r)
	})
}

// admit says who calls, from the certificate that TLS has verified.
func (s *Server) admit(r *http.Request) (pki.Name, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return pki.Name{}, Refuse(http.StatusUnauthorized, CodeNoHost,
			"a host gets a certificate by joining: manada node token", "a certificate of this herd is needed")
	}
	by, err := pki.NameOf(r.TLS.VerifiedChains[0][0])
	if err != nil {
		return pki.Name{}, Refuse(http.StatusForbidden, CodeForbidden, "", "%v", err)
	}
	if by.Cluster != s.cfg.Self.Cluster {
		return pki.Name{}, Refuse(http.StatusForbidden, CodeForbidden, "", "%s belongs to cluster %q", by.Node, by.Cluster)
	}
	if s.cfg.Admit != nil {
		if err := s.cfg.Admit(r.TLS.VerifiedChains[0][0]); err != nil {
			return pki.Name{}, Refuse(http.StatusForbidden, CodeForbidden, "", "%v", err)
		}
	}
	return by, nil
}

type callerKey struct{}

// CallerOf says which host called, in a handler mounted with Server.Handle.
func CallerOf(ctx context.Context) (pki.Name, bool) {
	n, ok := ctx.Value(callerKey{}).(pki.Name)
	return n, ok
}

// tunedListener sets on every connection what makes dead peers show.
type tunedListener struct {
	net.Listener
	silence time.Duration
}

func (l *tunedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetWriteBuffer(streamBuffer)
		if raw, err := t.SyscallConn(); err == nil {
			if set := setUserTimeout(l.silence); set != nil {
				set("", "", raw)
			}
		}
	}
	return c, nil
}
