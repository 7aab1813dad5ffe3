package peer

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// links keeps one connection going to each of a set of nodes.
type links struct {
	log *slog.Logger
	// run makes one attempt and returns when it has ended; good says that it
	// had worked, so that the next attempt need not wait long.
	run func(ctx context.Context, node, addr string) (good bool, err error)

	mu     sync.Mutex
	closed bool
	byNode map[string]*link
	wg     sync.WaitGroup
}

type link struct {
	addr   string
	cancel context.CancelFunc
}

func newLinks(log *slog.Logger, run func(context.Context, string, string) (bool, error)) *links {
	return &links{log: log, run: run, byNode: map[string]*link{}}
}

// set starts and ends connections so that they are those of want.
func (l *links) set(want map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for node, k := range l.byNode {
		if want[node] != k.addr {
			k.cancel()
			delete(l.byNode, node)
		}
	}
	for node, addr := range want {
		if addr == "" || l.byNode[node] != nil {
			continue
		}
		// Detached: links live from set to set or close, not as long as the
		// context of whoever called.
		ctx, cancel := context.WithCancel(context.Background())
		l.byNode[node] = &link{addr, cancel}
		l.wg.Go(func() { l.keep(ctx, node, addr) })
	}
}

func (l *links) close() {
	l.mu.Lock()
	l.closed = true
	for _, k := range l.byNode {
		k.cancel()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *links) keep(ctx context.Context, node, addr string) {
	wait, last := minBackoff, ""
	for {
		good, err := l.run(ctx, node, addr)
		if ctx.Err() != nil {
			return
		}
		if good {
			wait, last = minBackoff, ""
		}
		// The same complaint is logged once, not twice a second.
		if msg := err.Error(); msg != last {
			l.log.Warn("peer not reached", "peer", node, "addr", addr, "err", err)
			last = msg
		}
		pause := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		wait = min(2*wait, maxBackoff)
	}
}
