// Package decide says what a node does next. Decide takes everything that one
// node knows (View) and returns the next actions and the reason, in words. It
// does no I/O, starts no goroutine, reads no clock and does not depend on the
// order of a map, so that a test or the simulator in test/sim can replay any
// schedule.
//
// The agent observes, calls Decide, carries out the actions and starts again;
// every action is small, may be repeated, and may fail at any point. Nothing
// is remembered here between two calls: what must survive is in the store, on
// the node's disk or in what the agent observed, and comes back in the View.
//
// # Where things are decided
//
//	decide.go      the ordered list of rules: the first that applies decides
//	suspect.go     when a leader is suspected (a hint, never a proof)
//	takeover.go    freeze, promise, WHO MAY WIN (mayWin), withdraw
//	promote.go     a won epoch: promote, control row, open
//	lead.go        an open epoch: switchover, commits that cannot be made
//	stranger.go    walsenders that lie, or that somebody else has
//	syncset.go     who is waited for: narrowing, widening, degrading
//	lastword.go    a lone leader that is stopped in order leaves the epoch to others
//	fallen.go      a leader whose PostgreSQL stopped: hand over or succeed itself
//	follow.go      a standby: certificate, follow, rewind, clone
//	restore.go     the herd is restored by order: nobody takes over, and back
//	transition.go  every change of the term record, as pure functions
//
// # The protocol in one paragraph
//
// One record, the term, changes only by compare-and-swap. A commit is
// acknowledged when k members of sync have flushed it. To take over, enough
// members of sync stop receiving and promise so; the one with the most WAL
// wins the next epoch by a swap, promotes, writes the epoch's control row, and
// opens the epoch by a second swap. Until then it acknowledges nothing. A
// standby is waited for only under a name that certifies that its WAL is a
// prefix of the epoch's. Suspicion may be wrong: that costs a pause, never a
// commit. The findings (C1-C7, H1-H10, M1-M12) named in comments are concrete
// schedules that lose a commit without the rule beside them; each has a
// scenario in testdata/ or a mutant that the simulator must catch.
//
// Not here: fetching missing WAL from a frozen member that may not lead (M4),
// the lease that makes asynchronous failover possible (H6). Both have their
// place in takeover.go.
package decide
