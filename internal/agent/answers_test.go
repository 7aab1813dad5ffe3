package agent

import (
	"testing"
	"time"

	"manada/internal/cluster"
)

// A host that is unplugged leaves its walsender behind; the commits that wait for
// it must not wait until PostgreSQL notices.
func TestWalsenderOfAHostThatIsCutOff(t *testing.T) {
	a := newTestAgent(t)
	now := time.Now()
	w := cluster.Sender{Name: "slave@e2", PID: 7, Flush: 0x100}
	reply := now.Add(time.Hour) // clocks differ
	see := func(after time.Duration) bool { return a.answers("slave", w, reply, now.Add(after)) }
	if !see(0) || !see(answersWithin-time.Millisecond) {
		t.Fatal("a standby that has just answered is not there")
	}
	if see(answersWithin) || see(4*time.Second) {
		t.Fatal("a walsender whose standby says nothing counts")
	}
	reply = reply.Add(time.Second) // it replies, idle
	if !see(4*time.Second) || see(4*time.Second+answersWithin) {
		t.Fatal("a reply does not count, or for too long")
	}
	reply = reply.Add(20 * time.Millisecond) // the same one, measured again
	if see(7 * time.Second) {
		t.Fatal("the same reply counted twice")
	}
	w.Flush++ // its clock stands still, but it flushes
	if !see(8 * time.Second) {
		t.Fatal("a flush does not count")
	}
	w.PID++
	if !see(20 * time.Second) {
		t.Fatal("a new walsender does not count")
	}
}
