package sim

import "manada/internal/cluster"

// kind of an entry in the write-ahead log.
type kind uint8

const (
	commit     kind = iota // of a client
	control                // the control row of an epoch
	promotion              // end-of-recovery record: the first of a timeline
	probe                  // the agent's commit that must be seen waiting
	checkpoint             // of a clean shutdown: the last record
)

// entry is one record. hash covers it and everything before it on its line, so
// two logs agree up to here exactly when the hashes are equal.
type entry struct {
	hash  uint64
	id    uint32
	nonce int32 // of a control row: index into world.nonces
	epoch uint32
	tl    uint16
	kind  kind
}

type wal []entry

func (w wal) end() cluster.LSN { return cluster.LSN(len(w)) }

func (w wal) timeline() cluster.Timeline {
	if len(w) == 0 {
		return 1
	}
	return cluster.Timeline(w[len(w)-1].tl)
}

// add appends an entry and links its hash to what lies before.
func (w wal) add(e entry) wal {
	e.hash = e.after(w)
	return append(w, e)
}

// after is the hash of the entry when it stands behind a log.
func (e *entry) after(w wal) uint64 {
	h := uint64(14695981039346656037)
	if len(w) > 0 {
		h = w[len(w)-1].hash
	}
	for _, x := range [...]uint64{uint64(e.id), uint64(e.epoch)<<32 | uint64(e.tl)<<16 | uint64(e.kind), uint64(uint32(e.nonce))} {
		h = (h ^ x) * 1099511628211
		h ^= h >> 29
	}
	return h
}

// has says whether the log contains the entry that stands at index i of the
// line with that hash, and with it everything before.
func (w wal) has(i int, hash uint64) bool { return i < len(w) && w[i].hash == hash }

// prefixOf says whether the whole log is a prefix of o.
func (w wal) prefixOf(o wal) bool {
	return len(w) == 0 || o.has(len(w)-1, w[len(w)-1].hash)
}

// common is how many entries two logs share.
func (w wal) common(o wal) int {
	lo, hi := 0, min(len(w), len(o))
	for lo < hi {
		m := (lo + hi + 1) / 2
		if w[m-1].hash == o[m-1].hash {
			lo = m
		} else {
			hi = m - 1
		}
	}
	return lo
}

// received is called when a standby has written what came. Its segments were used
// before, so what stands behind the end may be whole records of long ago.
func (w *world) received(m *node) {
	m.d.behind = m.d.behind[:0]
	if !w.chance(w.prof.garbage) {
		return
	}
	i := w.rng.IntN(len(m.d.wal))
	m.d.behind = append(m.d.behind, m.d.wal[i:min(len(m.d.wal), i+1+w.rng.IntN(3))]...)
}

// readEnd is where a reader of the files finds the end: each record has to name
// the one before it.
func (w *world) readEnd(n *node) cluster.LSN {
	known := len(n.d.wal) // what has been replayed
	if n.pg != nil && n.pg.phase <= promoting {
		known = n.pg.replay
	}
	all := n.d.wal
	for i := range n.d.behind {
		e := &n.d.behind[i]
		begins := w.prof.trusting && len(all) == known // there the walk begins
		if !begins && e.hash != e.after(all) {
			break
		}
		all = append(all[:len(all):len(all)], *e)
	}
	return all.end()
}

func (w wal) clone() wal { return append(make(wal, 0, len(w)+64), w...) }
