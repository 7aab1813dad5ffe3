// Package store keeps what a herd must agree on: the term record and, beside
// it, the leader's renewals, the pause, requests of operators, events, the
// registry of nodes, the configuration and the joining secrets. It lives in
// etcd under /manada/<cluster>/, as JSON.
//
// What the package promises:
//
//   - A change of the record is a transaction that compares the record's
//     modification revision and the system identifier, so a write that arrives
//     late always fails (finding H1). A write is sent once and never repeated
//     unless it certainly never left this process.
//   - The outcome of a write is one of three: done, ErrConflict (certainly not
//     applied) or ErrUnknown. Whatever is not a definite answer of the server
//     is unknown (finding H2).
//   - Every call ends by its deadline. One dead member out of three does not
//     slow a read by more than a hedge (100 ms).
//
// What it deliberately does not do: it decides nothing, trusts no watch (a
// watch is only a doorbell, the linearizable read after it is the truth), uses
// no etcd lease for the right to lead, and does not use the wall clock except
// to expire join tokens. Whether an answer may be believed at all, since a
// store can go back in time, is HighWater's business (finding C6).
//
// Start reading at Store (store.go), then record.go. The typed calls exist
// once, on top of a four-method key-value interface (kv.go) with two backends:
// etcd (etcd.go, over the connections in pool.go) and memory (memory.go). The etcd server itself is in the
// package voter below.
package store
