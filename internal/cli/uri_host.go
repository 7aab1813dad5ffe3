package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/container"
	"manada/internal/herd"
	"manada/internal/peer"
	"manada/internal/pgconnect"
	"manada/internal/pki"
	"manada/internal/verb"
)

// hostURI names the proxies of a herd of real hosts: this host's own first, then those
// of which the others tell.
func (a *app) hostURI(ctx context.Context, o herd.URIOptions) (string, error) {
	c, err := a.open()
	if err != nil {
		return "", err
	}
	cfg := c.hosts[0]
	if uri, ok, err := a.containerURI(cfg, o); ok || err != nil {
		return uri, err
	}
	port := cfg.Ports.SQL
	if o.ReadOnly {
		port = cfg.Ports.ReadOnly
	}
	var own []string
	if cfg.Has(config.ProxyRole) {
		own = append(own, cfg.AdvertiseOn(port))
	}
	listening, err := c.listening(ctx)
	var rows []peer.Row
	if err == nil {
		rows, _, err = read[[]peer.Row](ctx, c, verb.View, time.Second)
	}
	if err != nil && len(own) == 0 {
		return "", err
	}
	addrs := proxyAddrs(cfg, own, listening, rows, o.ReadOnly)
	if len(addrs) == 0 {
		return "", fail(exitFailed, "give one host the role proxy, or ask on the host that has it", "no such port of a proxy is known here")
	}
	return herd.HostURI(cfg, addrs, o)
}

// proxyAddrs are the ports of all proxies: this host's own, those of proxies that listen
// to the herd, also on hosts with nothing else, and of hosts of a release before, which
// tell of theirs in their beats.
func proxyAddrs(cfg *config.Config, own []string, listening []peer.ListeningProxy, rows []peer.Row, readOnly bool) []string {
	addrs, said := own, map[string]bool{}
	add := func(addr string) {
		if _, _, err := net.SplitHostPort(addr); err == nil && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	for _, l := range listening {
		if said[l.Node] = l.SQL != ""; readOnly {
			add(l.ReadOnly)
		} else {
			add(l.SQL)
		}
	}
	for _, r := range rows {
		if !said[r.Node] {
			add(proxyAddr(cfg, r.Addrs.Proxy, readOnly))
		}
	}
	return addrs
}

// proxyAddr is where another host's proxy is reached by its beat, which tells of the port
// that goes to the primary only: whose is this host's own has this host's other one, too.
func proxyAddr(cfg *config.Config, told string, readOnly bool) string {
	host, port, err := net.SplitHostPort(told)
	switch {
	case err != nil:
		return ""
	case !readOnly:
		return told
	case port != fmt.Sprint(cfg.Ports.SQL):
		return ""
	}
	return net.JoinHostPort(host, fmt.Sprint(cfg.Ports.ReadOnly))
}

// tryURI logs in as the superuser once, to find out whether the password that the
// herd knows is still PostgreSQL's: it is never printed when it is not. Where
// nobody answers it says nothing. Of other roles the herd knows no password.
func (a *app) tryURI(ctx context.Context, uri string, o herd.URIOptions) error {
	u, err := url.Parse(firstHost(uri))
	if err != nil {
		return err
	}
	if u.User.Username() != cluster.RoleSuperuser {
		if _, there := u.User.Password(); !there && o.ShowPassword {
			a.say("the herd does not know the password of %s, so it is not in the URI: psql asks for it, or takes it from ~/.pgpass or $PGPASSWORD", u.User.Username())
		}
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgconnect.Open(wait, pgconnect.Session{Conninfo: uri, Name: "manada uri"})
	if err == nil {
		_ = conn.Close(wait)
		return nil
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok && pg.Code == "28P01":
		return fail(exitFailed, "give the herd the new one:  manada secrets set superuser < file", "the password of %s was changed by hand, and the herd does not know the new one", cluster.RoleSuperuser)
	case ok && pg.Code == "3D000":
		return fail(exitFailed, "psql \"$(manada uri)\" -l  lists the databases", "%s", pg.Message)
	}
	return nil
}

// firstHost is a URI of ours with the first of its hosts alone: net/url knows no other.
func firstHost(uri string) string {
	rest := strings.Index(uri, "://") + 3
	end := len(uri)
	if i := strings.IndexByte(uri[rest:], '/'); i >= 0 {
		end = rest + i
	}
	rest += strings.LastIndexByte(uri[rest:end], '@') + 1
	host, _, _ := strings.Cut(uri[rest:end], ",")
	return uri[:rest] + host + uri[end:]
}

// containerURI is the application's log-in as it works outside of the container,
// where no passfile and no certificate of it can be read; ok is false where this
// is no container, or another role or port is asked for.
func (a *app) containerURI(cfg *config.Config, o herd.URIOptions) (uri string, ok bool, err error) {
	app, there, err := container.Standard().ReadApp()
	if err != nil || !there {
		return "", false, err
	}
	addr := a.getenv("MANADA_PUBLISHED")
	if o.Inside || addr == "" || o.ReadOnly {
		if !cfg.Has(config.ProxyRole) {
			return "", false, nil
		}
		addr = cfg.AdvertiseOn(cfg.Ports.SQL)
		if o.ReadOnly {
			addr = cfg.AdvertiseOn(cfg.Ports.ReadOnly)
		}
	}
	if o.User != "" && o.User != app.User {
		if cfg.Kind() == pki.KindProxy {
			return "", false, fail(exitFailed, "ask in a container with a database:  docker exec master manada uri -U "+o.User, "a proxy knows the application's log-in only")
		}
		uri, err := herd.HostURI(cfg, []string{addr}, o)
		return uri, err == nil, err
	}
	if o.Database == "" {
		o.Database = app.Database
	}
	uri, err = (&herd.Connection{Addrs: []string{addr}, User: app.User, Database: o.Database, Password: app.Password, Encrypted: true}).Text(o.Format)
	return uri, true, err
}
