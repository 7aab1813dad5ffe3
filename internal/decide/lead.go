package decide

import (
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// lead: this node's PostgreSQL is primary of its own, open epoch.
func lead(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if t.Leader != v.Self || !t.Open || l.Leads != t.Epoch || !l.Postgres.Up() {
		return Decision{}, false
	}
	if l.Stalled != "" {
		// Renewing would tell the others that all is well (M3).
		d := wait("cannot commit: %s; a standby may take over", l.Stalled)
		d.CannotCommit = l.Stalled
		return d, true
	}
	if !l.Written && v.without(WithoutOpening) {
		return do(Action{Verb: WriteControl, Epoch: t.Epoch, Nonce: t.Current().Nonce}, "writing the control row"), true
	}
	d := wait("primary of epoch %d", t.Epoch)
	for _, duty := range []func(*View) (Decision, bool){doubled, keptOut, handingOver, serveRequest, syncSet} {
		if x, ok := duty(v); ok {
			d = x
			break
		}
	}
	d.Renew = true
	return d, true
}

// writesWait says why commits wait on this leader until something outside of it
// changes: PostgreSQL waits for more standbys than are there, and this leader may
// not let go of them. "" while it commits, or is about to by steps of its own.
func writesWait(v *View) string {
	l, t := &v.Local, v.Store.Term
	s := l.Sync.Setting
	if !t.Open || l.Leads != t.Epoch || l.Postgres != cluster.PostgresPrimary || s.Alone || v.Spec.Durability == cluster.Async {
		return ""
	}
	there, away := 0, []string(nil)
	for _, name := range s.Names {
		node, _, _ := cluster.ParseCertifiedName(name)
		if p, known := v.peer(node); known && p.UnseenFor < v.Spec.DegradeAfter {
			there++
		} else {
			away = append(away, node)
		}
	}
	if !s.IsHold() && there >= s.K {
		return ""
	}
	who := "no standby is there"
	if len(away) > 0 {
		who = strings.Join(away, ", ") + " away"
	}
	switch {
	case v.Store.RolledBack:
		return who + " and the store has gone back in time"
	case !v.Store.Reachable:
		return who + " and the store does not answer"
	case v.Spec.Durability == cluster.Strict && len(eligible(v)) < max(s.K, 1):
		return who + ", durability strict"
	}
	return ""
}

// serveRequest begins a switchover or says why not.
func serveRequest(v *View) (Decision, bool) {
	r := v.Store.Request
	if r == nil {
		return Decision{}, false
	}
	refuse := func(why string) (Decision, bool) {
		return do(Action{Verb: Answer, Request: r.ID, Note: why}, "request %s refused: %s", r.Kind, why), true
	}
	if r.Kind == "restore" {
		return orderRestore(v, r)
	}
	if r.To == v.Self && r.Kind != "reinit" && r.Kind != "undo-restore" {
		if d, ok := syncSet(v); ok && len(d.Actions) > 0 {
			return d, true // clients first, then who asked for the switchover
		}
		return do(Action{Verb: Answer, Request: r.ID, OK: true, Note: v.Self + " is already primary"}, "nothing to switch"), true
	}
	if r.Kind != "switchover" {
		return Decision{}, false
	}
	if r.Tried {
		return refuse(r.To + " did not open the next epoch in time (or the agent on " + v.Self + " was started again before the stop); " + v.Self + " leads")
	}
	to, why := successor(v, r.To)
	if s, _ := v.sender(to, v.Store.Term.Epoch); why == "" && s.Flush+behind < v.Local.WAL.LSN {
		why = fmt.Sprintf("%s is %d MB of WAL behind: clients would wait for it", to, (v.Local.WAL.LSN-s.Flush)>>20)
	}
	if why != "" {
		if r.Age < v.Spec.HandoverAfter {
			return Decision{}, false // it may be about to become synchronous
		}
		return refuse(why)
	}
	return do(Action{Verb: Prepare, To: to, Request: r.ID}, "switchover to %s: a checkpoint first", to), true
}

// successor checks that a node can take the epoch over at once; with no name
// given it picks the member of sync with the highest priority, of equal ones the
// furthest; never one that leads only by order.
func successor(v *View, name string) (string, string) {
	t := v.Store.Term
	best, at, prio := "", cluster.LSN(0), -1
	for _, p := range eligible(v) {
		if _, ok := t.SyncNamed(p.Name); !ok || (name != "" && p.Name != name) {
			continue
		}
		peer, _ := v.peer(p.Name)
		if name == "" && peer.Manual || peer.Priority < prio {
			continue
		}
		if s, ok := v.sender(p.Name, t.Epoch); ok && (s.Flush >= at || peer.Priority > prio) {
			best, at, prio = p.Name, s.Flush, peer.Priority
		}
	}
	switch {
	case best != "":
		return best, ""
	case name == "":
		return "", "no standby is synchronous: nobody could take over without losing commits"
	}
	if _, ok := v.peer(name); !ok {
		return "", "there is no node " + name
	}
	return "", name + " is not a synchronous standby now (see `manada status`)"
}
