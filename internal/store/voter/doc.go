// Package voter runs one member of the store: an etcd server inside this
// process. `manada store` is a process of its own, so that a fault in the agent
// takes no vote with it, and the other way round.
//
// The rule that shapes it (finding C6): the store may not go back. A voter
// whose disk is empty never starts under an identity that has voted before. It
// founds a new store only when told to, or joins as a new learner, added by a
// quorum of the members that still have their data, and gets its vote when it
// has caught up.
//
// What it does not do: it does not decide who should vote (every host with the role store does),
// and it keeps etcd's metrics where etcd puts them, in Prometheus's default
// registry; use a registry of your own for everything else.
//
// Start reading at Run (voter.go), then join.go.
package voter
