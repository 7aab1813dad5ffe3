package decide

import (
	"strings"
	"time"

	"manada/internal/cluster"
)

// undo withdraws the order of a restore: by the node that was asked, which may
// be any, also a witness, and also while long work is under way. It is refused
// when the data that the leader had is gone and nobody else has all of it.
func undo(v *View) (Decision, bool) {
	r, t := v.Store.Request, v.Store.Term
	if r == nil || r.Kind != "undo-restore" || r.To != v.Self || t == nil || !v.Store.Reachable || v.Store.RolledBack {
		return Decision{}, false
	}
	answer := func(ok, lossy bool, why string) (Decision, bool) {
		return do(Action{Verb: Answer, Request: r.ID, OK: ok, Lossy: lossy, Note: why}, "undoing the restore: %s", why), true
	}
	if v.Store.Unsettled {
		return do(Action{Verb: Settle}, "undoing the restore: a write of the term has an unknown outcome"), true
	}
	if b, began := t.RestoredBy(r.Order); began {
		return answer(false, false, "it cannot be undone any more: epoch "+itoa(b.Epoch)+" began with what was restored")
	}
	o := t.Restore
	switch {
	case o == nil:
		return answer(true, false, "undone: the herd goes on with the data that it had")
	case o.ID != r.Order:
		return answer(false, false, "another restore is under way by now")
	case o.Touched && !canReturn(v):
		return answer(false, true, "the data of "+t.Leader+" is being replaced and was not kept, and too few standbys that have everything answer: "+
			"it can only be resumed (manada restore --herd --resume), or undone when they are back")
	}
	return do(Action{Verb: Swap, Term: unordered(t, r.By), Note: "restore_undone"}, "undoing the restore"), true
}

// canReturn: what the leader had is kept beside, or enough members of sync
// answer that one of them has everything.
func canReturn(v *View) bool {
	t := v.Store.Term
	if p, ok := v.peer(t.Leader); t.Restore.KeepOld && (t.Leader == v.Self || ok && v.fresh(p)) {
		return true
	}
	n := 0
	for _, m := range t.Sync {
		if m == v.me() || alive(v, m) {
			n++
		}
	}
	return len(t.Sync) > 0 && n >= t.Needed()
}

// orderAge bounds how late an order may begin: whoever gave it has gone away.
const orderAge = time.Minute

// orderRestore is the leader's answer to an operator who wants the herd
// restored: from this swap on nobody takes over. It is the same
// compare-and-swap as a takeover.
func orderRestore(v *View, r *Request) (Decision, bool) {
	t := v.Store.Term
	refuse := func(why string) (Decision, bool) {
		return do(Action{Verb: Answer, Request: r.ID, Note: why}, "request %s refused: %s", r.Kind, why), true
	}
	switch {
	case r.Restore == nil:
		return refuse("the request says nothing of what to restore")
	case r.To != v.Self || r.Epoch != t.Epoch:
		return refuse("the primary has changed since the plan was made; look at a new one: manada restore --herd --dry-run")
	case r.Restore.Everything() && r.Restore.Timeline != t.Current().Timeline:
		return refuse("everything is on timeline " + itoa(uint64(t.Current().Timeline)) + " only: another one wants a target")
	case r.Age > orderAge:
		return refuse("it could not be begun within " + orderAge.String() + " of being given; give it again if it is still wanted")
	case !v.Store.Reachable:
		return wait("a restore was ordered; the store does not answer"), true
	}
	n := t.Clone()
	o := *r.Restore
	o.ID, o.By, o.Touched = r.ID, r.By, false
	n.Restore, n.Drain = &o, nil
	n.Reason = "restore to " + o.To() + " ordered"
	return do(Action{Verb: Swap, Term: n, Note: "restore_started"}, "%s: nobody takes over from here on", n.Reason), true
}

