// Package repo is the form of a pgBackRest repository, format 5: the names of
// its files, the grammar and checksum of its info files, the manifest of a
// backup, the labels, the compressed streams.
//
// It reads what pgBackRest 2.42 to 2.59 writes in format 5 and writes the part
// of it that 2.45 and everything later restores: bundles, no block incremental.
// What it cannot read it refuses by name ([ErrUnsupported]): encrypted
// repositories, format 6, block incremental files. A file that is damaged is
// [ErrFormat] or [ErrChecksum].
//
// It decides nothing: which backup to take, keep or restore is internal/backup.
//
// Start reading at [Manifest]; info.go has the grammar that all the files share.
package repo
