package process

import (
	"context"
	"fmt"
	"sync"
	"time"

	"manada/internal/api"
	"manada/internal/store"
)

// eventReader is what the hub needs of the store.
type eventReader interface {
	Events(ctx context.Context, after int64, limit int) ([]store.Event, error)
	Close() error
}

const (
	maxStreams = 32   // of events, at once
	keptByHub  = 1000 // events
	hubEvery   = 500 * time.Millisecond

	reopenAfter = 20 // reads that failed
)

// eventHub streams the herd's history to everybody who asks, with one reader of
// the store for all of them. It reads what came since the last time, over
// connections of its own, and only while somebody listens.
type eventHub struct {
	open func(ctx context.Context) (eventReader, error)

	mu      sync.Mutex
	streams int
	events  []store.Event // the newest, the oldest first
	changed chan struct{} // closed when there are more
	stop    context.CancelFunc
	began   *beginning // of the reader that runs
}

// beginning is the first read of a reader; those who come meanwhile wait for it.
type beginning struct {
	done chan struct{}
	err  error
}

func newEventHub(open func(ctx context.Context) (eventReader, error)) *eventHub {
	return &eventHub{open: open, changed: make(chan struct{})}
}

// Subscribe implements api.EventSource.
func (h *eventHub) Subscribe(ctx context.Context, after uint64) (<-chan api.Event, error) {
	begin, err := h.enter(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-begin.done:
		err = begin.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		h.leave()
		return nil, err
	}
	ch := make(chan api.Event)
	go func() {
		defer close(ch)
		defer h.leave()
		h.feed(ctx, ch, int64(after))
	}()
	return ch, nil
}

// enter counts a stream; the first one starts the reader.
func (h *eventHub) enter(ctx context.Context) (*beginning, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams >= maxStreams {
		return nil, &api.Error{Message: fmt.Sprintf("%d streams of events are open on this host, which is the limit", maxStreams),
			Code: api.CodeBusy, Hint: "close one, or ask another host"}
	}
	h.streams++
	if h.stop == nil {
		// Detached: it serves those who come later too, and ends with the last.
		run, stop := context.WithCancel(context.WithoutCancel(ctx))
		h.stop, h.events, h.began = stop, nil, &beginning{done: make(chan struct{})}
		go h.read(run, h.began)
	}
	return h.began, nil
}

func (h *eventHub) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams--; h.streams == 0 && h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// feed sends the events above seen as they come. A reader that is so slow that
// some are forgotten meanwhile misses those.
func (h *eventHub) feed(ctx context.Context, ch chan<- api.Event, seen int64) {
	for {
		events, changed := h.since(seen)
		for _, v := range events {
			select {
			case ch <- api.Event{ID: uint64(v.N), Kind: v.Kind, Data: v}:
				seen = v.N
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (h *eventHub) since(n int64) ([]store.Event, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := len(h.events)
	for at > 0 && h.events[at-1].N > n {
		at--
	}
	return h.events[at:len(h.events):len(h.events)], h.changed
}

// read follows the store until ctx ends.
func (h *eventHub) read(ctx context.Context, begin *beginning) {
	r, err := h.open(ctx)
	if err == nil {
		defer func() { r.Close() }()
		err = h.more(ctx, r)
	}
	begin.err = err
	close(begin.done)
	if err != nil {
		h.giveUp(begin)
		return
	}
	tick := time.NewTicker(hubEvery)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if h.more(ctx, r) == nil {
			failures = 0
			continue
		}
		// The store is away; after a while its members may be others.
		if failures++; failures < reopenAfter {
			continue
		}
		if other, err := h.open(ctx); err == nil {
			r.Close()
			r, failures = other, 0
		}
	}
}

// giveUp lets the next stream begin anew.
func (h *eventHub) giveUp(begin *beginning) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.began == begin && h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// more reads what came since the last event.
func (h *eventHub) more(ctx context.Context, r eventReader) error {
	h.mu.Lock()
	last := int64(0)
	if n := len(h.events); n > 0 {
		last = h.events[n-1].N
	}
	h.mu.Unlock()
	events, err := r.Events(ctx, last, 0)
	if err != nil || len(events) == 0 {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err() // another reader may have begun
	}
	all := append(h.events[:len(h.events):len(h.events)], events...)
	h.events = all[max(0, len(all)-keptByHub):]
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}
