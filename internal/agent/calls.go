package agent

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Why a call of archive_command or restore_command was ended.
var (
	errUpstreamCut = errors.New("the upstream is cut")
	errHandingOver = errors.New("this node hands its epoch over; whoever leads next archives what is missing")
)

// callTimeout bounds one of them.
const callTimeout = time.Minute

// calls are those of one of PostgreSQL's commands that are under way. The zero
// value is ready.
type calls struct {
	mu    sync.Mutex
	under map[*context.CancelCauseFunc]struct{}
}

// begin gives a context that ends with the parent, after callTimeout, or by end.
func (c *calls) begin(parent context.Context) (context.Context, context.CancelFunc) {
	timed, stop := context.WithTimeout(parent, callTimeout)
	ctx, cancel := context.WithCancelCause(timed)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.under == nil {
		c.under = map[*context.CancelCauseFunc]struct{}{}
	}
	c.under[&cancel] = struct{}{}
	return ctx, func() {
		c.mu.Lock()
		delete(c.under, &cancel)
		c.mu.Unlock()
		cancel(context.Canceled)
		stop()
	}
}

// end ends those that have begun.
func (c *calls) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cancel := range c.under {
		(*cancel)(why)
	}
}
