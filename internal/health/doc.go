// Package health says in words how a herd is. It holds the catalogue of
// conditions (catalogue.go and conditions_*.go), builds the status from what
// one host has heard (Build), foretells what the loss of the primary would bring
// (Failover), prints it on one screen (Text) and maps it to an exit code (ExitCode).
//
// It does no I/O, reads no clock and decides nothing: a condition is a word for
// people, and what the herd does about it is decided in package decide from
// facts, never from a condition. Everything here is a pure function, so the
// same input gives the same screen on every host.
//
// Start reading at Build (build.go). A new condition is one entry in the
// catalogue file of its area; docs/reference-conditions.md is generated from
// the catalogue by `go test ./internal/health -run TestReference -update`.
package health
