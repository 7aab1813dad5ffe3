package agent

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errUpstreamCut ended a fetch out of the archive.
var errUpstreamCut = errors.New("the upstream is cut")

// fetchTimeout bounds one of them.
const fetchTimeout = time.Minute

// fetches are the calls of restore_command that are under way. The zero value is
// ready.
type fetches struct {
	mu  sync.Mutex
	cut chan struct{} // closed by end
}

// begin gives a context that ends with the parent, after fetchTimeout, or with
// errUpstreamCut when the upstream is cut.
func (f *fetches) begin(parent context.Context) (context.Context, context.CancelFunc) {
	f.mu.Lock()
	if f.cut == nil {
		f.cut = make(chan struct{})
	}
	cut := f.cut
	f.mu.Unlock()
	timed, stop := context.WithTimeout(parent, fetchTimeout)
	ctx, cancel := context.WithCancelCause(timed)
	go func() {
		select {
		case <-cut:
			cancel(errUpstreamCut)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled); stop() }
}

// end ends those that have begun.
func (f *fetches) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut != nil {
		close(f.cut)
		f.cut = nil
	}
}
