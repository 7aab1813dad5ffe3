package loop

import (
	"math/bits"
	"time"
)

// wheel wakes slots up: a ring of buckets, one for each tick, of which the bits
// of full say where there is anything. An entry further away than a turn stays in
// its bucket until its turn has come. Nothing is ever taken out before: whoever is
// woken looks whether there is still something to do.
type wheel struct {
	buckets [turn][]entry
	full    [turn / 64]uint64
	at      int64 // the tick that was looked at last
	count   int
}

type entry struct {
	slot, gen uint32
	socket    bool // else a client
	due       int64
}

const (
	tick = int64(16 * time.Millisecond)
	turn = 512
)

// add wakes a slot up when due, in nanoseconds, has passed.
func (w *wheel) add(e entry) {
	t := max(e.due/tick, w.at) + 1
	i := t % turn
	w.buckets[i] = append(w.buckets[i], e)
	w.full[i/64] |= 1 << (i % 64)
	w.count++
}

// wait is how long nothing has to be done; below 0: for ever.
func (w *wheel) wait(now int64) time.Duration {
	if w.count == 0 {
		return -1
	}
	from := (w.at + 1) % turn
	for n := int64(0); n <= turn; {
		i := (from + n) % turn
		word := w.full[i/64] >> (i % 64)
		if word != 0 {
			n += int64(bits.TrailingZeros64(word))
			return max(0, time.Duration((w.at+1+n)*tick-now))
		}
		n += 64 - i%64
	}
	return 0
}

// advance calls wake for all that is due.
func (w *wheel) advance(now int64, wake func(entry)) {
	last := now / tick
	if w.count == 0 {
		w.at = max(w.at, last)
	}
	w.at = max(w.at, last-turn) // a whole turn looks at every bucket
	for w.at < last {
		w.at++
		i := w.at % turn
		if w.full[i/64]&(1<<(i%64)) == 0 {
			continue
		}
		w.full[i/64] &^= 1 << (i % 64)
		bucket := w.buckets[i]
		w.buckets[i] = nil
		for _, e := range bucket {
			w.count--
			if e.due > now {
				w.add(e)
				continue
			}
			wake(e)
		}
		if w.buckets[i] == nil {
			w.buckets[i] = bucket[:0]
		}
	}
}
