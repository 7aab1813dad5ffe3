// Package loop drives conversations (package conv): it owns the sockets of clients
// and of the servers they talk to, moves their bytes and keeps their timers. What
// takes longer, or needs a goroutine, is its Owner's.
//
// A client begins as a Guest (guest.go): its log-in is code that reads and writes as
// if it could wait, on a stack that the loop switches to and back from.
//
// A loop is one goroutine around level-triggered epoll. All
// that belongs to a client belongs to one loop and is touched by it alone; others
// leave word in its mailbox (Client's methods). Sockets and clients are slots of
// slabs: an event bears the slot and its generation, so that one that comes late
// hits nobody. A client that is idle holds two slots and its conversation, no
// buffer and no stack.
//
// Nothing is queued without a bound: a side that does not read stops whoever feeds
// it by not being read from, and of one socket at most one buffer is read before
// the others have their turn.
//
// Start reading at Loop.run (loop.go), then receive (receive.go) and step (step.go).
package loop
