package sim

import (
	"slices"

	"manada/internal/cluster"
)

// stepSender sends, hears the reply and releases; false when it ends.
func (w *world) stepSender(n *node, s *sender) bool {
	if s.reloadAt != 0 && s.reloadAt <= w.now {
		s.reloadAt = 0
		s.conf = n.syncFile
		s.listed = slices.Contains(s.conf.Names, s.name)
	}
	if s.stranger != "" {
		return w.stepStranger(n, s)
	}
	m, r := w.nodes[s.node], s.recv
	there, back := !w.cut[n.i][s.node], !w.cut[s.node][n.i]
	if r.dead && there && back && m.hostUp && w.chance(w.prof.reset) {
		return false // the next retransmission is answered with a reset
	}
	if w.now-s.lastReply > walTimeout {
		if there {
			r.dead = true // it gets the end of the stream
		}
		return false
	}
	if r.dead || !m.answers(w.now) {
		return true
	}
	if there {
		r.lastMsg = w.now
		w.stream(n, m, r)
	}
	if back && w.chance(w.prof.reply) {
		s.lastReply = w.now
		s.flush = max(s.flush, r.flushed)
		w.release(n, s)
	}
	return true
}

// stream moves WAL. A standby whose log differs at the position cannot go on:
// "new timeline forked off before current recovery point".
func (w *world) stream(n, m *node, r *receiver) {
	for range 1 + w.rng.IntN(6) {
		if r.pos >= len(n.d.wal) {
			return
		}
		e := n.d.wal[r.pos]
		switch {
		case r.pos < len(m.d.wal) && m.d.wal[r.pos].hash != e.hash:
			if w.chance(300) {
				r.dead = true
			}
			return
		case r.pos == len(m.d.wal):
			if r.pos > 0 && !n.d.wal.has(r.pos-1, m.d.wal[r.pos-1].hash) {
				return // reported past its fork; nothing can be appended
			}
			m.d.wal = append(m.d.wal, e)
			w.received(m)
			m.d.maxTimeline = max(m.d.maxTimeline, cluster.Timeline(e.tl))
		case r.pos > len(m.d.wal):
			return
		}
		r.pos++
		r.flushed = max(r.flushed, r.pos)
	}
}

// release is SyncRepReleaseWaiters as one walsender runs it: with its own copy
// of the setting, over the slots that say that they are listed.
func (w *world) release(n *node, s *sender) {
	if !s.listed || s.conf.Alone || len(s.conf.Names) == 0 {
		return
	}
	pos := n.pg.quorum(s.conf.K, true)
	if pos > n.pg.quorum(s.conf.K, false) {
		n.falseUpto = max(n.falseUpto, pos)
	}
	if pos > n.pg.released {
		n.pg.released = pos
		w.wake(n, pos)
	}
}

// quorum is how far k of the listed walsenders have flushed, 0 when there are
// not so many.
func (p *postgres) quorum(k int, strangers bool) int {
	var flushes [16]int
	n := 0
	for _, o := range p.senders {
		if o.listed && o.flush > 0 && n < len(flushes) && (strangers || o.stranger == "") {
			flushes[n] = o.flush
			n++
		}
	}
	if n < k {
		return 0
	}
	slices.Sort(flushes[:n])
	return flushes[n-k]
}
