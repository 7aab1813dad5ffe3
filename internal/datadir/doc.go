// Package datadir tells what can be read off PostgreSQL's data directories on this
// host without a connection: where their tablespaces are, and which of them
// somebody runs. Whoever is about to write into a directory asks it first.
//
// Not here: what is in pg_control (postgres, backup), and anything that changes a
// directory. Start at datadir.go.
package datadir
