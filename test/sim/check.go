package sim

import (
	"fmt"
	"slices"

	"manada/internal/cluster"
)

// checker holds what was promised to clients.
//
// Acknowledged commits lie on one line, and a log that has the last of them has
// them all; so the last one is all that needs to be looked for.
type checker struct {
	err   error
	acks  int
	doubt doubt  // acknowledged by a stranger alone
	last  int    // index of the last acknowledged commit
	hash  uint64 // on its line
	open  struct {
		epoch  uint64
		wal    wal // of the leader when the newest epoch was opened
		leader int
	}
}

func (w *world) fail(invariant, format string, args ...any) {
	if invariant == "4" && w.prof.lossOnly {
		return
	}
	if w.chk.err == nil {
		w.chk.err = fmt.Errorf("invariant %s at %.2fs: %s", invariant, float64(w.now)/1000, fmt.Sprintf(format, args...))
		w.logf("VIOLATION: %v", w.chk.err)
	}
}

// acknowledged is called in the moment in which a client learns that its
// commit, whose record ends at upto, stands.
func (w *world) acknowledged(n *node, upto int, k kind) {
	if k != commit {
		return
	}
	if w.doubtful(n, upto) {
		return
	}
	c, i := &w.chk, upto-1
	h := n.d.wal[i].hash
	w.stats.Acks++
	epoch := n.pg.epoch
	switch {
	case epoch > c.open.epoch:
		w.fail("1", "%s acknowledges in e%d, which is not open", n.name, epoch)
	case epoch < c.open.epoch && !w.leaderHas(i, h):
		w.fail("1", "%s acknowledges entry %d in e%d, but e%d is open and %s lacks it", n.name, upto, epoch, c.open.epoch, w.nodes[c.open.leader].name)
	case c.acks > 0 && i > c.last && !n.d.wal.has(c.last, c.hash):
		w.fail("2", "%s acknowledges entry %d in e%d and lacks the acknowledged entry %d", n.name, upto, epoch, c.last+1)
	}
	c.acks++
	if c.acks == 1 || i > c.last {
		c.last, c.hash = i, h
		w.checkHolders("on acknowledging")
	}
}

// leaderHas: the newest open epoch began with this, or its leader has it now.
func (w *world) leaderHas(i int, h uint64) bool {
	return w.chk.open.wal.has(i, h) || w.nodes[w.chk.open.leader].d.wal.has(i, h)
}

// checkHolders is what takeovers rest on: every acknowledged commit has been
// flushed by at least k members of sync, and the last open leader has it.
// Members that no longer exist count: nobody can take over with them.
func (w *world) checkHolders(when string) {
	c, t := &w.chk, w.st.term
	if c.acks == 0 || t == nil {
		return
	}
	holders := w.holders(t, c.last, c.hash)
	if holders < t.K && !w.doubted(t) {
		w.fail("0 (quorum)", "%s: entry %d is acknowledged, but only %d of %d members of sync have it and k is %d", when, c.last+1, holders, len(t.Sync), t.K)
	}
	l := w.nodes[w.index(t.LastOpenLeader.Name)]
	if l.d.instance == t.LastOpenLeader.Instance && !l.d.empty && !l.d.poisoned && !l.d.wal.has(c.last, c.hash) {
		w.fail("2", "%s: the last open leader %s lacks the acknowledged entry %d", when, l.name, c.last+1)
	}
}

// recordChanged looks at a new value of the record.
func (w *world) recordChanged(old, t *cluster.Term) {
	w.count(old, t)
	if t.K > len(t.Sync) || t.K < 0 {
		w.fail("H7", "k is %d with %d members of sync", t.K, len(t.Sync))
	}
	if t.Drain != nil && old != nil && (t.Epoch != old.Epoch || t.Open != old.Open) && !w.prof.anyEpoch {
		w.fail("drain", "the drain of e%d survives in e%d", t.Drain.Epoch, t.Epoch)
	}
	if t.Open && (old == nil || !old.Open || old.Epoch != t.Epoch) {
		w.opened(t)
	}
	w.checkHolders("after a change of the record")
}

