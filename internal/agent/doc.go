// Package agent runs one node: it observes PostgreSQL, the store and the other
// nodes, asks package decide what follows, and does it. It is the only place
// that promotes.
//
// The loop is in loop.go: observe, decide, act, again. What decide sees is put
// together in view.go; what it may ask for is carried out in act.go (the store
// and small steps) and work.go (long operations, one at a time, beside the
// loop). What the node tells the others is in beat.go; what operators ask for
// arrives in verbs.go; archiving asks here for permission (archive.go).
//
// The agent remembers nothing that matters over a restart: promises, marks and
// the highest epoch obeyed are on disk before they count, the record is in the
// store, and a running PostgreSQL is adopted as it is. It deliberately decides
// nothing: a condition on the term or on a position belongs into decide.
package agent
