package decide

import (
	"fmt"
	"time"

	"manada/internal/cluster"
)

// suspect: the leader seems unable to lead and this node could follow it.
// Suspicion is a hint: before anything is given up, a linearizable read must
// succeed and still show the same (M1).
func suspect(v *View) (Decision, bool) {
	t, l := v.Store.Term, &v.Local
	if t.Leader == v.Self || v.Store.Paused {
		return Decision{}, false
	}
	why := suspicion(v)
	if why == "" {
		return Decision{}, false
	}
	d := freezeIfUseful(v, why)
	d.Suspects, d.Cause = t.Leader, why
	if len(d.Actions) == 0 && l.Postgres == cluster.PostgresDown && !l.Empty && !l.Poisoned && l.Remade == 0 {
		// Whoever may take over needs a running standby to know its position. A
		// directory that was just made anew cannot start without its source.
		started := do(Action{Verb: StartStandby}, "%s; starting PostgreSQL as a standby", why)
		if l.Upstream != "" {
			started = do(Action{Verb: CutUpstream}, "%s; starting without an upstream", why)
		}
		started.Suspects, started.Cause = t.Leader, why
		return started, true
	}
	return d, true
}

func freezeIfUseful(v *View, why string) Decision {
	t, l := v.Store.Term, &v.Local
	switch {
	case !mayClaim(v):
		return wait("%s; this node cannot take over: %s", why, noClaim(v))
	case waitsForOrder(v):
		return wait("%s; %s", why, onlyByOrder(v))
	case l.Withdrawals > 0 && l.WithdrawnAgo < backOff(v):
		return wait("%s; an earlier promise was of no use, waiting before the next", why)
	case !enoughLikely(v):
		return wait("%s; a takeover needs %d of the synchronous standbys, too few answer", why, t.Needed())
	case l.Postgres != cluster.PostgresStandby:
		return wait("%s; PostgreSQL here is %s", why, l.Postgres)
	case !v.Store.Reachable || v.Store.ReadAge > v.Spec.FreshRead:
		return do(Action{Verb: ReadStore}, "%s; asking the store first", why)
	}
	return do(Action{Verb: Promise, Epoch: t.Epoch}, "%s; promising the end of epoch %d", why, t.Epoch)
}

// suspicion says why the leader is suspected, "" when it is not.
func suspicion(v *View) string {
	t := v.Store.Term
	p, known := v.peer(t.Leader)
	heard := known && v.fresh(p)
	limit := v.Spec.SuspectAfter
	guarded := known && p.GuardianAge < limit
	switch {
	case heard && p.CannotCommit != "":
		return fmt.Sprintf("%s cannot commit: %s", t.Leader, p.CannotCommit)
	case heard && !p.StoreOK && p.WaitingMS > limit.Milliseconds() && v.Store.Reachable:
		return fmt.Sprintf("%s has lost the store and its commits have waited %d ms", t.Leader, p.WaitingMS)
	case heard:
		return ""
	case guarded && (p.Guardian == cluster.PostgresDown || p.Guardian == cluster.PostgresDying):
		return fmt.Sprintf("the guardian on %s says that PostgreSQL is down, and its agent is silent", t.Leader)
	case guarded && p.Guardian.Up():
		return ""
	case v.Local.SilentFor < limit || v.Store.Lease.Unchanged < limit:
		return ""
	}
	return fmt.Sprintf("%s is silent: no beat, no WAL, no renewal for %s", t.Leader, limit)
}

// backOff doubles with every promise that was of no use (M1).
func backOff(v *View) time.Duration {
	return v.Spec.SuspectAfter << min(v.Local.Withdrawals, 6)
}
