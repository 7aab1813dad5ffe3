// Package process wires the processes of a host out of its configuration:
// store, agent, guardian, proxy and backupd, one file each, to be read from
// top to bottom. Nothing is decided here and nothing remembered beyond what
// each needs to find the others again after a restart (facts.go).
//
// Start reading at Agent (agent.go).
package process
