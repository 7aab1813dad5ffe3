// Package wire is the part of PostgreSQL's protocol 3 that a proxy has to
// understand to log a client in, and to log in: start-up packets, authentication
// messages, errors. What follows is package conv's.
//
// It holds no connection and makes no decision. Start reading at Startup
// (startup.go).
package wire
