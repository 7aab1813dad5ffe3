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
)

// maxBody bounds the body of a call.
const maxBody = 1 << 20

// ServerConfig says what a Server needs.
type ServerConfig struct {
	Hub *Hub
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

// Server is the port over which the herd's hosts hear and call each other.
//
//	GET  /v1/beats   this host's beats, line by line, as they are published
//	POST /v1/beats   beats pushed to this host (a guardian's)
//	GET  /v1/view    the newest beat of everybody this host hears, as []Row
//	POST /v1/join    newcomers
//	POST /v1/refresh hosts that lack secrets of the herd
//
// and what Handle adds. All but the last two need a certificate of the herd;
// proxies may only GET, and POST to DrainPath.
type Server struct {
	cfg  ServerConfig
	mux  *http.ServeMux
	done chan struct{} // closed when Serve ends: streams have no other end

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
	s := &Server{cfg: cfg, mux: http.NewServeMux(), done: make(chan struct{})}
	s.mux.HandleFunc("GET /v1/beats", s.sendBeats)
	s.mux.HandleFunc("POST /v1/beats", s.takeBeats)
	s.mux.HandleFunc("GET /v1/view", func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, cfg.Hub.View()) })
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		WriteError(w, Refuse(http.StatusNotFound, CodeNotFound, "", "%s %s is not served here", r.Method, r.URL.Path))
	})
	return s
}

// Handle mounts a verb ("POST /v1/switchover"). The handler finds out who calls
// with CallerOf. Mount before Serve.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

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
	if r.Method == http.MethodPost && r.URL.Path == "/v1/join" {
		s.open(w, r, s.cfg.Join)
		return
	}
	if r.Method == http.MethodPost && r.URL.Path == "/v1/refresh" {
		s.open(w, r, s.cfg.Refresh)
		return
	}
	who, err := s.admit(r)
	if err != nil {
		WriteError(w, err)
		return
	}
	rc := http.NewResponseController(w)
	if r.URL.Path != "/v1/beats" {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		rc.SetReadDeadline(time.Now().Add(30 * time.Second))
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
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
func (s *Server) open(w http.ResponseWriter, r *http.Request, h http.Handler) {
	if h == nil {
		WriteError(w, Refuse(http.StatusNotFound, CodeNotFound, "ask another data or witness host of the herd", "this host does not answer that"))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Second))
	h.ServeHTTP(w, r)
}

// admit says who calls, from the certificate that TLS has verified.
func (s *Server) admit(r *http.Request) (pki.Name, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return pki.Name{}, Refuse(http.StatusUnauthorized, CodeNoHost,
			"a host gets a certificate by joining: manada node token", "a certificate of this herd is needed")
	}
	who, err := pki.NameOf(r.TLS.VerifiedChains[0][0])
	if err != nil {
		return pki.Name{}, Refuse(http.StatusForbidden, CodeForbidden, "", "%v", err)
	}
	if who.Cluster != s.cfg.Hub.cfg.Cluster {
		return pki.Name{}, Refuse(http.StatusForbidden, CodeForbidden, "", "%s belongs to cluster %q", who.Node, who.Cluster)
	}
	if !who.Member() && r.Method != http.MethodGet && r.Method != http.MethodHead && !(r.Method == http.MethodPost && r.URL.Path == DrainPath) {
		return pki.Name{}, Refuse(http.StatusForbidden, CodeForbidden,
			"type the command on a data or witness host", "%s is a %s and may not change the herd", who.Node, who.Kind)
	}
	if s.cfg.Admit != nil {
		if err := s.cfg.Admit(r.TLS.VerifiedChains[0][0]); err != nil {
			return pki.Name{}, Refuse(http.StatusForbidden, CodeForbidden, "", "%v", err)
		}
	}
	return who, nil
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
