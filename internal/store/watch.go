package store

import (
	"context"
	"strings"
	"sync/atomic"
	"time"
)

// watchRetry paces what is repeated after a failure.
const watchRetry = 100 * time.Millisecond

// Watch implements Store. The backend's watch is only a doorbell: what is sent
// is always a linearizable read.
func (h *herd) Watch(ctx context.Context) <-chan Snapshot {
	out := make(chan Snapshot, 1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.ctx, cancel)
	w := &watcher{h: h, out: out, rung: make(chan struct{}, 1)}
	h.wg.Go(func() {
		defer close(out)
		defer stop()
		defer cancel()
		w.run(ctx)
	})
	return out
}

type watcher struct {
	h    *herd
	out  chan Snapshot
	rung chan struct{}

	rev    atomic.Int64 // the store's at the last read
	last   Snapshot
	seen   bool
	missed int // changes in a row that the bell did not announce
}

func (w *watcher) run(ctx context.Context) {
	var hangUp context.CancelFunc = func() {}
	defer func() { hangUp() }()
	byBell := false
	for ctx.Err() == nil {
		snap, err := w.h.Read(ctx)
		wait := w.h.reread
		switch {
		case err != nil:
			wait = min(wait, watchRetry)
		default:
			// Changes that the timer found and the bell did not announce: the
			// watch is deaf (its member is cut off), so listen elsewhere. One
			// alone may have overtaken its bell.
			if byBell {
				w.missed = 0
			} else if w.seen && w.changed(snap) {
				w.missed++
			}
			w.rev.Store(snap.StoreRev)
			if !w.seen || w.missed >= 2 {
				w.missed = 0
				hangUp()
				hangUp = w.listen(ctx)
			}
			w.publish(snap)
		}
		byBell = w.wait(ctx, wait)
	}
}

// wait returns true when the bell rang.
func (w *watcher) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-w.rung:
		return true
	case <-t.C:
	}
	return false
}

func (w *watcher) changed(s Snapshot) bool {
	if s.TermRev != w.last.TermRev {
		return true
	}
	if s.Lease != nil && w.last.Lease != nil {
		return *s.Lease != *w.last.Lease
	}
	return (s.Lease == nil) != (w.last.Lease == nil)
}

// publish replaces what the reader has not taken. There is one sender, so the
// second send cannot block.
func (w *watcher) publish(s Snapshot) {
	w.last, w.seen = s, true
	w.last.Term, w.last.Requests = nil, nil // the receiver's alone
	select {
	case <-w.out:
	default:
	}
	w.out <- s
}

// listen keeps a doorbell until the returned function is called.
func (w *watcher) listen(ctx context.Context) context.CancelFunc {
	ctx, cancel := context.WithCancel(ctx)
	ring := func(key string) {
		if !w.h.isWatched(key) {
			return
		}
		select {
		case w.rung <- struct{}{}:
		default:
		}
	}
	w.h.wg.Go(func() {
		for ctx.Err() == nil {
			// From the last read on, so that nothing falls between two streams.
			if err := w.h.kv.bell(ctx, w.h.prefix, w.rev.Load()+1, ring); err != nil {
				ring(w.h.key("term"))
			}
			_ = pause(ctx, watchRetry)
		}
	})
	return cancel
}

// isWatched says whether Read reads the key.
func (h *herd) isWatched(key string) bool {
	k, ok := strings.CutPrefix(key, h.prefix)
	return ok && (k == "term" || k == "lease" || k == "pause" || strings.HasPrefix(k, "request/"))
}
