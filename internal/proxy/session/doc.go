// Package session is one client of the proxy from its first byte to its last:
// start-up, TLS, authentication, the wait for a node to talk to, and then the
// relay of bytes both ways.
//
// The relay frames messages by their headers and parses none of them, except
// that it never passes on a commit that PostgreSQL acknowledged without a
// standby (trap T7). It deliberately keeps one backend per client: pooling
// modes and the splitting of one port into reads and writes attach at relay.go
// and connect.go, which know nothing of authentication.
//
// Start reading at Server.Serve (serve.go), then relay.go.
package session
