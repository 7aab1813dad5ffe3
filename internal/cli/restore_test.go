package cli

import (
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/process"
)

func TestTargets(t *testing.T) {
	zone := time.Local
	time.Local = time.FixedZone("", 3600)
	defer func() { time.Local = zone }()
	for _, c := range []struct {
		in           targetFlags
		kind, target string
		err          string
	}{
		{in: targetFlags{}, kind: "default"},
		{in: targetFlags{kind: "immediate"}, kind: "immediate"},
		{in: targetFlags{time: "2026-11-22 14:30:00"}, kind: "time", target: "2026-11-22 13:30:00+00"}, // this terminal's zone
		{in: targetFlags{kind: "time", target: "2026-11-22 14:30:00.25+05"}, kind: "time", target: "2026-11-22 09:30:00.25+00"},
		{in: targetFlags{kind: "lsn", target: "0/16B3740", exclusive: true}, kind: "lsn", target: "0/16B3740"},
		{in: targetFlags{name: "before"}, kind: "name", target: "before"},
		{in: targetFlags{xid: "700"}, kind: "xid", target: "700"},
		{in: targetFlags{time: "yesterday"}, err: "no time"},
		{in: targetFlags{xid: "x"}, err: "no transaction id"},
		{in: targetFlags{lsn: "x"}, err: "no WAL position"},
		{in: targetFlags{target: "2026-11-22"}, err: "without a type"},
		{in: targetFlags{kind: "time"}, err: "target is missing"},
		{in: targetFlags{kind: "standby"}, err: "unknown type"},
		{in: targetFlags{time: "2026-11-22", xid: "7"}, err: "--target-xid beside"},
		{in: targetFlags{exclusive: true}, err: "without a target"},
		{in: targetFlags{name: strings.Repeat("x", 64)}, err: "64 characters"},
	} {
		kind, target, err := c.in.resolve()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v, want %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || kind != c.kind || target != c.target {
			t.Errorf("%+v: %s %q, %v; want %s %q", c.in, kind, target, err, c.kind, c.target)
		}
	}
}

func TestSameWish(t *testing.T) {
	o := &cluster.Restore{ID: "r1", Type: "time", Target: "x", Timeline: 3, Set: "F1"}
	q := process.PlanRequest{Type: "time", Target: "x"}
	if !sameWish(q, o) {
		t.Error("what was left to the plan makes it another wish")
	}
	for _, other := range []process.PlanRequest{{Type: "default"}, {Type: "time", Target: "y"}, {Type: "time", Target: "x", Set: "F2"},
		{Type: "time", Target: "x", Timeline: 2}, {Type: "time", Target: "x", KeepOld: true}, {Type: "time", Target: "x", Exclusive: true}} {
		if sameWish(other, o) {
			t.Errorf("%+v is taken for %+v", other, o)
		}
	}
}
