// Package pgbackrest is the face of pgBackRest: its command line and its
// configuration file over Manada's backups. The program answers to it when it is
// started under the name pgbackrest.
//
// Formats, exit codes and log lines are those of pgBackRest 2.45. What Manada
// does otherwise is refused by its name, never done half: see [Options]. The
// repository is the herd's, wherever it is; a backup is made on the primary,
// whichever host it was typed on.
//
// It deliberately has no logic of its own: it asks the agents and calls
// internal/backup.
//
// Start reading at [Main]; [Translate] is for who wants the configuration file
// only.
package pgbackrest
