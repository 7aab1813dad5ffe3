package guardian

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"manada/internal/cluster"
)

// beats speaks to the peers in the agent's place, always; the peers tell the
// two apart by From.
type beats struct {
	send Beater
	k    *keeper

	mu     sync.Mutex
	cfg    BeatConfig
	cancel context.CancelFunc
	done   chan struct{}
	seq    uint64
}

func newBeats(cfg Config, k *keeper) *beats { return &beats{send: cfg.Beater, k: k} }

// set takes a new template at once; the sender is restarted only when it has
// to talk to others, as others, or at another pace.
func (b *beats) set(c BeatConfig) error {
	if b.send == nil {
		return errors.New("set beats: this guardian was built without a sender of beats")
	}
	if c.IntervalMS <= 0 {
		c.IntervalMS = 250
	}
	b.mu.Lock()
	same := b.cancel != nil && slices.Equal(b.cfg.Peers, c.Peers) && b.cfg.IdentityDir == c.IdentityDir && b.cfg.IntervalMS == c.IntervalMS
	b.cfg = c
	b.mu.Unlock()
	if same {
		return nil
	}
	b.stop()
	if len(c.Peers) == 0 {
		return nil
	}
	// detached: it lives until stop, for the guardian's own life, not a request's.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	b.mu.Lock()
	b.cancel, b.done = cancel, done
	b.mu.Unlock()
	ch := make(chan cluster.Beat, 1)
	go b.send(ctx, c, ch)
	go b.tick(ctx, time.Duration(c.IntervalMS)*time.Millisecond, ch, done)
	return nil
}

func (b *beats) stop() {
	b.mu.Lock()
	cancel, done := b.cancel, b.done
	b.cancel = nil
	b.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

func (b *beats) tick(ctx context.Context, every time.Duration, ch chan<- cluster.Beat, done chan<- struct{}) {
	defer close(done)
	t := time.NewTicker(every)
	defer t.Stop()
	changes, unsubscribe := b.k.subscribe()
	defer unsubscribe()
	for {
		select {
		case ch <- b.next():
		default: // the sender is behind; the next one says the same
		}
		select {
		case <-t.C:
		case <-changes: // a dead postmaster is told at once
		case <-ctx.Done():
			return
		}
	}
}

// next is the template, corrected by what the guardian itself knows.
func (b *beats) next() cluster.Beat {
	st := b.k.status()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	m := b.cfg.Template
	m.Schema, m.From, m.Boot, m.Seq = 1, "guardian", st.Boot, b.seq
	switch {
	case !st.Running && st.TreeEmpty:
		m.Postgres = cluster.PostgresDown
	case !st.Running:
		m.Postgres = cluster.PostgresDying
	case st.Stopped:
		m.Postgres = cluster.PostgresHung
	case !m.Postgres.Up():
		m.Postgres = cluster.PostgresStarting
	}
	if !st.Running {
		if m.Leads != 0 && m.CannotCommit == "" {
			m.CannotCommit = "the postmaster is dead (" + st.Exit + ")"
		}
		m.Streaming = false
	}
	return m
}
