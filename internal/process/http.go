package process

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"manada/internal/api"
	"manada/internal/peer"
	"manada/internal/pki"
)

// serveHTTP answers load balancers, Prometheus and whoever asks for the
// status: read-only, in the clear on loopback, with TLS anywhere else.
func (h *hostAgent) serveHTTP(ctx context.Context) error {
	addr := h.cfg.ListenOn(h.cfg.Ports.HTTP)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", addr, err)
	}
	a := api.New(api.Options{Log: h.log, Source: h.agent, Events: eventSource{h.store}, LoopAge: h.agent.LoopAge, LastTakeover: h.agent.LastTakeover})
	return api.Serve(ctx, l, a.Handler(api.ReadOnly), h.publicTLS(), h.log, time.Second)
}

// getPostgres tells of this host's own PostgreSQL.
func (h *hostAgent) getPostgres(w http.ResponseWriter, r *http.Request) {
	if h.refusedHere(w) {
		return
	}
	f, err := h.db.Facts(r.Context())
	if err != nil {
		peer.WriteError(w, peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "manada status", "%v", err))
		return
	}
	peer.WriteJSON(w, f)
}

func (h *hostAgent) publicTLS() *tls.Config {
	if h.cfg.Loopback() {
		return nil
	}
	return h.id.PublicTLS()
}

// mount adds what needs more than the agent to the peers' port.
func (h *hostAgent) mount(s *peer.Server, authority *pki.Authority) {
	s.Handle("GET /v1/facts", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := h.herdFacts(r.Context())
		if err != nil {
			peer.WriteError(w, err)
			return
		}
		peer.WriteJSON(w, f)
	}))
	s.Handle("GET /v1/postgres", http.HandlerFunc(h.getPostgres))
	s.Handle("GET /v1/config", http.HandlerFunc(h.getConfig))
	s.Handle("POST /v1/config", http.HandlerFunc(h.postConfig))
	s.Handle("GET /v1/registry", http.HandlerFunc(h.getRegistry))
	s.Handle("GET /v1/secrets", http.HandlerFunc(h.getSecrets))
	s.Handle("POST /v1/secrets/rotate", http.HandlerFunc(h.postRotate))
	s.Handle("POST /v1/secrets/superuser", http.HandlerFunc(h.postSuperuser))
	s.Handle("GET /v1/renew", authority.RenewHandler())
	s.Handle("POST /v1/restore/plan", http.HandlerFunc(h.postPlan))
	s.Handle("POST /v1/backup", http.HandlerFunc(h.postBackup))
	s.Handle("POST /v1/stanza", http.HandlerFunc(h.postStanza))
	s.Handle("POST /v1/archive-check", http.HandlerFunc(h.postArchiveCheck))
	s.Handle("GET /v1/backup", http.HandlerFunc(h.getBackup))
}
