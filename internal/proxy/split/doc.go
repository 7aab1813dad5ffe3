// Package split follows what a client sends and cuts it into units: a simple
// query, or an extended batch up to its Sync. Of each it says whether a standby
// may answer it, whether it goes to the primary, or whether the proxy itself has
// the answer. It remembers what a second connection needs to stand in for the
// first: prepared statements and settings.
//
// A unit is offered to a standby only when it begins while nothing is owed to
// the client outside a transaction, has arrived whole, and every statement in it
// certainly only reads (package classify). Everything else is for the primary. A
// session whose primary connection may hold state that cannot be repeated
// elsewhere is pinned: none of its units is offered any more, until DISCARD ALL.
//
// It deliberately does no I/O, knows no nodes and no LSNs. Start reading at
// Tracker.Next (tracker.go).
package split
