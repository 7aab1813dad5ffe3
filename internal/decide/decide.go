package decide

import (
	"strconv"
	"strings"

	"manada/internal/cluster"
)

// rule is one reason to act or to wait. It returns false when it does not apply.
type rule struct {
	id string
	fn func(*View) (Decision, bool)
}

// rules in order: the first that applies decides. The first group keeps a node
// from acting on what it does not know, or from acting at all while the herd is
// being restored; then come a leader's rules and then
// those of everybody else.
var rules = []rule{
	{"undo", undo},
	{"busy", busy},
	{"witness", witness},
	{"rolled-back", rolledBack},
	{"lie", lie},
	{"deposed", deposed},
	{"impostor", impostor},
	{"unsettled", unsettled},
	{"founding", founding},
	{"other-herd", otherHerd},
	{"stale-promise", stalePromise},
	{"abandoned", abandoned},
	{"restoring", restoring},
	{"lead", lead},
	{"open", openEpoch},
	{"promote", promote},
	{"fallen", fallen},
	{"frozen", frozen},
	{"named-successor", namedSuccessor},
	{"ordered", ordered},
	{"suspect", suspect},
	{"rejoin", rejoin},
	{"follow", follow},
}

// Decide returns what the node of the view does next and why.
func Decide(v *View) Decision {
	for _, r := range rules {
		if d, ok := r.fn(v); ok {
			d.Rule = r.id
			return annotate(v, d)
		}
	}
	return annotate(v, Decision{Rule: "none", Reason: "nothing to do"})
}

// annotate adds what the beat says of this node beside the decision.
func annotate(v *View, d Decision) Decision {
	t := v.Store.Term
	if t == nil || v.Spec.Witness {
		return d
	}
	if t.Leader == v.Self {
		d.WritesWait = writesWait(v)
		d.Renew = d.Renew || (d.CannotCommit == "" && v.Local.Postgres.Up())
		return d
	}
	if d.Rejoin == "" {
		d.Rejoin = mustRejoin(v)
	}
	if strings.Contains(v.Local.Busy, "rewind") {
		d.Rejoin = "rewind" // and not "clone", as the half-made directory would have it
	}
	if name, e, ok := cluster.ParseCertifiedName(v.Local.Upstream); ok && name == v.Self && e == t.Epoch && d.Rejoin == "" {
		d.Certified = e
	}
	return d
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

func busy(v *View) (Decision, bool) {
	if v.Local.Busy == "" {
		return Decision{}, false
	}
	d := wait("%s is under way", v.Local.Busy)
	// A leader that is being stopped or recovers tells nobody to take over.
	return d, true
}

func witness(v *View) (Decision, bool) {
	return wait("witness: votes in the store, holds no data"), v.Spec.Witness
}

// rolledBack: no role change, no degradation, no thaw (C6).
func rolledBack(v *View) (Decision, bool) {
	return wait("the store answers with something older than this node has on disk (store rolled back): no change of role until an operator has looked (docs/how-to.md)"), v.Store.RolledBack
}

// unsettled: after a write of unknown outcome the only step is to make it
// known, by a later read and write of our own (H2).
func unsettled(v *View) (Decision, bool) {
	if !v.Store.Unsettled || v.without(WithoutBothValues) {
		return Decision{}, false
	}
	d := do(Action{Verb: Settle}, "a write of the record may still be under way (after a start, or a time-out): reading and rewriting it first")
	return d, true
}

// founding: only a host that was told to, whose disk and store are both new.
func founding(v *View) (Decision, bool) {
	s, l := &v.Store, &v.Local
	if s.Term != nil {
		return Decision{}, false
	}
	switch {
	case !s.Reachable:
		return wait("the store does not answer"), true
	case l.HighEpoch > 0:
		return wait("waiting for the record: the store has shown none yet, and as this node has obeyed epoch %d no new herd is founded (if it stays so: docs/how-to.md, \"The store went back in time\")", l.HighEpoch), true
	case !l.Founder:
		return wait("waiting for the founding host"), true
	case l.Empty || l.Poisoned:
		return do(Action{Verb: Found}, "founding: making the first data directory"), true
	case l.Instance == "" || l.SystemID == "": // not observed yet
		return wait("founding: looking at the data directory"), true
	}
	return do(Action{Verb: Create, Term: firstTerm(v)}, "founding: writing the first term"), true
}

// otherHerd: the data directory is not of this herd.
func otherHerd(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if l.Empty || l.SystemID == "" || l.SystemID == t.SystemID {
		return Decision{}, false
	}
	return wait("the data directory has system identifier %s, the herd has %s: move it away, or start this node with an empty one", l.SystemID, t.SystemID), true
}

// deposed: a primary of any epoch but the current one of this node stops at
// once. Immediate: waiting commits lose their connection instead of getting
// an answer (T5).
func deposed(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if t == nil || (l.Postgres != cluster.PostgresPrimary && !(l.Postgres.Up() && l.Leads != 0)) {
		return Decision{}, false
	}
	if t.Leader == v.Self && l.Leads == t.Epoch {
		return Decision{}, false
	}
	return do(Action{Verb: Stop, Mode: "immediate", Note: "deposed"},
		"PostgreSQL runs as primary of epoch %d but epoch %d belongs to %s: stopping it", l.Leads, t.Epoch, t.Leader), true
}

// stalePromise: the promise was for an epoch that is over. It bars no later name.
func stalePromise(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	switch {
	case l.Promised == 0 || l.Promised == t.Epoch:
		return Decision{}, false
	case l.Promised > t.Epoch: // it bars every name up to its epoch (H3)
		return wait("the end of epoch %d is promised here, but the record known is of epoch %d", l.Promised, t.Epoch), true
	}
	return do(Action{Verb: DropPromise}, "epoch %d has ended: the promise is done", l.Promised), true
}
