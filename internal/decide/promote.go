package decide

import (
	"fmt"

	"manada/internal/cluster"
)

// promote: this node won the epoch and its PostgreSQL is not primary yet.
// Promotion is never timed out and re-elected: once begun, the timeline has
// forked (T13).
func promote(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	begun := t.Open && !(v.without(WithoutOpening) && l.WAL.Epoch < t.Epoch)
	if t.Leader != v.Self || begun || l.Leads == t.Epoch {
		return Decision{}, false
	}
	give := func(d Decision, why string) (Decision, bool) { d.CannotCommit = why; return d, true }
	if l.Empty || l.Poisoned {
		// Only others can open an epoch now, so they must hear of it (C3 b).
		return give(wait("won epoch %d, but the data directory is gone: another node must take over", t.Epoch), "its data directory is gone")
	}
	if d, stop := cutOff(v); stop {
		return d, true
	}
	b := t.Current()
	switch {
	case !l.TreeEmpty && l.Postgres == cluster.PostgresDying:
		return wait("waiting for the last processes of PostgreSQL to end"), true
	case t.Epoch == 1 && l.Postgres == cluster.PostgresDown && !l.Former:
		return do(Action{Verb: StartFounding}, "starting the first primary"), true
	case l.Postgres == cluster.PostgresDown:
		return do(Action{Verb: StartStandby}, "starting PostgreSQL, to promote it"), true
	case l.Postgres != cluster.PostgresStandby:
		return wait("PostgreSQL is %s; it is promoted as soon as it answers", l.Postgres), true
	case l.Restore.ID != "" && l.Restore.ID == b.Restored && !l.Restore.Done && l.Restore.Replayed < b.ForkLSN:
		// Started again since it won: what it recovers to lies there still.
		return wait("recovering to %s again, before promoting", b.ForkLSN), true
	case !l.Final:
		return do(Action{Verb: ReadPosition}, "reading where the WAL ends, before promoting"), true
	case l.WAL.Epoch == t.Epoch:
		// It was promoted before and stopped. The allocated timeline is used up,
		// so the epoch cannot be begun again; nothing was acknowledged in it.
		n := won(v, position(v), v.Self+" succeeds itself, epoch "+fmt.Sprint(t.Epoch)+" never opened")
		return do(Action{Verb: Swap, Term: n, Note: "won"}, "%s", n.Reason), true
	case b.Parent != 0 && position(v).Less(cluster.Position{Epoch: b.Parent, LSN: b.ForkLSN}):
		return give(wait("won epoch %d at %s, but the WAL ends at %s now: another node must take over", t.Epoch, b.ForkLSN, l.WAL.LSN), "it has lost WAL")
	}
	if !l.Sync.Setting.IsHold() { // in force before the first commit (C5)
		return do(Action{Verb: SetSync, Sync: cluster.HoldCommits()}, "holding commits, before promoting"), true
	}
	return do(Action{Verb: Promote, Timeline: b.Timeline, Epoch: t.Epoch},
		"won epoch %d: promoting to timeline %d", t.Epoch, b.Timeline), true
}

// openEpoch: promoted, with the placeholder in force. Write the control row,
// gather certified standbys, open by a second swap. Until then nothing is
// acknowledged and no client admitted.
func openEpoch(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if t.Leader != v.Self || t.Open || l.Leads != t.Epoch {
		return Decision{}, false
	}
	if b := t.Current(); l.Timeline != b.Timeline {
		return do(Action{Verb: Stop, Mode: "immediate", Note: "wrong timeline"},
			"PostgreSQL promoted to timeline %d, allocated was %d: stopping", l.Timeline, b.Timeline), true
	}
	if l.BadHistory != "" { // nothing was acknowledged; no one may follow, nor recover along it
		d := wait("epoch %d cannot be opened: %s; another node must take over", t.Epoch, l.BadHistory)
		d.CannotCommit = "the history of its timeline goes back in time"
		return d, true
	}
	if !l.Sync.Setting.IsHold() {
		return do(Action{Verb: SetSync, Sync: cluster.HoldCommits()}, "holding commits until the epoch is open"), true
	}
	if !l.Sync.Proved { // an agent that was started again, or a setting that was not there from the start (C5)
		return do(Action{Verb: Probe}, "proving that commits wait"), true
	}
	if !l.Written {
		return do(Action{Verb: WriteControl, Epoch: t.Epoch, Nonce: t.Current().Nonce}, "writing the control row of epoch %d", t.Epoch), true
	}
	ready := eligible(v)
	k := min(v.Spec.WantK, len(ready))
	switch {
	case v.Spec.Durability == cluster.Async:
		return openWith(v, nil, 0, "open; asynchronous"), true
	case len(ready) > 0 && len(ready) >= v.Spec.WantK:
		return openWith(v, ready, k, "open; standbys are certified"), true
	case mayBecomeReady(v) && l.LeadsFor < v.Spec.OpenAfter:
		return wait("waiting for certified standbys (%d of %d)", len(ready), v.Spec.WantK), true
	case len(ready) > 0:
		return openWith(v, ready, k, "open; fewer standbys than wanted"), true
	}
	return openWith(v, nil, 0, "open; no standby is certified yet"), true
}

func openWith(v *View, members []cluster.Member, k int, why string) Decision {
	n := opened(v, members, k)
	n.Reason = v.Store.Term.Reason
	return do(Action{Verb: Swap, Term: n, Note: "open"}, "epoch %d: %s", n.Epoch, why)
}

// mayBecomeReady: somebody else could still be certified without a rewind,
// which needs an open epoch. In a herd of two nobody can, so it opens at once.
func mayBecomeReady(v *View) bool {
	for _, p := range v.Peers {
		if v.fresh(p) && p.Kind == "data" && p.MayLead && p.Rejoin == "" && p.Postgres == cluster.PostgresStandby {
			return true
		}
	}
	return false
}
