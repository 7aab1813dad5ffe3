package route

import (
	"slices"
	"sync/atomic"
	"time"
)

// Limits say which standbys are fresh enough to read from.
type Limits struct {
	LagBytes int64         // 0: any
	Lag      time.Duration // 0: any
}

// Usable says whether reads may be sent to a standby. A lag that is not known
// does not disqualify one that streams.
func (l Limits) Usable(s Standby) bool {
	return s.Streaming &&
		(l.LagBytes == 0 || s.LagBytes <= l.LagBytes) &&
		(l.Lag == 0 || s.LagMS <= l.Lag.Milliseconds())
}

// Reader picks standbys for read-only sessions in turn. The zero value has no
// limits; it is safe for concurrent use.
type Reader struct {
	Limits Limits
	turn   atomic.Uint64
}

// Usable lists the standbys that reads may be sent to.
func (r *Reader) Usable(v View) []Standby {
	return slices.DeleteFunc(slices.Clone(v.Standbys), func(s Standby) bool { return !r.Limits.Usable(s) })
}

// Pick returns the next usable standby that is not among the skipped names.
func (r *Reader) Pick(v View, skip map[string]bool) (Standby, bool) {
	usable := slices.DeleteFunc(r.Usable(v), func(s Standby) bool { return skip[s.Name] })
	if len(usable) == 0 {
		return Standby{}, false
	}
	return usable[(r.turn.Add(1)-1)%uint64(len(usable))], true
}
