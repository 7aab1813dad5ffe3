// Package pool opens connections to PostgreSQL: dialling, TLS, log-in as the
// user of a session, cancel requests, and the look-up of password verifiers.
//
// Who gets which connection is decided in package rules and carried out by package
// desk, below. It deliberately does not choose the node and
// does not retry: that is route's and session's. Start reading at Dialer.Open
// (login.go).
package pool
