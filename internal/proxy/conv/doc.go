// Package conv is one client's conversation with PostgreSQL: what it sends, which
// server has to answer, and what it is told. Bytes and events go in, effects come
// out; there is no I/O, no goroutine and no clock. The loop (package loop) drives
// it, and scenario files (testdata) tell it as a story.
//
// Every message that a server has to answer leaves an entry in that server's queue
// of expected answers (Link); each answer takes one. What the proxy added is
// stripped by its entry. An answer that fits no entry is a desync: it ends both
// sides and reaches nobody. A server is given back only with an empty queue, after
// ReadyForQuery 'I' with nothing sent since, no cancel under way and no bytes
// unread.
//
// Step consumes whole messages from the front of the event's bytes and, of a large
// one, as much as is there. What it did not consume stays with the driver, which
// offers it again with what comes behind it.
//
// Start reading at Conv.Step (conv.go).
package conv