func (w *world) opened(t *cluster.Term) {
	c := &w.chk
	l := w.nodes[w.index(t.Leader)]
	c.open.epoch, c.open.leader = t.Epoch, l.i
	c.open.wal = append(c.open.wal[:0], l.d.wal...)
	if c.acks > 0 && !l.d.wal.has(c.last, c.hash) {
		w.fail("2", "e%d is opened by %s, which lacks the acknowledged entry %d", t.Epoch, l.name, c.last+1)
	}
}

func (w *world) count(old, t *cluster.Term) {
	s := &w.stats
	switch {
	case old == nil:
	case t.Epoch > old.Epoch && t.Leader != old.Leader:
		s.Takeovers++
	case t.Epoch > old.Epoch:
		s.SelfSuccessions++
	case t.Open && !old.Open:
		s.Opened++
	case t.K == 0 && old.K > 0:
		s.Degradations++
	case t.K > 0 && old.K == 0:
		s.Restorations++
	case t.K > old.K:
		s.RaisedK++
	case len(t.Sync) > len(old.Sync):
		s.Widened++
	case len(t.Sync) < len(old.Sync):
		s.Narrowed++
	case len(t.Promises) > len(old.Promises):
		s.Promises++
		if _, said := t.LastWord(); said {
			s.LastWords++
		}
	case len(t.Promises) < len(old.Promises):
		s.Withdrawn++
	}
}

// discarded is called before a directory's data is thrown away (invariant 3).
func (w *world) discarded(n, from *node) {
	t := w.st.term
	if !n.d.poisoned && !n.d.empty && t.InSync(cluster.Member{Name: n.name, Instance: n.d.instance}) {
		w.fail("3", "%s throws away the directory %s that the record counts on", n.name, n.d.instance)
	}
	c := &w.chk
	if c.acks == 0 || !n.d.wal.has(c.last, c.hash) || from.d.wal.has(c.last, c.hash) {
		return
	}
	for _, m := range w.nodes[:w.data] {
		if m != n && !m.d.empty && !m.d.poisoned && m.d.wal.has(c.last, c.hash) {
			return
		}
	}
	w.fail("3", "%s throws away the only copy of the acknowledged entry %d", n.name, c.last+1)
}

// checkNames: a name is about to be waited for; its bearer must be certified
// (invariant 4).
func (w *world) checkNames(n *node, s cluster.SyncSetting) {
	for _, name := range s.Names {
		node, _, ok := cluster.ParseCertifiedName(name)
		if !ok {
			w.fail("4", "%s waits for %q", n.name, name)
			return
		}
		if !slices.Contains(n.syncFile.Names, name) {
			w.checkBearer(n, w.nodes[w.index(node)], name)
		}
	}
}

// checkCertificate: a node takes the name of an epoch. Its log must be a prefix
// of that epoch's history.
func (w *world) checkCertificate(n, leader *node, epoch uint64) {
	if leader.pg != nil && leader.pg.epoch == epoch && !n.d.wal.prefixOf(leader.d.wal) {
		w.fail("4", "%s takes the name of e%d, but its log (%d) is no prefix of that of %s (%d)", n.name, epoch, len(n.d.wal), leader.name, len(leader.d.wal))
	}
}

// checkBearer: whoever bears a name that this primary waits for has a prefix
// of its history.
func (w *world) checkBearer(n, m *node, name string) {
	if m.upstream == name && n.pg != nil && !m.d.wal.prefixOf(n.d.wal) {
		w.fail("4", "%s waits for %s, whose log (%d) is no prefix of its own (%d)", n.name, name, len(m.d.wal), len(n.d.wal))
	}
}

// checkStep is everything that must hold in every moment.
func (w *world) checkStep() {
	w.checkStrangers()
	w.checkHold()
	for _, n := range w.nodes[:w.data] {
		p := n.pg
		if p == nil || p.phase != primary {
			continue
		}
		for _, s := range p.senders {
			if s.stranger != "" || !s.listed && !slices.Contains(n.syncFile.Names, s.name) {
				continue
			}
			if s.flush > len(n.d.wal) {
				w.fail("4", "%s reports %d flushed and is waited for, the log of %s ends at %d", s.name, s.flush, n.name, len(n.d.wal))
			}
			if !s.recv.dead {
				w.checkBearer(n, w.nodes[s.node], s.name)
			}
		}
	}
}
