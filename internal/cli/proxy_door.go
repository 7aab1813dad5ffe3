package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"time"

	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

// door is the way to a proxy.
type door struct {
	node string
	call func(ctx context.Context, v verb.Verb, in, out any) error
}

// proxyDoor finds the proxy that is meant: one of this machine by its socket, another
// through the peers' port of its host.
func (a *app) proxyDoor(ctx context.Context, node string) (*door, error) {
	c, err := a.openToRead()
	if err != nil {
		return nil, err
	}
	doors, certificates := c.localDoors(node), c.id.Registry().List()
	if len(doors) == 0 {
		if doors, err = c.farDoors(ctx, node); err != nil {
			return nil, err
		}
	}
	switch {
	case len(doors) == 1:
		return doors[0], nil
	case len(doors) > 1:
		return nil, usage("name one with --node: "+strings.Join(names(doors), ", "), "there are several proxies")
	case node == "":
		return nil, fail(exitFailed, "manada status lists the hosts", "no proxy is known here")
	case certificates.Has(node):
		return nil, fail(exitFailed, "is that host running, and has it the role proxy?  manada status", "no proxy of %s is heard", node)
	}
	return nil, usage("manada status lists the hosts", "there is no host %s in this herd", node)
}

// allDoors are the ways to all proxies of the herd that are heard, and the names of
// hosts with nothing but a proxy that are not.
func (a *app) allDoors(ctx context.Context) (doors []*door, away []string, err error) {
	c, err := a.openToRead()
	if err != nil {
		return nil, nil, err
	}
	doors = c.localDoors("")
	far, err := c.farDoors(ctx, "")
	if err != nil && len(doors) == 0 {
		return nil, nil, err
	}
	for _, d := range far {
		if !slices.Contains(names(doors), d.node) {
			doors = append(doors, d)
		}
	}
	for _, known := range c.id.Registry().List().Good {
		if known.Kind == pki.KindProxy && !slices.Contains(append(names(doors), away...), known.Node) {
			away = append(away, known.Node)
		}
	}
	slices.SortFunc(doors, func(a, b *door) int { return strings.Compare(a.node, b.node) })
	if len(doors)+len(away) == 0 {
		return nil, nil, fail(exitFailed, "give a host the role proxy", "no proxy is known here")
	}
	return doors, away, nil
}

func names(doors []*door) (out []string) {
	for _, d := range doors {
		out = append(out, d.node)
	}
	return out
}

// localDoors are those of proxies of this machine; node "" is all.
func (c *caller) localDoors(node string) (doors []*door) {
	for _, cfg := range c.hosts {
		if cfg.Has(config.ProxyRole) && (node == "" || cfg.Node == node) {
			doors = append(doors, localDoor(cfg))
		}
	}
	return doors
}

func localDoor(cfg *config.Config) *door {
	client := &peer.Client{Socket: cfg.ProxySocket(), By: "manada proxy"}
	return &door{cfg.Node, func(ctx context.Context, v verb.Verb, in, out any) error {
		err := client.Call(ctx, "", "", v, in, out)
		if _, refused := errors.AsType[*peer.Error](err); err != nil && !refused && ctx.Err() == nil {
			return fail(exitFailed, "is the host running?  manada status", "the proxy of %s does not answer: %w", cfg.Node, err)
		}
		return err
	}}
}

// listening are the proxies that the herd hears; none in one of a release before.
func (c *caller) listening(ctx context.Context) ([]peer.ListeningProxy, error) {
	all, _, err := read[[]peer.ListeningProxy](ctx, c, verb.Proxies, time.Second)
	if e, refused := errors.AsType[*peer.Error](err); refused && e.Code == peer.CodeNotFound {
		return nil, nil
	}
	return all, err
}

// farDoors are those of proxies of other machines that the herd hears.
func (c *caller) farDoors(ctx context.Context, node string) (doors []*door, err error) {
	add := func(name, addr, kind string) {
		if addr != "" && (node == "" || name == node) && !slices.Contains(names(doors), name) {
			doors = append(doors, c.farDoor(name, addr, kind))
		}
	}
	listening, err := c.listening(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range listening {
		add(p.Node, p.Addr, p.Kind)
	}
	rows, _, err := read[[]peer.Row](ctx, c, verb.View, time.Second)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.Addrs.Proxy != "" {
			add(r.Node, r.Addrs.Peer, r.Kind)
		}
	}
	return doors, nil
}

func (c *caller) farDoor(node, addr, kind string) *door {
	client := c.client()
	if kind == pki.KindProxy {
		client.TLS = func(string) *tls.Config { return c.id.ProxyTLS(node) }
	}
	return &door{node, func(ctx context.Context, v verb.Verb, in, out any) error {
		err := client.Call(ctx, addr, node, v, in, out)
		if _, refused := errors.AsType[*peer.Error](err); err != nil && !refused && ctx.Err() == nil {
			return fail(exitFailed, "is the host running?  manada status", "the proxy of %s does not answer: %w", node, err)
		}
		return err
	}}
}