// restoring: an order stands in the record. Everybody but the leader stands
// aside with what he has, which is the way back; nobody suspects, freezes or
// takes over, whatever happens to the leader.
func restoring(v *View) (Decision, bool) {
	t := v.Store.Term
	if t.Restore == nil || t.Leader != v.Self && v.without(WithoutStandingAside) {
		return Decision{}, false
	}
	if d, ok := answerOrder(v); ok {
		return d, true
	}
	if t.Leader != v.Self {
		return standAside(v), true
	}
	d := restore(v)
	d.CannotCommit = "the herd is being restored"
	return d, true
}

// answerOrder tells who gave the order that it stands, and refuses another.
func answerOrder(v *View) (Decision, bool) {
	r, o := v.Store.Request, v.Store.Term.Restore
	if r == nil || v.Store.Term.Leader != v.Self || r.Kind == "undo-restore" {
		return Decision{}, false
	}
	a := Action{Verb: Answer, Request: r.ID, Note: "the herd is being restored (order " + o.ID + "): manada restore --herd --resume shows it, --undo ends it"}
	if r.Kind == "restore" && r.ID == o.ID {
		a.OK, a.Note = true, "the herd is being restored to "+o.To()
	}
	return do(a, "request %s: %s", r.Kind, a.Note), true
}

// stuck waits for an operator.
func stuck(format string, args ...any) Decision {
	d := wait("restore: "+format, args...)
	d.Stuck = strings.TrimPrefix(d.Reason, "restore: ")
	return d
}

func standAside(v *View) Decision {
	t, l := v.Store.Term, &v.Local
	what := "the herd is being restored to " + t.Restore.To()
	p, known := v.peer(t.Leader)
	switch {
	case known && v.fresh(p) && p.Leads == t.Epoch && p.Postgres.Up():
		return wait("%s: following %s until it has stopped", what, t.Leader) // all of its WAL: then this node need not be rewound
	case l.Upstream != "":
		return do(Action{Verb: CutUpstream}, "%s: keeping what is here, cutting off the upstream", what)
	case l.Receiver:
		return do(Action{Verb: EndReceiver}, "%s: ending the WAL receiver", what)
	case l.Postgres.Up() && l.Postgres != cluster.PostgresStopping:
		return do(Action{Verb: Stop, Mode: "fast", Note: "restore"}, "%s: stopping PostgreSQL, its data is the way back", what)
	}
	return wait("%s by %s: nobody takes over meanwhile", what, t.Leader)
}

// restore is the leader's part, one step at a time; each may be repeated.
func restore(v *View) Decision {
	l, o := &v.Local, v.Store.Term.Restore
	m := &l.Restore
	switch {
	case l.Postgres == cluster.PostgresDying || l.Postgres == cluster.PostgresDown && !l.TreeEmpty:
		return wait("restore: waiting for the last processes of PostgreSQL to end")
	case l.Postgres == cluster.PostgresStopping:
		return wait("restore: PostgreSQL is stopping")
	case m.ID != o.ID && l.Postgres.Up():
		return do(Action{Verb: Stop, Mode: "fast", Note: "restore"}, "restore: stopping the primary")
	case m.ID != o.ID && (l.Empty || l.Poisoned):
		return stuck("the data directory is gone, so the end of its WAL cannot be archived: manada restore --herd --undo lets a standby take over")
	case m.ID != o.ID:
		return do(Action{Verb: ArchiveTail, Epoch: v.Store.Term.Epoch}, "restore: archiving the last WAL, and remembering where it ends")
	case !o.Touched:
		if !v.Store.Reachable {
			return wait("restore: the store does not answer")
		}
		n := v.Store.Term.Clone()
		n.Restore.Touched = true
		n.Reason = "restore: replacing the data of " + v.Self
		return do(Action{Verb: Swap, Term: n, Note: "restore"}, "%s", n.Reason)
	case (!m.Restored || l.Poisoned) && l.Postgres.Up():
		return do(Action{Verb: Stop, Mode: "fast", Note: "restore"}, "restore: stopping PostgreSQL")
	case !m.Restored || l.Poisoned:
		return do(Action{Verb: RestoreData}, "restore: putting backup %s in place", o.Set)
	case l.Postgres == cluster.PostgresDown:
		return do(Action{Verb: StartStandby, Note: "restore"}, "restore: recovering to %s", o.To())
	case l.Postgres != cluster.PostgresStandby:
		return wait("restore: PostgreSQL is %s, recovering to %s", l.Postgres, o.To())
	}
	return recovered(v)
}

