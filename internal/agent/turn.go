package agent

import (
	"context"
	"time"
)

// turn is the right to operate on this node's data directory. One operation has
// it, from before it begins until the pause after its failure is over, and only
// that one gives it back.
type turn struct {
	a    *Agent
	what string // for people; guarded by Agent.mu
}

// takeTurn is nil while somebody else has it.
func (a *Agent) takeTurn(what string) *turn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.holder != nil {
		return nil
	}
	a.holder = &turn{a, what}
	return a.holder
}

// awaitTurn waits for it; nil when ctx ends before.
func (a *Agent) awaitTurn(ctx context.Context, what string) *turn {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if t := a.takeTurn(what); t != nil {
			return t
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// say changes what is told of the operation; nothing once it is over.
func (t *turn) say(what string) {
	if t == nil {
		return
	}
	t.a.mu.Lock()
	t.what = what
	t.a.mu.Unlock()
}

func (t *turn) giveBack() {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	if t.a.holder == t {
		t.a.holder = nil
	}
}

// busy says what operates on the data directory, "" when nothing does. Called
// with mu held.
func (a *Agent) busy() string {
	if a.holder == nil {
		return ""
	}
	return a.holder.what
}
