package decide

import (
	"fmt"

	"manada/internal/cluster"
)

// mayClaim says whether this directory could ever win the next epoch: as a
// member of sync, as the last open leader of an epoch that never opened, or by
// the last word of a leader that was stopped in order.
func mayClaim(v *View) bool {
	t := v.Store.Term
	_, heard := lastWord(v)
	return v.Local.MayLead && (t.InSync(v.me()) || lastOpenLeader(v) || heard)
}

// lastOpenLeader holds all that it ever acknowledged, and nobody acknowledged
// anything since (C3).
func lastOpenLeader(v *View) bool {
	t := v.Store.Term
	return v.Local.Instance != "" && t.LastOpenLeader == v.me() && (!t.Open || t.Leader == v.Self)
}

func noClaim(v *View) string {
	t := v.Store.Term
	_, said := t.LastWord()
	switch {
	case said && v.Local.MayLead:
		return t.Leader + " was stopped in order and is given time to come back"
	case t.K == 0:
		return "the primary was committing alone (k = 0), only it has everything; `manada failover --accept-data-loss` overrides"
	case !v.Local.MayLead:
		return "it may not lead"
	}
	return "it is not a synchronous standby of epoch " + fmt.Sprint(t.Epoch)
}

// enoughLikely: no use freezing when the others needed do not answer.
func enoughLikely(v *View) bool {
	if _, heard := lastWord(v); heard || lastOpenLeader(v) {
		return true
	}
	t, n := v.Store.Term, 1
	for _, m := range t.Sync {
		if alive(v, m) {
			n++
		}
	}
	return n >= t.Needed()
}

// cutOff makes sure that nothing is received any more: credential and conninfo
// first, then the receiver itself out of the process table. Clearing conninfo
// alone does not stop a receiver while replay is busy (C4).
func cutOff(v *View) (Decision, bool) {
	switch {
	case v.Local.Upstream != "":
		return do(Action{Verb: CutUpstream}, "cutting off the upstream"), true
	case v.Local.Receiver && !v.without(WithoutReceiverGone):
		return do(Action{Verb: EndReceiver}, "ending the WAL receiver"), true
	}
	return Decision{}, false
}

// frozen: the promise to end this epoch is on this node's disk.
func frozen(v *View) (Decision, bool) {
	t, l := v.Store.Term, &v.Local
	if t.Leader == v.Self || l.Promised != t.Epoch {
		return Decision{}, false
	}
	d := freeze(v)
	d.Suspects = t.Leader // why, it has said before
	return d, true
}

// freeze goes on from the promise on disk: disk before store, receiver gone
// before the position is read, then promise and win.
func freeze(v *View) Decision {
	t, l := v.Store.Term, &v.Local
	if d, ok := cutOff(v); ok {
		return d
	}
	switch {
	case l.Empty || l.Poisoned:
		return withdraw(v, "there is no data here")
	case l.Postgres == cluster.PostgresDown:
		return do(Action{Verb: StartStandby}, "starting PostgreSQL, to know where its WAL ends")
	case l.Postgres != cluster.PostgresStandby:
		return wait("frozen; PostgreSQL is %s", l.Postgres)
	case !l.Final:
		return do(Action{Verb: ReadPosition}, "nothing is received any more: reading where the WAL ends")
	}
	if d, ok := fetch(v); ok {
		return d
	}
	if why, ok := mayWin(v); ok {
		if who := yieldsTo(v); who != "" {
			return wait("could take over; %s has as much and a higher priority", who)
		}
		n := won(v, position(v), why)
		return do(Action{Verb: Swap, Term: n, Note: "won"}, "taking over: %s", why)
	}
	if mine, ok := t.PromiseOf(v.Self); !ok || mine.Epoch != t.Epoch || mine.Instance != l.Instance {
		return do(Action{Verb: Swap, Term: promised(t, myPromise(v, "")), Note: "promise"},
			"promising the end of epoch %d at %s", t.Epoch, l.WAL.LSN)
	}
	if l.PromisedFor > v.Spec.WithdrawAfter<<min(l.Withdrawals, 6) {
		return withdraw(v, "nobody could take over with it")
	}
	return wait("promised the end of epoch %d; waiting for others (%d of %d)", t.Epoch, counted(v), t.Needed())
}

func withdraw(v *View, why string) Decision {
	return do(Action{Verb: Withdraw, Term: withdrawn(v.Store.Term, v.Self)}, "withdrawing the promise: %s", why)
}