// recovered: PostgreSQL recovers as a standby of nobody. Where replay ended,
// not where pg_wal does, the next epoch begins.
func recovered(v *View) Decision {
	l, t := &v.Local, v.Store.Term
	o, m := t.Restore, &l.Restore
	live := o.Timeline == t.Current().Timeline // the one whose end is known
	switch {
	case m.Obstacle != "":
		return do(Action{Verb: Stop, Mode: "fast", Note: "restore"}, "restore: %s; starting again with as much as the primary had", m.Obstacle)
	case !reached(v) && m.Stop != 0:
		return wait("restore: %s lies at %s on timeline %d: recovering again along that one, replayed to %s", o.To(), m.Stop, m.Along, m.Replayed)
	case !reached(v) && !live:
		return wait("restore: recovering to %s along timeline %d, replayed to %s; should that never come: manada restore --herd --undo", o.To(), o.Timeline, m.Replayed)
	case !reached(v) && m.Replayed < m.Tail:
		return wait("restore: recovering to %s, replayed to %s", o.To(), m.Replayed)
	case !reached(v) && o.Type == "time":
		// No commit came after that time. PostgreSQL refuses to end a recovery
		// before its target, so it goes on without one.
		return do(Action{Verb: RecoverToEnd}, "restore: nothing was committed after %s: recovering to the end", o.Target)
	case !reached(v):
		return stuck("the WAL ended at %s and %s never came: manada restore --herd --undo, then another target", m.Replayed, o.To())
	case !l.Final:
		return do(Action{Verb: ReadPosition}, "restore: reading where replay ended")
	case l.WAL.Epoch == 0:
		return stuck("recovered to %s, on a timeline that the herd never allocated: manada restore --herd --undo", l.WAL.LSN)
	case !v.Store.Reachable:
		return wait("restore: recovered; the store does not answer")
	}
	if b, _ := t.Branch(l.WAL.Epoch); m.Stop == 0 && b.Timeline != o.Timeline {
		// The new timeline must branch off the one on which the target lies.
		return do(Action{Verb: RecoverAlong, Timeline: b.Timeline, LSN: l.WAL.LSN},
			"restore: %s lies at %s on timeline %d: recovering again along that one", o.To(), l.WAL.LSN, b.Timeline)
	}
	n := restored(v)
	return do(Action{Verb: Swap, Term: n, Note: "won"}, "%s", n.Reason)
}

// reached says whether recovery has come to where the new epoch is to begin:
// without a target never before all that the leader had is back.
func reached(v *View) bool {
	o, m := v.Store.Term.Restore, &v.Local.Restore
	if m.Stop != 0 {
		return m.Replayed >= m.Stop
	}
	if o.Everything() || m.ToEnd {
		return v.without(WithoutTail) || m.Tail != 0 && m.Replayed >= m.Tail
	}
	return m.Paused
}

// abandoned: an order that this node has begun stands no longer, and did not
// begin the present epoch: back to what was there.
func abandoned(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	m := &l.Restore
	if m.ID == "" || m.Done || t.Restore != nil && t.Restore.ID == m.ID || t.Leader == v.Self && t.Current().Restored == m.ID {
		return Decision{}, false
	}
	if m.Touched && l.Postgres.Up() {
		return do(Action{Verb: Stop, Mode: "fast", Note: "undo"}, "the restore was undone: stopping PostgreSQL"), true
	}
	if m.Touched && !l.TreeEmpty {
		return wait("the restore was undone: waiting for the last processes of PostgreSQL to end"), true
	}
	return do(Action{Verb: UndoRestore}, "the restore was undone: putting back what is left"), true
}
