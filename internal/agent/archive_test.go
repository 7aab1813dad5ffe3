package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// flakyRepo refuses the first pushes.
type flakyRepo struct {
	refuse int
	have   []string
	done   chan struct{}
}

func (r *flakyRepo) Push(_ context.Context, path string) error {
	if r.refuse > 0 {
		r.refuse--
		return errors.New("no repository host is known yet")
	}
	r.have = append(r.have, filepath.Base(path))
	if len(r.have) == 2 {
		close(r.done)
	}
	return nil
}

func (r *flakyRepo) Get(context.Context, string, string) error { return os.ErrNotExist }

// A repository that cannot be reached right after a takeover must not leave a
// hole in the archive (T11).
func TestT11_BackfillIsTriedUntilItSucceeds(t *testing.T) {
	a := newTestAgent(t)
	repo := &flakyRepo{refuse: 2, done: make(chan struct{})}
	a.repo = repo
	a.cfg.Spec.SuspectAfter = time.Millisecond
	a.wal = t.TempDir()
	// Whole segments below the fork; the one that holds it; one of the new timeline.
	for _, n := range []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003", "000000020000000000000003"} {
		if err := os.WriteFile(filepath.Join(a.wal, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	term := twoEpochs()
	term.History[1].ForkLSN = 0x3001000
	a.rec.snap.Term = term
	a.mem.leads = 2
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() { a.backfillLoop(ctx); close(ended) }()
	select {
	case <-repo.done:
	case <-ctx.Done():
		t.Fatalf("not back-filled: %v", repo.have)
	}
	cancel()
	<-ended
	if want := []string{"000000010000000000000001", "000000010000000000000002"}; !slices.Equal(repo.have, want) {
		t.Errorf("archived %v, want %v", repo.have, want)
	}
}

func (r *flakyRepo) Restore(context.Context, string, string, func(done, total int64)) error {
	return errors.New("not asked for")
}
