package process

import (
	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/health"
	"manada/internal/proxy"
)

// fileConditions tells when this host's proxy, whose limit is this process's too, may
// open too few files for its clients.
func fileConditions(c *config.Config, limit int) []cluster.Condition {
	clients := c.Proxy.MaxClients
	if !c.Has(config.ProxyRole) || limit >= proxy.FilesFor(clients) {
		return nil
	}
	return []cluster.Condition{health.Say(health.TooFewFiles, c.Node, "limit", limit, "clients", proxy.ClientsWithin(limit),
		"max", clients, "need", proxy.FilesFor(clients))}
}
