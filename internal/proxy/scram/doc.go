// Package scram is SCRAM-SHA-256 (RFC 5802, RFC 7677) from both ends: the
// server that checks a client against PostgreSQL's verifier, and the client
// that logs in to PostgreSQL as that same user.
//
// The two ends fit together: a correct proof contains the ClientKey, and with
// it the proxy can answer PostgreSQL's own challenge. No password is known or
// stored. It works because PostgreSQL uses the same salt and iteration count
// for the same verifier; the client end checks that.
//
// It deliberately does no channel binding, no SASLprep (the clients of the
// proxy prepare their own passwords) and no I/O. Start reading at Server.
package scram
