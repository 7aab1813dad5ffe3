// Package sim drives a whole herd through package decide against models of
// PostgreSQL, of the agent and of the store, in virtual time, on one goroutine,
// from one seed: the same seed is the same schedule, always.
//
// The models are faithful where the protocol's safety hangs on it (each point
// was measured on PostgreSQL 15):
//
//   - a walreceiver reports its own replay position as flushed when it
//     connects, and streaming begins at the start of a segment, so a node whose
//     history has diverged is accepted (C1);
//   - the released position is a high-water mark in the primary's shared memory;
//   - every walsender applies its own copy of the configuration, and the flag
//     that makes commits wait at all is kept by the checkpointer; each of them
//     follows a reload late (C5, H4);
//   - a receiver ends when it is told, or when the startup process next waits
//     for WAL; until then it flushes and acknowledges (C4);
//   - a write to the store is applied at most once, but may be applied long
//     after its sender gave up, or restarted (H1, H2).
//
// WAL is a list of entries that carry a hash of all before them, so "prefix",
// "diverged" and "contains" are exact. An LSN is an index into that list.
//
// Clients come by themselves, a commit at a time, or in transactions through a
// proxy on each host, which follows the newest record that it hears and obeys
// its drain (drain.go).
//
// What it does not model: bytes, pages, timing of real disks, asynchronous
// durability, forced failover with accepted data loss, a store that goes back
// in time (scenarios in internal/decide cover those decisions).
//
// Start reading at world.go (one step), then check.go (the invariants).
package sim
