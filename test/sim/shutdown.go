package sim

import (
	"manada/internal/cluster"
)

// shutDown stops a host in order, as SIGTERM of its supervisor does: a leader
// hands over, or leaves its last word when nobody else has its commits; a
// standby leaves sync. What has not come about in time does not hold it up.
func (w *world) shutDown(n *node, d int64) {
	if n.leaveBy == 0 && n.hostUp {
		n.leaveBy, n.downFor, n.ending = w.now+70*tick, d, false
	}
}

func (w *world) shutdowns() {
	for _, n := range w.nodes[:w.data] {
		if n.leaveBy != 0 && n.runs(w.now) {
			w.leave(n)
		}
		if !n.hostUp {
			n.leaveBy, n.ending = 0, false
		}
	}
}

func (w *world) leave(n *node) {
	if n.a != nil && n.a.have && !n.ending {
		n.ending = w.gaveUp(n)
	}
	if n.ending = n.ending || w.now >= n.leaveBy; !n.ending {
		return
	}
	if n.pg == nil || w.now > n.leaveBy+40*tick {
		w.crashHost(n, n.downFor) // after a clean stop: the disk says so
		return
	}
	w.stopFast(n, "")
}

// gaveUp says whether the host's duties are taken over.
func (w *world) gaveUp(n *node) bool {
	a := n.a
	t := a.term
	switch {
	case t == nil:
		return true
	case t.Leader != n.name:
		return !inSync(t, n.name)
	case !t.Open:
		return false
	case len(t.Sync) > 0:
		if w.st.request == nil && !a.asked && w.reaches(n) {
			a.asked = true
			w.request(0)
		}
		return false
	}
	if !a.leaving && a.busy == "" {
		a.leaving = true
		w.stopFast(n, "")
	}
	p, said := t.LastWord()
	return said && p.Node == n.name
}

// opArchive: all WAL of a stopped leader goes into the archive.
func (w *world) opArchive(n *node, o *operation) (bool, bool) {
	if o.phase == 0 {
		o.phase, o.due = 1, w.now+int64(1+w.rng.IntN(6))*tick
		if !w.healing && w.chance(100) {
			return true, false // the repository does not answer
		}
	}
	if w.now < o.due {
		return false, false
	}
	w.archive[n.d.wal.timeline()] = n.d.wal.clone()
	n.a.mem.archived = o.act.LSN
	return true, true
}

// opFetch: a standby that receives nothing gets WAL out of the archive, and
// replays it.
func (w *world) opFetch(n *node, o *operation) (bool, bool) {
	src := w.archive[n.d.wal.timeline()]
	switch {
	case n.pg == nil || n.pg.phase != standby || n.pg.recv != nil || src.end() < o.act.LSN:
		return true, false
	case o.phase == 0:
		if !n.d.wal.prefixOf(src) {
			w.fail("fetch", "%s adds to a log that is no prefix of the archive's", n.name)
		}
		n.a.mem.final = false
		n.d.wal, n.d.behind = src[:o.act.LSN].clone(), nil
		w.stats.Fetched++
		o.phase = 1
	}
	return n.pg.replay >= int(o.act.LSN), true
}

// inherits says whether a node could lead by the last word in the record.
func (w *world) inherits(t *cluster.Term, n *node) bool {
	p, said := t.LastWord()
	if !said || n.name == p.Node || n.d.empty || n.d.poisoned {
		return false
	}
	src := w.archive[n.d.wal.timeline()]
	e, _ := t.WALEpoch(n.d.wal.timeline(), n.d.wal.end())
	return e == p.WALEpoch && src.end() >= p.LSN && n.d.wal.prefixOf(src) && n.d.remade == 0
}
