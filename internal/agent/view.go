package agent

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/peer"
	"manada/internal/store"
)

const never = 24 * time.Hour // an age for what was never seen

// view puts together all that this node knows now.
func (a *Agent) view() *decide.View {
	heard, guards := a.hub.Heard(), a.hub.HeardGuardian()
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	v := &decide.View{Self: a.cfg.Node, Spec: a.cfg.Spec, Nonce: nonce()}
	v.Spec.Witness = a.db == nil
	v.Store = a.storeView(now)
	if a.db != nil {
		v.Local = a.localView(now, v.Store.Term)
	}
	v.Peers = a.peersView(now, heard, guards, v.Store.Term)
	if !leaderThere(v) {
		// A standby is stuck only while there is somebody to stream from.
		a.mem.progressAt, v.Local.StuckFor = now, 0
	}
	return v
}

func leaderThere(v *decide.View) bool {
	t := v.Store.Term
	for _, p := range v.Peers {
		if t != nil && p.Node == t.Leader {
			return p.Leads == t.Epoch && p.Age < v.Spec.SuspectAfter
		}
	}
	return false
}

func nonce() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func (a *Agent) storeView(now time.Time) decide.Store {
	r := &a.rec
	s := decide.Store{ReadAge: never, RolledBack: r.rolledBack, Unsettled: r.unsettled}
	if !r.have {
		return s
	}
	s.ReadAge = now.Sub(r.snap.Sent)
	s.Reachable = !r.failed && s.ReadAge < a.storeStale()
	s.Term, s.Rev = r.snap.Term.Clone(), r.snap.TermRev
	s.Paused = r.snap.Pause != nil
	s.JustOpened = s.Term != nil && s.Term.Open && now.Sub(r.openSince) < a.cfg.Spec.SuspectAfter/2
	if l := r.snap.Lease; l != nil {
		s.Lease = decide.Lease{Node: l.Node, Epoch: l.Epoch}
	}
	// Unchanged as of the newest answer, not as of now: silence of the store is
	// no sign of the leader's.
	s.Lease.Unchanged = max(0, r.snap.Sent.Sub(r.leaseSince))
	for _, q := range r.snap.Requests {
		if q.Result == nil && decidable(q.Kind) {
			s.Request = a.requestView(now, q)
			break
		}
	}
	return s
}

// storeStale is the age from which the newest answer no longer counts as "the
// store answers".
func (a *Agent) storeStale() time.Duration { return max(2*time.Second, 2*a.cfg.Spec.SuspectAfter) }

// optionTried marks a switchover that was attempted.
const optionTried = "tried"

func decidable(kind string) bool {
	switch kind {
	case store.RequestSwitchover, store.RequestFailover, store.RequestReinit, store.RequestRestore, store.RequestUndoRestore:
		return true
	}
	return false
}

func (a *Agent) requestView(now time.Time, q store.Request) *decide.Request {
	order, epoch := orderOf(q)
	age := now.Sub(a.rec.firstSeen[q.ID])
	if q.Kind == store.RequestRestore { // this agent may not have been there when it was given
		age = max(age, now.Sub(q.At))
	}
	return &decide.Request{
		ID: q.ID, Kind: q.Kind, To: q.To, By: q.By, Restore: order, Epoch: epoch, Order: q.Options["order"],
		AcceptDataLoss: q.Options["accept_data_loss"] == "true",
		OldPrimaryOff:  q.Options["old_primary_is_off"] == "true",
		Tried:          q.Options[optionTried] == "true",
		Age:            age,
	}
}

func (a *Agent) peersView(now time.Time, heard, guards map[string]peer.Heard, t *cluster.Term) []decide.Peer {
	var out []decide.Peer
	for name, h := range heard {
		if name == a.cfg.Node {
			continue
		}
		p := decide.Peer{Beat: h.Beat, Age: never, GuardianAge: never, UnseenFor: a.unseenFor(now, name)}
		p.Node = name
		if !h.At.IsZero() {
			p.Age = now.Sub(h.At)
		}
		if g, ok := guards[name]; ok {
			p.Guardian, p.GuardianAge = g.Beat.Postgres, now.Sub(g.At)
		}
		out = append(out, p)
	}
	// A member of sync that was never heard is still a member.
	if t != nil {
		for _, m := range t.Sync {
			if !slices.ContainsFunc(out, func(p decide.Peer) bool { return p.Node == m.Name }) && m.Name != a.cfg.Node {
				p := decide.Peer{Age: never, GuardianAge: never, UnseenFor: a.unseenFor(now, m.Name)}
				p.Node = m.Name
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(x, y decide.Peer) int { return cmp.Compare(x.Node, y.Node) })
	return out
}

// unseenFor is since when the node's certified walsender was last seen here; a
// leader that has just begun to look gives everybody the full time-out.
func (a *Agent) unseenFor(now time.Time, node string) time.Duration {
	at, ok := a.mem.streamed[node]
	if !ok {
		at = later(a.started, a.mem.leadsSince)
	}
	return now.Sub(at)
}

func later(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}
