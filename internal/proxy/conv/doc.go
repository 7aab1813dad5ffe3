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
// Pooled clients (modes Transaction, Statement, Auto) have Main for a transaction.
// What is carried from server to server: settings, modelled through transactions and
// savepoints and corrected by what PostgreSQL reports; prepared statements, under
// names of the link. In mode Auto whatever else a statement may leave behind keeps
// the client on its server (Pinned). Three things differ from a server of one's own:
// a statement that has to be prepared again reads its literals under the settings of
// then; a client's first lastval or currval behind an insert of another transaction
// finds none (55000); a function that resets a start-up setting sets it back to the
// server's own.
//
// A client whose server is lost, or that is in the way of a switchover, lives on when
// it may have another server: what only read is done again, an open transaction ends
// with 40001 (crash.go, ghost.go). Where nobody knows what became of a command it is
// told 08007 and ends.
//
// Step consumes whole messages from the front of the event's bytes and, of a large
// one, as much as is there. What it did not consume stays with the driver, which
// offers it again with what comes behind it.
//
// Start reading at Conv.Step (conv.go).
package conv
