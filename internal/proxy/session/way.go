package session

import (
	"slices"

	"manada/internal/cluster"
	"manada/internal/proxy/route"
)

// way is where the client's connection to a node is opened. pg_hba.conf admits
// walsenders by their address and certificate.
func (c *client) way(n route.Node) string {
	if c.startup.Walsender() {
		return n.Addr
	}
	return c.wayAs(n, c.user)
}

// wayAs is where a client's role logs in to a node: over the socket where the node is
// this host's own. The herd's own roles and those that may replicate come over TLS
// there, too: on the socket pg_hba.conf lets some of them in by the user of the
// operating system, without the password that the client has to know, and the others
// not at all.
func (s *Server) wayAs(n route.Node, role string) string {
	if n.Socket == "" || cluster.IsOwnRole(role) || slices.Contains(s.options().Replicators, role) {
		return n.Addr
	}
	return n.Socket
}
