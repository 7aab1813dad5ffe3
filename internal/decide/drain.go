package decide

import (
	"fmt"
	"strings"
	"time"

	"manada/internal/cluster"
)

// A switchover is announced before it happens, in the record. In its first phase
// all goes on while old transactions are waited for; in the second the proxies
// begin nothing new on this epoch, and the outage is counted. Then the leader is
// stopped. The announcement (cluster.Drain) changes no rule of takeover: whoever
// wins does so as if it were not there. These rules are the leader's.

// Drain is how long the two phases may last.
type Drain struct {
	Soft time.Duration // a transaction older than this is waited for before the hold
	Hold time.Duration // the most that what is new is held before open transactions are given up
	For  time.Duration // both phases together
}

// grace is how much longer than Hold what is in COMMIT is waited for: what was
// still open has only just been rolled back by then.
func (d Drain) grace() time.Duration { return min(d.Hold/4, 250*time.Millisecond) }

// LocalDrain is how far this run of the agent has come with handing its epoch over.
type LocalDrain struct {
	ID          string // "" for none
	To, Request string
	Preparing   bool   // the checkpoint before it is under way
	Failed      string // why that checkpoint failed
	Hold        bool   // the second phase was swapped in
	// Age and HoldAge are since the first and the second phase stood in the record.
	Age, HoldAge time.Duration
	// Unheld are the proxies that hear this host and have not answered that they
	// hold; HeldFor is since when there is none of them.
	Unheld  []string
	HeldFor time.Duration
	// Looked is since the newest look at the clients' sessions was begun, Oldest
	// the age of their oldest transaction then, Open how many had one or ran a
	// statement, InCommit how many of these were in COMMIT.
	Looked, Oldest time.Duration
	Open, InCommit int
}

// behind is how far the successor may be behind when a switchover begins: the
// stop waits until it has everything, and clients with it.
const behind = 16 << 20 // bytes

// handingOver goes on with what serveRequest began.
func handingOver(v *View) (Decision, bool) {
	t, l := v.Store.Term, &v.Local.Drain
	if t.Drain != nil && (t.Drain.ID != l.ID || t.Drain.Epoch != t.Epoch) && v.Store.Reachable {
		return withdrawDrain(v, "its agent was started again meanwhile"), true
	}
	if l.ID == "" {
		return Decision{}, false
	}
	switch {
	case !l.Preparing:
		if why := handoverFails(v); why != "" {
			return withdrawDrain(v, why), true
		}
		if d, ok := drainStep(v); ok {
			return d, true
		}
	case v.without(WithoutDuties):
		return wait("a checkpoint before the switchover to %s", l.To), true
	}
	if d, ok := syncSet(v); ok && len(d.Actions) > 0 {
		return d, true // who is waited for has nothing to do with it
	}
	return wait("switchover to %s: %s", l.To, drainWaits(v)), true
}

// handoverFails says why the switchover cannot go on, "" when it can.
func handoverFails(v *View) string {
	l, r := &v.Local.Drain, v.Store.Request
	switch _, why := successor(v, l.To); {
	case l.Failed != "":
		return l.Failed
	case why != "":
		return why
	case r == nil || r.ID != l.Request || r.Kind != "switchover":
		return "the request was withdrawn"
	case l.Age > v.Spec.Drain.For+v.Spec.HandoverAfter: // no proxy obeys it any more
		return "the store did not answer for too long, or the stop failed (the log tells)"
	}
	return ""
}

// drainStep is the next step, if it is time for one.
func drainStep(v *View) (Decision, bool) {
	t, l := v.Store.Term, &v.Local.Drain
	switch {
	case !v.Store.Reachable: // nobody could take over
		return Decision{}, false
	case t.Drain == nil || t.Drain.Hold != l.Hold: // new, or lost by a member that does not know it
		return do(Action{Verb: Swap, Term: drained(v, l.Hold), Note: "drain"}, "switchover to %s: announcing it", l.To), true
	case !l.Hold && softOver(v):
		return do(Action{Verb: Swap, Term: drained(v, true), Note: "hold"}, "switchover to %s: holding what is new", l.To), true
	case l.Hold && holdOver(v):
		return do(Action{Verb: HandOver, To: l.To, Request: l.Request}, "switchover: handing over to %s", l.To), true
	}
	return Decision{}, false
}

// softOver: a look that was begun since the announcement showed no old
// transaction, or they have been waited for long enough.
func softOver(v *View) bool {
	l, s := &v.Local.Drain, v.Spec.Drain
	return l.Looked < l.Age && l.Oldest <= s.Soft || l.Age >= s.For-s.Hold
}

// holdOver: a look that was begun after every proxy had answered shows nothing
// under way. When the hold has lasted long enough only what is in COMMIT counts,
// and that not without end.
func holdOver(v *View) bool {
	l, s := &v.Local.Drain, v.Spec.Drain
	held := len(l.Unheld) == 0 && l.Looked < l.HeldFor || v.without(WithoutHeld)
	late := l.Looked < l.HoldAge-s.Hold // the look was begun when the hold was over
	switch {
	case v.without(WithoutQuiet):
		return len(l.Unheld) == 0 || l.HoldAge >= s.Hold
	case held && l.Open == 0 && l.Looked < l.HoldAge:
		return true
	case v.without(WithoutHoldEnd):
		return false
	}
	return late && l.InCommit == 0 || l.HoldAge >= s.Hold+s.grace()
}

// drainWaits says for whom the switchover waits.
func drainWaits(v *View) string {
	l, s := &v.Local.Drain, v.Spec.Drain
	who := "a look at the sessions"
	switch {
	case l.Preparing:
		who = "the checkpoint before it"
	case !v.Store.Reachable:
		who = "the store, which does not answer"
	case l.Hold && len(l.Unheld) > 0:
		who = "the answer of the proxies on " + strings.Join(l.Unheld, ", ")
	case l.Hold && l.Open > 0:
		who = "the transactions that are open"
	case !l.Hold && l.Oldest > s.Soft:
		who = fmt.Sprintf("transactions older than %s", s.Soft)
	}
	if l.Hold {
		return "what is new is held, waiting for " + who
	}
	return "waiting for " + who
}

// withdrawDrain gives a switchover up before the stop, and this node goes on
// leading: first whoever asked is told, then everybody.
func withdrawDrain(v *View, why string) Decision {
	t, r := v.Store.Term, v.Store.Request
	why = "the switchover is given up: " + why
	switch {
	case !v.Store.Reachable:
		return wait("%s; the store does not answer", why)
	case r != nil && r.Kind == "switchover" && (r.Tried || r.ID == v.Local.Drain.Request):
		return do(Action{Verb: Answer, Request: r.ID, Note: why + "; " + v.Self + " goes on leading"}, "%s", why)
	case t.Drain != nil:
		return do(Action{Verb: Swap, Term: undrained(t, why), Note: "undrained"}, "%s", why)
	}
	return do(Action{Verb: Undrain}, "%s", why)
}

// drained announces the switchover, or its second phase.
func drained(v *View, hold bool) *cluster.Term {
	t, l, s := v.Store.Term, &v.Local.Drain, v.Spec.Drain
	n := t.Clone()
	n.Drain = &cluster.Drain{ID: l.ID, Epoch: t.Epoch, To: l.To, Hold: hold,
		SoftMS: s.Soft.Milliseconds(), HoldMS: s.Hold.Milliseconds(), ForMS: s.For.Milliseconds()}
	return n
}

// undrained withdraws the announcement.
func undrained(t *cluster.Term, why string) *cluster.Term {
	n := t.Clone()
	n.Drain = nil
	n.Reason = why
	return n
}
