package process

import (
	"os"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/postgres"
)

// RunVariable tells the processes of a host which `manada run` started them: a random
// id, another one at each start.
const RunVariable = "MANADA_RUN_ID"

// ownSocket is the unix socket of the PostgreSQL of this proxy's host.
type ownSocket struct {
	node, run string // run is the id of the proxy's own `manada run`
	socket    string
}

// ownSocketOf is empty on a host without a database, and for a proxy that was not
// started by `manada run`.
func ownSocketOf(c *config.Config) (ownSocket, error) {
	run := os.Getenv(RunVariable)
	if run == "" || !c.Has(config.Database) {
		return ownSocket{}, nil
	}
	socket, err := postgres.SocketPath(c.RunDir, c.Ports.PostgreSQL)
	return ownSocket{c.Node, run, socket}, err
}

// path is where the socket is, as long as the beat of the node that bears this host's
// name comes from a process of the same `manada run`: neither an address nor a name
// proves that, for another host may have taken both.
func (o ownSocket) path(b cluster.Beat) string {
	if o.run == "" || b.Run != o.run || b.Node != o.node {
		return ""
	}
	return o.socket
}
