package agent

import (
	"time"

	"manada/internal/cluster"
)

// A standby answers at least once in wal_receiver_status_interval, a second. One
// of whom nothing was heard for this long may be cut off.
const answersWithin = 1500 * time.Millisecond

// answered is the last sign of life of the standby behind a walsender.
type answered struct {
	pid   int
	flush cluster.LSN
	reply time.Time // by the standby's clock: only compared with itself
	at    time.Time // by ours
}

// answers says whether the standby behind a walsender is still there: it
// flushes, replies or beats. When a host's network goes, its walsender stays
// for wal_sender_timeout, in which nobody's commit would be acknowledged.
// Called with mu held.
func (a *Agent) answers(node string, w cluster.Sender, reply, now time.Time) bool {
	last := a.mem.answered[node]
	// The time of a reply is found by subtraction, so it is never quite the same.
	if last.pid != w.PID || last.flush != w.Flush || reply.Sub(last.reply) > answersWithin/3 {
		last = answered{pid: w.PID, flush: w.Flush, reply: reply, at: now}
	}
	if a.hub != nil {
		last.at = later(last.at, later(a.hub.Heard()[node].At, a.hub.HeardGuardian()[node].At))
	}
	a.mem.answered[node] = last
	return now.Sub(last.at) < answersWithin
}
