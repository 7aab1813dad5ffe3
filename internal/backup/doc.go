// Package backup is the backup engine: it archives WAL, takes full, differential
// and incremental backups, expires, verifies and restores them, in a repository
// that pgBackRest 2.45 and later reads and writes too (internal/repo has the
// form, internal/blob the storage).
//
// It runs on the host that has the data directory, and reads and writes it
// directly; the repository may be anywhere that a [blob.Storage] reaches.
// Commands are functions: [StanzaCreate], [ArchivePush], [ArchiveGet], [Backup],
// [Expire], [GetInfo], [Verify], [Restore], [Export]. Errors carry pgBackRest's codes
// ([Error]) so that the command line that scripts know can keep its exit codes.
//
// Order is what makes it crash-safe. A backup is valid from the moment that its
// backup.manifest appears, which is after everything that it describes is
// durable; a directory without one is a leftover, and the next backup removes
// it. A restore removes pg_control first and writes it last, so that PostgreSQL
// does not start on half a cluster.
//
// It deliberately does not: encrypt, write block incrementals, copy from a
// standby, keep more than one repository, or schedule anything.
//
// Start reading at backup.go, then copy.go, restore.go.
package backup
