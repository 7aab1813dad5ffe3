// Package session is one client of the proxy from its first byte to its last:
// start-up, TLS, authentication, the wait for a node to talk to, and then the
// relay of bytes both ways.
//
// The relay never passes on a commit that PostgreSQL acknowledged without a
// standby (trap T7). What the client sends is cut into units (package split);
// one that certainly only reads may be answered by a standby over a second
// connection (second.go, read.go), all else is the first connection's. It
// deliberately keeps these for one client: pooling modes attach at relay.go and
// connect.go, which know nothing of authentication.
//
// Start reading at Server.Serve (server.go), then relay.go and up.go.
package session
