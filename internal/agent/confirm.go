package agent

import (
	"fmt"
	"slices"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// At most one node of a herd says that it is the primary. A node says so only
// with evidence that is younger than half of suspect_after and that nobody can
// have followed it before: the store confirmed the record, or enough members of
// sync that a takeover lacked a promise answered a beat of this node without
// having promised anything. Evidence is dated by when this node *asked*, by its
// own clock: an answer that lay in a socket while the host stood still is as old
// as it is. Whoever wins an epoch from another waits for as long after the win.

// beatTimes remembers when this agent's newest beats were said. Guarded by Agent.mu.
type beatTimes struct {
	at [512]time.Time // by sequence number, modulo
	n  uint64         // the newest
}

func (t *beatTimes) add(seq uint64, at time.Time) { t.at[seq%uint64(len(t.at))], t.n = at, seq }

// when is the zero time for a beat that is too old to be remembered.
func (t *beatTimes) when(seq uint64) time.Time {
	if seq > t.n || t.n-seq >= uint64(len(t.at)) {
		return time.Time{}
	}
	return t.at[seq%uint64(len(t.at))]
}

// answersTo names the newest beat of the record's leader, as it was known when
// the view was taken.
func answersTo(v *decide.View) *cluster.BeatID {
	t := v.Store.Term
	if t == nil || t.Leader == v.Self {
		return nil
	}
	for _, p := range v.Peers {
		if p.Node == t.Leader && p.Seq != 0 {
			return &cluster.BeatID{Node: p.Node, Boot: p.Boot, Seq: p.Seq}
		}
	}
	return nil
}

// Unconfirmed says why this node is not to be taken for the primary at this
// moment; "" when it leads an open epoch, lets writes through, and nobody else
// can have followed it. The answer is as old as the moment at which this was
// called; it may be asked again at no cost.
func (a *Agent) Unconfirmed() string { return a.unconfirmed(a.Self()) }

func (a *Agent) unconfirmed(self cluster.Beat) string {
	if a.db == nil {
		return "this host has no database"
	}
	heard := a.hub.Heard()
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.rec.snap.Term
	switch {
	case t == nil:
		return "no term record is known"
	case t.Leader != a.cfg.Node:
		return fmt.Sprintf("%s leads epoch %d", t.Leader, t.Epoch)
	case !t.Open:
		return fmt.Sprintf("epoch %d is not open yet", t.Epoch)
	case t.Restore != nil:
		return "the herd is being restored"
	case a.mem.leads != t.Epoch || a.seen.state != cluster.PostgresPrimary:
		return "PostgreSQL does not run as primary of epoch " + fmt.Sprint(t.Epoch)
	case self.CannotCommit != "":
		return self.CannotCommit
	case self.WritesWait != "":
		return "writes wait: " + self.WritesWait
	}
	var members []time.Time
	for _, m := range t.Sync {
		if h, ok := heard[m.Name]; ok {
			if at, ok := a.answeredAt(m, t, h.Beat); ok {
				members = append(members, at)
			}
		}
	}
	window := a.cfg.Spec.SuspectAfter / 2
	// Only now: what is compared with it was asked before.
	if age := since(a.seen.at); age > a.cfg.Spec.SuspectAfter {
		return fmt.Sprintf("PostgreSQL was last looked at %s ago", age.Round(time.Millisecond))
	}
	if age := time.Since(a.leadsFrom); age < window {
		return fmt.Sprintf("epoch %d was won %s ago: its predecessor may not know yet", t.Epoch, age.Round(time.Millisecond))
	}
	if t.K == 0 && !a.rec.unsettled {
		return "" // nobody follows by himself
	}
	age := since(evidence(a.rec.confirmed, members, t.K))
	if age <= window {
		return ""
	}
	return fmt.Sprintf("neither the store nor its standbys have confirmed epoch %d for %s", t.Epoch, age.Round(time.Millisecond))
}

// answeredAt dates a beat of a member of sync that has promised nothing: it was
// said after the beat of ours that it answers. Called with mu held.
func (a *Agent) answeredAt(m cluster.Member, t *cluster.Term, b cluster.Beat) (time.Time, bool) {
	id := b.Answers
	if id == nil || id.Node != a.cfg.Node || id.Boot != a.boot || b.Instance != m.Instance || b.Certified != t.Epoch || b.Frozen != 0 {
		return time.Time{}, false
	}
	at := a.said.when(id.Seq)
	return at, !at.IsZero()
}

// evidence is the newest moment at which nobody can have followed: when the store
// was asked, or when k members of sync had promised nothing. A takeover takes the
// promises of all members but k-1, so it lacked one of theirs.
func evidence(store time.Time, members []time.Time, k int) time.Time {
	if k < 1 || len(members) < k {
		return store
	}
	slices.SortFunc(members, func(x, y time.Time) int { return y.Compare(x) })
	return later(store, members[k-1])
}

// since is the age of a moment of this process. A suspended machine's monotonic
// clock stands still and its wall clock does not: the greater age counts.
func since(at time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}

// noteWon keeps since when this node is known to have won its epoch; called with
// mu held when the epoch changes. old is the record before, nil when it is not
// known. Nobody waits for a predecessor that gave the epoch up itself, or for
// oneself.
func (a *Agent) noteWon(old *cluster.Term) {
	a.leadsFrom = time.Now()
	if old == nil {
		return
	}
	last := old.LastOpenLeader.Name
	if _, gaveUp := old.PromiseOf(last); gaveUp || last == a.cfg.Node {
		a.leadsFrom = time.Time{}
	}
}
