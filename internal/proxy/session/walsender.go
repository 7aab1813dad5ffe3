package session

import (
	"fmt"
	"strings"

	"manada/internal/proxy/wire"
)

// Replication through the proxy may not bear a name with @ or ~: only standbys
// do, and PostgreSQL would let whoever has such a name acknowledge commits. The
// name of the start-up packet is refused here, what comes later by package conv.

// standbyName says whether only a standby may bear the name.
func standbyName(name string) bool { return strings.ContainsAny(name, "@~") }

func refuseName(name string) *wire.Error {
	return wire.Fatal("42501", fmt.Sprintf("a replication connection through the proxy may not have the application_name \"%s\"", name),
		"Names with @ or ~ are the standbys'. Choose another application_name.")
}

// mayReplicateAs refuses names of the start-up packet, before anybody logs in.
func (c *client) mayReplicateAs() error {
	if !c.startup.Walsender() {
		return nil
	}
	for _, name := range wire.Given(c.startup.Params, "application_name") {
		if standbyName(name) {
			return refuseName(name)
		}
	}
	return nil
}
