// Package proxy is the SQL entry point of a herd: port 5431 leads to the
// primary of the current open epoch, port 5430 to standbys that are fresh
// enough. It is stateless; run as many as you like.
//
// It authenticates clients itself, by SCRAM-SHA-256 against the verifier that
// PostgreSQL stores, and logs in to PostgreSQL as the same user with what the
// client's proof reveals: no list of users, no stored passwords. While there is
// no primary, new connections wait. When the primary changes, sessions that keep
// nothing on the old one go on with the new, and the others end with an error that
// says so.
//
// Port 5431 also lets standbys answer what certainly only reads, once they have
// replayed what the session may have seen.
//
// It decides nothing about who is primary. Clients of the read-write port share
// their backends, unless proxy.pool.mode is session: then every client has one on the
// primary from log-in to the end.
// The work is in the sub-packages, whose arrows point
// inward: session uses route (where to), pool (backends), split (which unit may
// leave the primary), scram and hba (log-in); these use classify (what an SQL
// text does) and wire (the protocol). This package holds what runs them:
// configuration, listeners, limits, HTTP and metrics.
//
// Start reading at Run (proxy.go), then session.Server.Listen.
package proxy
