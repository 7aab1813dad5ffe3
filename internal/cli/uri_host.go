package cli

import (
	"context"
	"time"

	"manada/internal/config"
	"manada/internal/herd"
	"manada/internal/peer"
)

// hostURI finds a proxy of a herd of real hosts: this host's own, else one that
// another host tells of.
func (a *app) hostURI(ctx context.Context, o herd.URIOptions) (string, error) {
	c, err := a.open()
	if err != nil {
		return "", err
	}
	cfg := c.hosts[0]
	if cfg.Has(config.ProxyRole) {
		port := cfg.Ports.SQL
		if o.ReadOnly {
			port = cfg.Ports.ReadOnly
		}
		return herd.HostURI(cfg, cfg.AdvertiseOn(port), o)
	}
	rows, _, err := read[[]peer.Row](ctx, c, "/v1/view", time.Second)
	if err != nil {
		return "", err
	}
	for _, r := range rows {
		if r.Addrs.Proxy != "" && !o.ReadOnly { // hosts tell of their splitting port only
			return herd.HostURI(cfg, r.Addrs.Proxy, o)
		}
	}
	return "", fail(exitFailed, "give one host the role proxy, or ask on the host that has it", "no such port of a proxy is known here")
}
