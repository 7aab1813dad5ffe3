package store

import (
	"testing"
	"time"
)

// TestPraiseOfBefore: the answer to a question that was asked before a member was
// found too slow does not make it the first again; one to a later question does.
func TestPraiseOfBefore(t *testing.T) {
	e := &endpoint{}
	before := time.Now()
	e.praise(before)
	if e.bad() {
		t.Fatal("bad without a fault")
	}
	e.blame()
	e.praise(before)
	if !e.bad() {
		t.Error("an answer from before the fault has hidden it")
	}
	time.Sleep(time.Microsecond) // the clock's step
	e.praise(time.Now())
	if e.bad() {
		t.Error("bad although it has answered since")
	}
}
