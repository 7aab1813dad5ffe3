// Package wire is the part of PostgreSQL's protocol 3 that a proxy has to
// understand: start-up packets, authentication messages, errors, and the
// headers of everything else. Bodies that routing does not need are never
// looked into.
//
// It holds no connection and makes no decision. Start reading at Startup
// (startup.go) and ServerScan (scan.go).
package wire
