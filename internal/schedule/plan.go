package schedule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Kinds of backups, the one that stands for the others first.
var Kinds = []string{"full", "diff", "incr"}

// Plan is when each kind of backup is due.
type Plan map[string]cron.Schedule

var fields = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// ParseTime reads the five fields of cron: minute, hour, day of the month, month,
// day of the week.
func ParseTime(text string) (cron.Schedule, error) {
	if n := len(strings.Fields(text)); n != 5 || strings.Contains(text, "=") {
		return nil, fmt.Errorf("%q has %d fields, not five", text, n)
	}
	s, err := fields.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no time of cron: %w", text, err)
	}
	if s.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("%q never comes", text)
	}
	return s, nil
}

// Parse makes a plan of cron texts by kind.
func Parse(texts map[string]string) (Plan, error) {
	p := Plan{}
	for kind, text := range texts {
		if !slices.Contains(Kinds, kind) {
			return nil, fmt.Errorf("%q is no kind of backup", kind)
		}
		s, err := ParseTime(text)
		if err != nil {
			return nil, err
		}
		p[kind] = s
	}
	return p, nil
}

// Tick is a backup that is due at a time.
type Tick struct {
	Kind string    `json:"type"`
	At   time.Time `json:"at"`
}

// Due is the backup to be made now, nil when none is: of several the kind that
// stands for the others, of one kind the last time that has come.
func (p Plan) Due(done map[string]time.Time, now time.Time) *Tick {
	for _, kind := range Kinds {
		s, ok := p[kind]
		if !ok {
			continue
		}
		var at time.Time
		for t := s.Next(done[kind].In(now.Location())); !t.IsZero() && !t.After(now); t = s.Next(t) {
			at = t
			if now.Sub(t) > 400*24*time.Hour { // whoever was away for years: what is older does not count
				t = now.Add(-400 * 24 * time.Hour)
			}
		}
		if !at.IsZero() {
			return &Tick{kind, at}
		}
	}
	return nil
}

// Next is the first backup after a time, nil without a plan.
func (p Plan) Next(after time.Time) *Tick {
	var next *Tick
	for _, kind := range Kinds {
		if s, ok := p[kind]; ok {
			if t := s.Next(after); !t.IsZero() && (next == nil || t.Before(next.At)) {
				next = &Tick{kind, t}
			}
		}
	}
	return next
}

// Covers says whether a backup of one kind makes one of another needless.
func Covers(made, wanted string) bool {
	return slices.Index(Kinds, made) <= slices.Index(Kinds, wanted)
}
