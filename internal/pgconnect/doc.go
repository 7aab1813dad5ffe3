// Package pgconnect opens the connections to PostgreSQL that Manada makes for
// itself. All of them, and no client's: who owns a database chooses the
// search_path, the role and many settings of every session in it, and a session
// of a superuser that calls a function of the owner's hands him the cluster. So
// each of ours says in its start-up packet, before the first statement, what
// everything on which its statements rely has to be.
//
// Start at Open. The proxy speaks the protocol itself and takes Settings.
//
// Not here: sessions of clients, which keep what they are given, and the
// programs of PostgreSQL, which protect themselves.
package pgconnect
