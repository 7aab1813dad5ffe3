package process

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"manada/internal/api"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/verb"
)

// serveOrders takes orders for the proxy on a socket of this host, which its user
// alone may open.
func (p *proxyHost) serveOrders(ctx context.Context) error {
	l, err := peer.ListenLocal(p.cfg.ProxySocket())
	if err != nil {
		return fmt.Errorf("listen for orders to the proxy: %w", err)
	}
	return api.Serve(ctx, l, p.proxy.Console(), nil, p.log, time.Second)
}

// servePeers answers the herd on a host that has no agent, which does elsewhere: the
// verbs of its proxy and no others. Clients do not wait for it: a port that is taken is
// tried again.
func (p *proxyHost) servePeers(ctx context.Context) {
	if p.cfg.HasAgent() || !p.cfg.AnswersPeers() {
		return
	}
	said := ""
	for ctx.Err() == nil {
		err := p.peersOnce(ctx)
		if err != nil && err.Error() != said {
			said = err.Error()
			p.log.Warn("the herd's other hosts do not reach this proxy's console", "error", said)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func (p *proxyHost) peersOnce(ctx context.Context) error {
	l, err := net.Listen("tcp", p.cfg.ListenOn(p.cfg.Ports.Peer))
	if err != nil {
		return fmt.Errorf("listen for the other hosts: %w", err)
	}
	srv := peer.NewServer(peer.ServerConfig{Self: p.id.Name(), TLS: p.id.ServerTLS(), Log: p.log,
		Watch: func(l net.Listener) net.Listener { return p.id.Listener(l, p.log) }})
	mountProxy(srv, p.cfg)
	return srv.Serve(ctx, l)
}

// mountProxy adds a proxy's verbs to the ports of its host.
func mountProxy(s *peer.Server, c *config.Config) {
	orders := proxyOrders(c)
	for _, v := range verb.Proxy {
		s.Handle(v, orders)
	}
}

// proxyOrders passes what members of the herd ask of this host's proxy on to its
// socket.
func proxyOrders(c *config.Config) http.Handler {
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "proxy"})
			who, _ := peer.CallerOf(r.In.Context())
			r.Out.Header.Set(verb.ByHeader, who.Node)
		},
		Transport: peer.LocalTransport(c.ProxySocket()),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			peer.WriteError(w, peer.Refuse(http.StatusBadGateway, peer.CodeUnavailable, "manada status", "the proxy of %s does not answer: %v", c.Node, err))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.Has(config.ProxyRole) {
			peer.WriteError(w, peer.Refuse(http.StatusNotFound, peer.CodeNotFound, "manada status lists the hosts", "%s has no proxy", c.Node))
			return
		}
		pass.ServeHTTP(w, r)
	})
}
