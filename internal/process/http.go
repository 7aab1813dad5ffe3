package process

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"manada/internal/api"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/store"
	"manada/internal/verb"
)

// serveHTTP answers load balancers, Prometheus and whoever asks for the
// status: read-only, in the clear on loopback, with TLS anywhere else.
func (h *hostAgent) serveHTTP(ctx context.Context) error {
	addr := h.cfg.ListenOn(h.cfg.Ports.HTTP)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", addr, err)
	}
	events := newEventHub(func(ctx context.Context) (eventReader, error) {
		// Connections of its own: the agent's decisions must not queue behind readers.
		return store.Open(ctx, store.Config{Cluster: h.cfg.Cluster, Endpoints: h.store.Endpoints(), TLS: h.id.ClientTLSAny(), Log: h.log})
	})
	a := api.New(api.Options{Log: h.log, Source: h.agent, Events: events, LoopAge: h.agent.LoopAge, LastTakeover: h.agent.LastTakeover})
	return serveHTTP(ctx, h.cfg, h.id, l, a.Handler(), h.log)
}

// serveHTTP serves a port that everybody may reach: in the clear on loopback,
// with TLS anywhere else, and to whom http.access says.
func serveHTTP(ctx context.Context, c *config.Config, id *pki.Identity, l net.Listener, h http.Handler, log *slog.Logger) error {
	access := api.Access(c.HTTP.Access)
	h = api.Restrict(access, func(r *http.Request) error { _, err := id.Caller(r.TLS); return err }, h)
	switch {
	case c.Loopback():
		return api.Serve(ctx, l, h, nil, log, time.Second)
	case access == api.Members:
		return api.Serve(ctx, id.Listener(l, log), h, id.PublicTLSOptionalClient(), log, time.Second)
	}
	return api.Serve(ctx, l, h, id.PublicTLS(), log, time.Second)
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

// mount adds what needs more than the agent to the peers' port.
func (h *hostAgent) mount(s *peer.Server, authority *pki.Authority) {
	on := func(v verb.Verb, f http.HandlerFunc) { s.Handle(v, f) }
	on(verb.Facts, h.getFacts)
	on(verb.Postgres, h.getPostgres)
	on(verb.Config, h.getConfig)
	on(verb.SetConfig, h.postConfig)
	on(verb.Registry, h.getRegistry)
	on(verb.Secrets, h.getSecrets)
	on(verb.Rotate, h.postRotate)
	on(verb.Superuser, h.postSuperuser)
	s.Handle(verb.Renew, authority.RenewHandler())
	on(verb.Plan, h.postPlan)
	on(verb.StartBackup, h.postBackup)
	on(verb.Stanza, h.postStanza)
	on(verb.ArchiveCheck, h.postArchiveCheck)
	on(verb.Backup, h.getBackup)
	mountProxy(s, h.cfg)
}

// getFacts tells a newcomer of the herd.
func (h *hostAgent) getFacts(w http.ResponseWriter, r *http.Request) {
	f, err := h.herdFacts(r.Context())
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	peer.WriteJSON(w, f)
}
