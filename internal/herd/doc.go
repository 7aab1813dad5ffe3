// Package herd makes hosts and herds: the folders and the identity of one host
// (`manada init`, `manada join`, the start of `manada run`), and the whole herd
// of `manada up` on one machine.
//
// The hosts that Up makes are real hosts: each is a folder with a manada.yaml,
// started by `manada run`; the first founds, the others join with a token over
// the network. Nothing in a host knows that it was made by Up. Every step of Up
// looks first whether it was done already, so that an Up that was interrupted
// anywhere is completed by the next one.
//
// It deliberately knows nothing of terms and promotes nobody; what the herd
// does once its hosts run is the agents' business.
//
// Start reading at Up (up.go), then layout.go for what is written where,
// host.go for founding and joining, down.go for the end.
package herd
