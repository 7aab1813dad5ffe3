package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrLater is what Runner.Back wraps when the backup could not even begin, or was
// lost with the primary: it is tried again soon.
var ErrLater = errors.New("later")

// Record is what was done. It is kept over restarts.
type Record struct {
	Schema int                  `json:"schema"` // 1
	Done   map[string]time.Time `json:"done"`   // by kind: the last time that needs no backup any more
	Next   *Tick                `json:"next"`
	Missed *Missed              `json:"missed"` // nil: the last one was made in time
}

// Missed is a scheduled backup that was not made, or not yet.
type Missed struct {
	Tick
	Why string `json:"why"`
}

// Runner follows a plan.
type Runner struct {
	Plan Plan
	// Load and Save keep the record; a record that was never kept is zero.
	Load func(context.Context) (Record, error)
	Save func(context.Context, Record) error
	// Back makes the backup and returns when it is there, at once when one that
	// covers it has been made since its time.
	Back func(ctx context.Context, t Tick) error
	// Tell hears of errors of the runner's own.
	Tell func(string, error)

	Now   func() time.Time
	Wait  func(ctx context.Context, d time.Duration)
	Retry time.Duration // between attempts; 0 means 30 s
}

// Run follows the plan until ctx ends.
func (r *Runner) Run(ctx context.Context) {
	if r.Retry <= 0 {
		r.Retry = 30 * time.Second
	}
	if len(r.Plan) == 0 {
		r.forget(ctx)
		return
	}
	for ctx.Err() == nil {
		r.Wait(ctx, r.Step(ctx))
	}
}

// Step makes what is due and says how long there is nothing to do.
func (r *Runner) Step(ctx context.Context) time.Duration {
	rec, err := r.Load(ctx)
	if err != nil {
		r.Tell("the record of the schedule cannot be read", err)
		return r.Retry
	}
	now := r.Now()
	changed := rec.begin(r.Plan, now)
	due := r.Plan.Due(rec.Done, now)
	if due == nil {
		next := r.Plan.Next(now)
		if changed || next != nil && (rec.Next == nil || *rec.Next != *next) {
			rec.Next = next
			r.save(ctx, rec)
		}
		return r.until(next, now)
	}
	err = r.Back(ctx, *due)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		if rec.Missed == nil || Covers(due.Kind, rec.Missed.Kind) { // what stands for more stays said
			rec.Missed = &Missed{*due, err.Error()}
		}
	}
	if errors.Is(err, ErrLater) {
		r.save(ctx, rec)
		return r.Retry
	}
	rec.finish(r.Plan, *due, now)
	if err == nil && rec.Missed != nil && Covers(due.Kind, rec.Missed.Kind) {
		rec.Missed = nil
	}
	rec.Next = r.Plan.Next(r.Now())
	r.save(ctx, rec)
	return r.until(rec.Next, r.Now())
}

// until is the time to the next tick. It is short, as clocks are set and hosts
// sleep.
func (r *Runner) until(next *Tick, now time.Time) time.Duration {
	if next == nil {
		return r.Retry
	}
	return min(max(next.At.Sub(now), 10*time.Millisecond), r.Retry)
}

func (r *Runner) save(ctx context.Context, rec Record) {
	rec.Schema = 1
	if err := r.Save(ctx, rec); err != nil {
		r.Tell("the record of the schedule cannot be kept", err)
	}
}

// forget removes what a plan that is gone has left to be shown.
func (r *Runner) forget(ctx context.Context) {
	rec, err := r.Load(ctx)
	if err == nil && rec.Schema != 0 && (rec.Next != nil || rec.Missed != nil || len(rec.Done) > 0) {
		r.save(ctx, Record{})
	}
}

// begin counts from now what the record does not know, and forgets what is not
// planned any more.
func (rec *Record) begin(p Plan, now time.Time) (changed bool) {
	if rec.Done == nil {
		rec.Done = map[string]time.Time{}
	}
	for kind := range rec.Done {
		if p[kind] == nil {
			delete(rec.Done, kind)
			changed = true
		}
	}
	for kind := range p {
		if rec.Done[kind].IsZero() || rec.Done[kind].After(now) { // new, or the clock went back
			rec.Done[kind] = now
			changed = true
		}
	}
	return changed
}

// finish: a backup was made at its time; what it stands for and was due by then
// needs none.
func (rec *Record) finish(p Plan, t Tick, now time.Time) {
	for kind := range p {
		if Covers(t.Kind, kind) {
			rec.Done[kind] = now
		}
	}
}

// Text says what was missed.
func (m *Missed) Text() string {
	return fmt.Sprintf("%s backup of %s: %s", m.Kind, m.At.UTC().Format("2006-01-02 15:04Z"), m.Why)
}
