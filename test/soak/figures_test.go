package soak

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// figures are what was measured over all events, against what is promised.
type figures struct {
	holds    []time.Duration // of switchovers: longest without an acknowledgement
	crashes  int
	errors   map[string]int // that clients saw, by event
	open     map[string]int // those of them that ended a transaction with 40001, its session living
	idleLost int            // sessions that a crash ended while they asked for nothing
}

// add counts an event and gives those of its errors that no client may see.
func (f *figures) add(event string, held time.Duration, errs map[string]int, idleLost int) (bad []string) {
	if f.errors == nil {
		f.errors, f.open = map[string]int{}, map[string]int{}
	}
	if event == "switchover" {
		f.holds = append(f.holds, held)
	} else {
		f.crashes++
		f.idleLost += idleLost
	}
	for e, n := range errs {
		f.errors[event] += n
		if rolledBack(e) {
			f.open[event] += n
		}
		if *mode != "session" && unpromised(event, e) {
			bad = append(bad, fmt.Sprintf("%d times %s", n, e))
		}
	}
	slices.Sort(bad)
	return bad
}

// unpromised says whether no client may see an error when sessions outlive their
// servers. A transaction that is open at the end of a hold gets 40001, and only long
// ones are; at a primary that died, whatever was under way gets that or 08007.
func unpromised(event, e string) bool {
	switch {
	case rolledBack(e):
		return event == "switchover" && *longest == 0
	case event == "crash":
		return !strings.HasSuffix(e, " 08007") && !strings.HasSuffix(e, " 40001")
	}
	return true
}

// rolledBack says whether an error is that of an explicit transaction, at any of its
// statements, that was open and is not.
func rolledBack(e string) bool {
	return strings.HasPrefix(e, "explicit ") && strings.HasSuffix(e, " 40001")
}

// newSince are the errors that came after a moment.
func newSince(before, after map[string]int) map[string]int {
	out := map[string]int{}
	for e, n := range after {
		if n > before[e] {
			out[e] = n - before[e]
		}
	}
	return out
}

func report(t *testing.T, l *ledger, f *figures) {
	t.Helper()
	t.Logf("%s", l)
	for _, r := range l.refusal {
		t.Logf("  e.g. %s", r)
	}
	if n := len(f.holds); n > 0 {
		slices.Sort(f.holds)
		half, most := f.holds[n/2], f.holds[n-1]
		t.Logf("%d switchovers under %d connections: errors %d, and %d transactions that were open at the end of a hold (40001); hold p50 %s, max %s",
			n, *clients, f.errors["switchover"]-f.open["switchover"], f.open["switchover"], half.Round(time.Millisecond), most.Round(time.Millisecond))
		within(t, "half of the switchovers hold", half, *halfHold)
		within(t, "a switchover holds", most, *hold)
	}
	if f.crashes > 0 {
		t.Logf("%d crashes: errors %d, %d of them open transactions (40001); idle sessions lost %d", f.crashes, f.errors["crash"], f.open["crash"], f.idleLost)
	}
	if *mode != "session" && f.idleLost > 0 {
		t.Errorf("%d idle sessions were lost", f.idleLost)
	}
	for k, n := range l.errs {
		if k == "reader select cut" && n <= f.crashes {
			continue // a crash in the middle of its long row, where no message can stand
		}
		if (strings.HasSuffix(k, " cut") || strings.HasSuffix(k, " lost")) && !strings.HasPrefix(k, "copy copy ") {
			t.Errorf("%d times %s: a client was not told", n, k)
		}
	}
	for _, w := range l.wrong {
		t.Error(w)
	}
}

func within(t *testing.T, what string, d, most time.Duration) {
	t.Helper()
	if most > 0 && d > most {
		t.Errorf("%s everybody for %s, %s is promised", what, d.Round(time.Millisecond), most)
	}
}