// position is where this node's WAL ends, in the epoch of its last record and
// never of the name it bore (C7).
func position(v *View) cluster.Position {
	if v.without(WithoutWALEpoch) {
		return cluster.Position{Epoch: v.Store.Term.Epoch, LSN: v.Local.WAL.LSN}
	}
	return v.Local.WAL
}

func myPromise(v *View, successor string) cluster.Promise {
	at := position(v)
	return cluster.Promise{Node: v.Self, Instance: v.Local.Instance, Epoch: v.Store.Term.Epoch, WALEpoch: at.Epoch, LSN: at.LSN, For: successor}
}

// counted is how many members of sync have promised, this node included.
func counted(v *View) int {
	n := 0
	for _, m := range v.Store.Term.Sync {
		if m == v.me() || memberPromise(v.Store.Term, m) {
			n++
		}
	}
	return n
}

func memberPromise(t *cluster.Term, m cluster.Member) bool {
	p, ok := t.PromiseOf(m.Name)
	return ok && p.Instance == m.Instance && p.Epoch == t.Epoch
}

// mayWin is where a promotion is decided. This node has promised, receives
// nothing and knows where its WAL ends. It may win the next epoch
//
//  1. as the successor that a cleanly stopped leader named, or left to anybody
//     by its last word, holding all of that leader's WAL;
//  2. as the last open leader, unless somebody shows WAL of the same epoch
//     beyond its own (H8);
//  3. with the promises of max(1, |sync| - k + 1) members of sync, its own
//     among them, none of which has more than it.
//
// When sync is empty only 1 and 2 remain: nobody else has everything. (Fetching
// WAL from a greater member that may not lead belongs here, see M4.)
func mayWin(v *View) (string, bool) {
	t, at := v.Store.Term, position(v)
	back := t.Leader == v.Self // the leader that stopped may always come back
	if !v.Local.MayLead && !back {
		return "", false
	}
	for _, p := range t.Promises {
		if p.For == v.Self && p.Epoch == t.Epoch && p.Node == t.LastOpenLeader.Name &&
			p.Instance == t.LastOpenLeader.Instance && !at.Less(p.Position()) {
			return "switchover from " + p.Node, true
		}
	}
	if v.Local.Manual && !back && !wanted(v) {
		return "", false
	}
	if p, heard := lastWord(v); heard && (!at.Less(p.Position()) || v.without(WithoutTheRest)) {
		return "takeover from " + p.Node + ", which was stopped in order", true
	}
	if lastOpenLeader(v) {
		if beyond := whoHasMore(v, at); beyond == "" {
			return v.Self + " succeeds itself", true
		}
		return "", false
	}
	if !t.InSync(v.me()) || !greatest(v, at) {
		return "", false
	}
	return "takeover from " + t.Leader, true
}

// wanted: an operator has ordered that this node leads.
func wanted(v *View) bool {
	r := v.Store.Request
	return r != nil && r.To == v.Self && (r.Kind == "failover" || r.Kind == "switchover")
}

// waitsForOrder says why a node whose failover is manual does not even promise:
// nobody else who could take over by himself would have a use for it.
func waitsForOrder(v *View) bool {
	if !v.Local.Manual || wanted(v) {
		return false
	}
	for _, m := range v.Store.Term.Sync {
		if p, ok := v.peer(m.Name); ok && m.Name != v.Self && alive(v, m) && p.MayLead && !p.Manual {
			return false
		}
	}
	return true
}

func onlyByOrder(v *View) string {
	if v.Local.Priority == 0 {
		return "this node has priority 0 and never leads"
	}
	return "failover is manual here: manada failover " + v.Self + " lets it take over"
}

// yieldsTo names a member that is as good, is preferred, and has promised too:
// it is given a moment to win.
func yieldsTo(v *View) string {
	t, at := v.Store.Term, position(v)
	if wanted(v) || t.Leader == v.Self || v.Local.PromisedFor > v.Spec.WithdrawAfter/4 {
		return ""
	}
	for _, m := range t.Sync {
		p, ok := v.peer(m.Name)
		promise, _ := t.PromiseOf(m.Name)
		if ok && m.Name != v.Self && alive(v, m) && p.MayLead && !p.Manual && p.Priority > v.Local.Priority &&
			memberPromise(t, m) && !promise.Position().Less(at) {
			return m.Name
		}
	}
	return ""
}

