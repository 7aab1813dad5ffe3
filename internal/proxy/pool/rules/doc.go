// Package rules decides who gets which server connection: pools per (database,
// user, node), their sizes and the node's limit over all of them, who waits and in
// which order, what is closed and when, and what those are told who get none.
//
// It is pure: no I/O, no goroutine, no clock, no lock. A driver tells a Book what
// happened, with the moment, and carries out the decisions that it is given; it
// holds one lock around each call for all its loops. What it says of a server
// (Opened, Failed, Gave, Closed) is true from then on, so the count of a pool and of
// a node is of connections that may exist, those being opened and closed included.
//
// What always holds (tested in sim_test.go): a server has one holder at most; no
// pool and no node is over its limit, except where the limit itself was lowered;
// who asked first in a pool is served first, whatever loop it is on; nobody waits
// while a server that it may have is idle, or while one may be opened for it; a
// server that is stale (older than its epoch, than a change of its role's or
// database's settings, or than RECONNECT) is handed to nobody.
//
// It does not know how connections are made nor what they speak. Start reading at
// Book.Want (queue.go) and Book.serve (serve.go).
package rules
