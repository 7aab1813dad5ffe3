// Package session is one client of the proxy from its first byte to the moment at
// which it is logged in: start-up, TLS, authentication, the wait for a node to talk
// to. That is the code of a loop's guest (package loop): it runs in between what the
// loop does for others, and what may take long runs beside it or, TLS and the console,
// in a goroutine of its own. Then the loop drives the client's conversation (package
// conv).
//
// What is left here of a client that is served is its Owner (session.go): it opens a
// standby for its reads (reads.go), asks for positions, sends cancel requests, each
// in a goroutine that ends, and counts.
//
// Start reading at Server.serve (server.go), then handOver in session.go.
package session
