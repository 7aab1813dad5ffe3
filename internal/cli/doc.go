// Package cli is the command line: one file per command. A command parses its
// flags, finds the herd, calls a verb of another package or of a running host,
// and prints. It holds no logic of its own: what a command does to a herd lives
// in the package that it calls.
//
// Rules that every command keeps: data goes to standard output and messages to
// standard error; an error is printed once, as "manada: ..." and, where there is
// something to type next, "hint: ..."; exit codes are those of exit.go and each
// --help says which can occur; `-o json` on commands that read.
//
// The hidden commands store, agent, guardian, proxy and backupd are the
// processes that `manada run` starts (proc_*.go).
//
// Start reading at Main (main.go), then newRoot (root.go).
package cli
