package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// The seed's schedule: full on Sunday, differential Tuesday and Friday,
// incremental on the other days.
var weekly = map[string]string{"full": "0 1 * * 0", "diff": "0 1 * * 2,5", "incr": "0 1 * * 1,3,4,6"}

// week is a runner with a clock that moves only when it waits.
type week struct {
	now  time.Time
	rec  Record
	made []string
	fail func(kind string) error
	r    *Runner
}

func newWeek(t *testing.T, texts map[string]string, start string) *week {
	t.Helper()
	p, err := Parse(texts)
	if err != nil {
		t.Fatal(err)
	}
	w := &week{fail: func(string) error { return nil }}
	w.now, err = time.Parse("2006-01-02 15:04", start)
	if err != nil {
		t.Fatal(err)
	}
	w.r = &Runner{Plan: p, Retry: 30 * time.Second,
		Load: func(context.Context) (Record, error) { return w.rec, nil },
		Save: func(_ context.Context, r Record) error { w.rec = r; return nil },
		Back: func(_ context.Context, tick Tick) error {
			kind := tick.Kind
			err := w.fail(kind)
			if err == nil {
				w.made = append(w.made, w.now.Format("Mon 15:04 ")+kind)
				w.now = w.now.Add(3 * time.Minute) // it takes its time
			}
			return err
		},
		Tell: func(s string, err error) { t.Error(s, err) },
		Now:  func() time.Time { return w.now },
	}
	return w
}

func (w *week) until(t *testing.T, end string) {
	t.Helper()
	stop, err := time.Parse("2006-01-02 15:04", end)
	if err != nil {
		t.Fatal(err)
	}
	for w.now.Before(stop) {
		w.now = w.now.Add(w.r.Step(t.Context()))
	}
}

func TestWeek(t *testing.T) {
	w := newWeek(t, weekly, "2026-11-21 12:00") // a Saturday
	w.until(t, "2026-11-28 12:00")
	want := []string{"Sun 01:00 full", "Mon 01:00 incr", "Tue 01:00 diff", "Wed 01:00 incr", "Thu 01:00 incr", "Fri 01:00 diff", "Sat 01:00 incr"}
	if !slices.Equal(w.made, want) {
		t.Errorf("%q", w.made)
	}
	if n := w.rec.Next; n == nil || n.Kind != "full" || n.At.Format("Mon 15:04") != "Sun 01:00" {
		t.Errorf("next %+v", n)
	}
}

// A host that was down over several times makes up for them with one backup.
func TestCatchesUpOnce(t *testing.T) {
	w := newWeek(t, weekly, "2026-11-21 12:00")
	w.until(t, "2026-11-21 13:00")
	w.now = w.now.Add(4 * 24 * time.Hour) // Wednesday: missed full, incr, diff, incr
	w.until(t, "2026-11-25 23:00")
	if want := []string{"Wed 13:00 full"}; !slices.Equal(w.made, want) {
		t.Errorf("%q", w.made)
	}
	if w = newWeek(t, weekly, "2026-11-25 12:00"); true { // a new schedule has missed nothing
		w.until(t, "2026-11-25 23:00")
	}
	if len(w.made) > 0 {
		t.Errorf("%q", w.made)
	}
}

// Without a primary it is tried until there is one; what is missing meanwhile is
// said, and no longer once it was made.
func TestRetriesUntilItCan(t *testing.T) {
	w := newWeek(t, weekly, "2026-11-21 12:00")
	tries := 0
	w.fail = func(string) error {
		if tries++; tries <= 5 {
			return fmt.Errorf("there is no primary: %w", ErrLater)
		}
		return nil
	}
	w.until(t, "2026-11-22 01:01")
	if m := w.rec.Missed; m == nil || m.Kind != "full" || m.At.Format("15:04") != "01:00" {
		t.Fatalf("missed %+v", m)
	}
	w.until(t, "2026-11-22 02:00")
	if !slices.Equal(w.made, []string{"Sun 01:02 full"}) || w.rec.Missed != nil {
		t.Errorf("%q, missed %+v", w.made, w.rec.Missed)
	}
}

// A backup that failed is not repeated before its next time, and stays said: an
// incremental does not make up for a full one.
func TestFailureStays(t *testing.T) {
	w := newWeek(t, weekly, "2026-11-21 12:00")
	w.fail = func(kind string) error {
		if kind == "full" {
			return errors.New("disk full")
		}
		return nil
	}
	w.until(t, "2026-11-23 02:00")
	if !slices.Equal(w.made, []string{"Mon 01:00 incr"}) || w.rec.Missed == nil || w.rec.Missed.Text() != "full backup of 2026-11-22 01:00Z: disk full" {
		t.Errorf("%q, missed %+v", w.made, w.rec.Missed)
	}
	w.fail = func(string) error { return nil }
	w.until(t, "2026-11-29 02:00")
	if w.rec.Missed != nil || w.made[len(w.made)-1] != "Sun 01:00 full" {
		t.Errorf("%q, missed %+v", w.made, w.rec.Missed)
	}
}

func TestClockGoesBack(t *testing.T) {
	w := newWeek(t, weekly, "2026-11-21 12:00")
	w.until(t, "2026-11-24 12:00")
	w.made, w.now = nil, w.now.Add(-48*time.Hour)
	w.until(t, "2026-11-24 02:00")
	if !slices.Equal(w.made, []string{"Mon 01:00 incr", "Tue 01:00 diff"}) {
		t.Errorf("%q", w.made)
	}
}

func TestNotCron(t *testing.T) {
	for _, s := range []string{"", "daily", "0 1 * *", "0 1 * * 0 2026", "61 1 * * *", "0 1 30 2 *", "TZ=UTC 0 1 * * *"} {
		if _, err := ParseTime(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
	if _, err := Parse(map[string]string{"weekly": "0 1 * * 0"}); err == nil {
		t.Error("an unknown kind was taken")
	}
}
