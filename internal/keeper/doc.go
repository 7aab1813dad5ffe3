// Package keeper is what the repository host lets other hosts do with the
// repository: they read, they add WAL and the files of a backup that they are
// making, and they ask for the rest. Nobody who got hold of one data host can
// destroy or replace a backup.
//
// A [Guard] is the storage as the others get it. A [Keeper] makes, finishes and
// expires for them, by its own retention, and only by backups that it has read
// back and that are old enough; it remembers, outside of the repository, what
// was there, and says what is gone. A [Client] is both on another host.
//
// It deliberately does not: decide what a backup is (package backup does), or
// protect the repository from who can write its folder.
//
// Start reading at Guard (guard.go).
package keeper
