// Package cluster holds the nouns of a herd: positions in the WAL, the term
// record, what a node says of itself (Beat), the specification and the status
// that users read.
//
// It does no I/O, starts no goroutine, reads no clock and imports nothing of
// ours: every arrow of the program points here. What follows from these nouns
// is decided in package decide.
//
// Start reading at Term (term.go): it is the one record on which the safety of
// the failover protocol rests. Then Beat (beat.go).
package cluster
