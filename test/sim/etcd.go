package sim

import (
	"fmt"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// outcome of a write, as its sender learns it.
type outcome uint8

const (
	applied outcome = iota
	conflict
	unknown
)

// etcd is the store: one linearizable record with a modification revision, a
// renewal counter, one request. Keys other than the record are last-writer-wins.
type etcd struct {
	term    *cluster.Term
	rev     int64
	lease   lease
	request *decide.Request
	late    []write // sent, given up by the sender, not applied yet
}

type lease struct {
	node  string
	epoch uint64
	seq   uint64
}

// write compares the record's revision; rev 0 means that there must be none.
type write struct {
	at   int64
	from int
	rev  int64
	term *cluster.Term
	note string
}

// reaches says whether a node's requests come to a quorum of voters and the
// answers come back. The voters are the first two data nodes and the witness.
func (w *world) reaches(n *node) bool {
	if w.outageUntil > w.now || n.storeCutUntil > w.now || !n.runs(w.now) {
		return false
	}
	for _, v := range w.voters {
		if !w.linked(n.i, v) || !w.nodes[v].runs(w.now) {
			continue
		}
		votes := 0
		for _, u := range w.voters {
			if w.nodes[u].runs(w.now) && w.linked(v, u) {
				votes++
			}
		}
		if votes*2 > len(w.voters) {
			return true
		}
	}
	return false
}

// put sends a write of the record. Whatever the sender is told, it is applied
// at most once, now or later.
func (w *world) put(n *node, rev int64, t *cluster.Term, note string) outcome {
	wr := write{from: n.i, rev: rev, term: t, note: note}
	if t.Current().Nonce == w.freshNonce() {
		w.nonces = append(w.nonces, fmt.Sprintf("n%d", len(w.nonces)))
	}
	if w.crashWrites > 0 && !w.healing && n == w.leader() && w.chance(500) {
		w.crashWrites--
		w.stats.Unknown++
		w.postpone(wr)
		w.crashAgent(n, int64(w.rng.IntN(8))*tick)
		return unknown
	}
	if w.promiseCrashes > 0 && !w.healing && note == "swap promise" && w.reaches(n) {
		w.promiseCrashes--
		w.stats.Unknown++
		w.apply(wr)
		w.crashAgent(n, int64(w.rng.IntN(4))*tick)
		return unknown
	}
	if !w.reaches(n) {
		if w.chance(w.prof.late) {
			w.postpone(wr)
		}
		w.stats.Unknown++
		return unknown
	}
	if w.healing || !w.chance(w.flaky()) {
		return w.apply(wr)
	}
	w.stats.Unknown++
	switch w.rng.IntN(3) {
	case 0: // lost on the way
		w.logf("%s: write lost: %s", n.name, note)
	case 1: // applied, the answer is lost
		w.apply(wr)
		w.logf("%s: the answer is lost: %s", n.name, note)
	default:
		w.postpone(wr)
	}
	return unknown
}

func (w *world) flaky() int {
	if w.flakyUntil > w.now {
		return 400
	}
	return w.prof.flaky
}

func (w *world) postpone(wr write) {
	wr.at = w.now + int64(1+w.rng.IntN(60))*tick
	w.st.late = append(w.st.late, wr)
	w.logf("%s: write delayed by %d ms: %s", w.nodes[wr.from].name, wr.at-w.now, wr.note)
}

// apply compares and swaps.
func (w *world) apply(wr write) outcome {
	if wr.rev != w.st.rev {
		return conflict
	}
	old := w.st.term
	w.st.term, w.st.rev = wr.term, w.st.rev+1
	if w.tracing {
		w.logf("RECORD rev %d by %s: %s (%s)", w.st.rev, w.nodes[wr.from].name, decide.Describe(wr.term), wr.note)
	}
	w.recordChanged(old, wr.term)
	return applied
}

// lateWrites applies what was delayed until now, in the order sent.
func (w *world) lateWrites() {
	rest := w.st.late[:0]
	for _, wr := range w.st.late {
		if wr.at > w.now {
			rest = append(rest, wr)
			continue
		}
		if w.apply(wr) == applied {
			w.stats.LateApplied++
			w.logf("a late write of %s was applied: %s", w.nodes[wr.from].name, wr.note)
		}
	}
	w.st.late = rest
}
