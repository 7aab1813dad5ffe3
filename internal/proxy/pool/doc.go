// Package pool opens connections to PostgreSQL: dialling, TLS, log-in as the
// user of a session, cancel requests, and the look-up of password verifiers.
//
// In this version a connection belongs to one session from log-in to the end;
// nothing is shared or reused. It deliberately does not choose the node and
// does not retry: that is route's and session's. Start reading at Dialer.Open
// (login.go).
package pool
