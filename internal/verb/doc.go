// Package verb is the one list of what is asked of a host of the herd: by other hosts
// over the peers' port, by programs of the host over its unix socket, of a proxy at its
// console. An entry says how a verb is called, who may, what it takes and what it does.
//
// It carries nothing out and opens nothing: packages agent, process and proxy mount what
// does (peer.Server.Handle), package cli calls by the same entries. A verb that is not in
// the list cannot be mounted, and what the list refuses reaches no handler.
//
// Start reading at Verb (verb.go); the list is in list.go, that of a proxy in proxy.go.
package verb
