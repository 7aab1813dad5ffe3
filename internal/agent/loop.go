package agent

import (
	"context"
	"errors"
	"time"

	"manada/internal/decide"
	"manada/internal/store"
)

// stepsInARow bounds how many quick actions follow each other without a look
// at what came in meanwhile.
const stepsInARow = 25

// loop observes, decides and acts until ctx ends.
func (a *Agent) loop(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Beat)
	defer tick.Stop()
	for ctx.Err() == nil {
		a.turned.Store(time.Now().UnixNano())
		for range stepsInARow {
			if !a.step(ctx) || ctx.Err() != nil {
				break
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-a.wake:
		case <-a.hub.Changed():
		}
	}
}

// LoopAge is how long ago the loop last turned.
func (a *Agent) LoopAge() time.Duration { return time.Since(time.Unix(0, a.turned.Load())) }

// step makes one decision and carries it out; false when there was nothing to
// do or it failed, so that the next one waits for news.
func (a *Agent) step(ctx context.Context) bool {
	v := a.view()
	d := decide.Decide(v)
	a.note(d)
	a.publish(v, d)
	a.setRenew(d.Renew)
	for _, act := range d.Actions {
		if err := a.act(ctx, v, act); err != nil {
			a.actFailed(ctx, act, d, err)
			return false
		}
	}
	return len(d.Actions) > 0
}

// actFailed logs a failed action once per change and looks at the store again
// when it was the store's answer that failed.
func (a *Agent) actFailed(ctx context.Context, act decide.Action, d decide.Decision, err error) {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return
	}
	text := act.String() + ": " + err.Error()
	if a.lastFailure != text {
		a.lastFailure = text
		a.log.Warn("action failed", "action", act.String(), "reason", d.Reason, "error", err.Error())
	}
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrUnknown) {
		a.readStore(ctx)
	}
}

// note logs a decision when it differs from the last one.
func (a *Agent) note(d decide.Decision) {
	key := d.Rule + d.Reason
	if key == a.lastReason {
		return
	}
	a.lastReason = key
	attrs := []any{"rule", d.Rule}
	if len(d.Actions) > 0 {
		attrs = append(attrs, "action", d.Actions[0].String())
	}
	a.log.Info(d.Reason, attrs...)
	a.remember(d)
}

// poke makes the loop look again now.
func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}
