// Package session is one client of the proxy from its first byte to the moment at
// which it is logged in: start-up, TLS, authentication, the wait for a node to talk
// to. Then it is handed over to a loop (package loop), which drives its
// conversation (package conv), and its goroutine ends.
//
// What is left here of a client that is served is its Owner (session.go): it opens a
// standby for its reads (reads.go), asks for positions, sends cancel requests, each
// in a goroutine that ends, and counts. A client of the console (console.go) keeps
// its goroutine.
//
// Start reading at Server.Serve (server.go), then handOver in session.go.
package session