// greatest says whether this node has at least as much as each of enough
// members that promised. Any max(1, |sync| - k + 1) of them hold between them
// all that was acknowledged, so one with more that promised and then died need
// not be waited for; while it lives it is the better leader.
func greatest(v *View, at cluster.Position) bool {
	t, n := v.Store.Term, 0
	for _, m := range t.Sync {
		p, _ := t.PromiseOf(m.Name)
		switch {
		case m == v.me():
			n++
		case !memberPromise(t, m):
		case !at.Less(p.Position()):
			n++
		case v.Local.PromisedFor < v.Spec.WithdrawAfter/2 && alive(v, m):
			return false
		}
	}
	return n >= t.Needed()
}

func alive(v *View, m cluster.Member) bool {
	p, ok := v.peer(m.Name)
	return ok && v.fresh(p) && p.Instance == m.Instance
}

// whoHasMore names a node that reports WAL of this node's epoch beyond its own
// end: a disk that lied, or a volume from the past (H8).
func whoHasMore(v *View, at cluster.Position) string {
	for _, p := range v.Peers {
		if v.fresh(p) && p.WAL.Epoch == at.Epoch && p.WAL.LSN > at.LSN {
			return p.Node
		}
	}
	return ""
}

// namedSuccessor: a leader that stopped cleanly has named this node.
func namedSuccessor(v *View) (Decision, bool) {
	t, l := v.Store.Term, &v.Local
	if t.Leader == v.Self || l.Postgres != cluster.PostgresStandby {
		return Decision{}, false
	}
	p, ok := t.PromiseOf(t.Leader)
	if !ok || p.For != v.Self || p.Epoch != t.Epoch || l.WithdrawnAgo < backOff(v) && l.Withdrawals > 0 {
		return Decision{}, false
	}
	return do(Action{Verb: Promise, Epoch: t.Epoch}, "switchover: %s has stopped at %s and named this node", p.Node, p.LSN), true
}

// ordered: an operator asks for a failover to this node.
func ordered(v *View) (Decision, bool) {
	t, r := v.Store.Term, v.Store.Request
	if r == nil || r.Kind != "failover" || r.To != v.Self || t.Leader == v.Self {
		return Decision{}, false
	}
	if mayClaim(v) {
		return freezeIfUseful(v, "failover was ordered"), true
	}
	refuse := func(why string) (Decision, bool) {
		return do(Action{Verb: Answer, Request: r.ID, Note: why}, "failover refused: %s", why), true
	}
	p, known := v.peer(t.Leader)
	switch {
	case !r.AcceptDataLoss || !r.OldPrimaryOff:
		d, ok := refuse("commits that only " + t.Leader + " has would be lost; bring it back, or say --accept-data-loss and --old-primary-is-off")
		d.Actions[0].Lossy = true
		return d, ok
	case known && v.fresh(p) && p.Leads == t.Epoch:
		return refuse(t.Leader + " is running and leads; stop it first")
	case v.Store.Lease.Unchanged < 3*v.Spec.SuspectAfter:
		return wait("failover with data loss was ordered: waiting for the renewals of %s to stop", t.Leader), true
	}
	return force(v), true
}

// force takes the epoch over although acknowledged commits may exist elsewhere
// only: an operator accepted that (H10).
func force(v *View) Decision {
	t, l := v.Store.Term, &v.Local
	switch {
	case l.Empty || l.Poisoned || l.Postgres == cluster.PostgresDown && !l.TreeEmpty:
		return wait("failover was ordered, but this node has no usable data")
	}
	if d, ok := cutOff(v); ok {
		return d
	}
	switch {
	case l.Postgres == cluster.PostgresDown:
		return do(Action{Verb: StartStandby}, "failover was ordered: starting PostgreSQL")
	case l.Postgres != cluster.PostgresStandby:
		return wait("failover was ordered; PostgreSQL is %s", l.Postgres)
	case !l.Final:
		return do(Action{Verb: ReadPosition}, "failover was ordered: reading where the WAL ends")
	}
	n := won(v, position(v), "failover from "+t.Leader+", data loss accepted by the operator")
	n.Sync, n.K = nil, 0
	n.LastOpenLeader = v.me()
	n.Lost = &cluster.Lost{Node: t.Leader, From: l.WAL.LSN}
	return do(Action{Verb: Swap, Term: n, Note: "won"}, "taking over by order, accepting the loss of what only %s has past %s", t.Leader, l.WAL.LSN)
}
