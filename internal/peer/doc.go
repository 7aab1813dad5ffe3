// Package peer lets the hosts of a herd hear each other: beats several times a
// second, and calls (switchover and the like), over mutual TLS on one port.
//
// What is heard is a hint to the failover protocol and never a proof, so the
// package strives for speed of bad news and not for delivery: every listener
// has a slot that holds the newest beat only, a broken connection is told at
// once, and nothing is sent twice.
//
// Who beats is taken from the certificate: a beat under another node's name is
// dropped. The package deliberately does not decide anything, make TLS
// configurations (package pki does), keep what it heard across a restart, or
// relay one node's beats to another except in the answer of GET /v1/view.
//
// Start reading at Hub (hub.go), what an agent uses; then Server (server.go),
// the port; inbox.go for what is kept of what was heard; Pusher (pusher.go)
// for the guardian; Follower (follow.go) for proxies and command lines; Client
// (client.go) for calls.
//
// On the wire: HTTP/1.1. GET /v1/beats answers with an endless body of lines,
// each the JSON of a cluster.Beat. The term comes along in the first line of a
// stream and whenever its revision changed; a line without it means the same
// record as before.
package peer
