package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
)

// flakyRepo refuses the first pushes.
type flakyRepo struct {
	refuse int
	have   []string
	done   chan struct{}
	none   string // why nothing is archived
}

func (r *flakyRepo) Nowhere() string { return r.none }

// Where nothing is archived PostgreSQL's archive_command succeeds, so that no WAL
// piles up, and no commit counts as safe in the archive; where there should be a
// repository it fails.
func TestNothingIsKeptForNobody(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	repo := &flakyRepo{refuse: 100}
	a.repo = repo
	a.rec.snap.Term = twoEpochs()
	a.mem.leads = 2
	push := func() int {
		w := httptest.NewRecorder()
		a.servePush(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/archive-push", strings.NewReader(`{"path":"/x/000000020000000000000003"}`)))
		return w.Code
	}
	if code := push(); code == http.StatusOK || a.archiveErr == "" {
		t.Errorf("archive_command without its repository: %d", code)
	}
	repo.none = "backup.enabled is off"
	if code := push(); code != http.StatusOK || len(repo.have) != 0 || a.archiveErr != "" {
		t.Errorf("archive_command where nothing is archived: %d, pushed %v, %q", code, repo.have, a.archiveErr)
	}
	if err := a.archiveEnd(t.Context()); err == nil || !strings.Contains(err.Error(), repo.none) {
		t.Errorf("the last WAL counts as archived: %v", err)
	}
	a.mem.leads = 0
	if code := push(); code == http.StatusOK {
		t.Error("a node that does not lead may remove WAL")
	}
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
	for _, size := range []uint32{16 << 20, 64 << 20} {
		t.Run(fmt.Sprint(size>>20, " MB"), func(t *testing.T) { backfilled(t, size) })
	}
}

func backfilled(t *testing.T, size uint32) {
	a := withDisk(t, newTestAgent(t))
	repo := &flakyRepo{refuse: 2, done: make(chan struct{})}
	a.repo = repo
	a.cfg.Spec.SuspectAfter = time.Millisecond
	writeControl(t, a, size)
	if err := os.Mkdir(a.wal, 0o700); err != nil {
		t.Fatal(err)
	}
	// Whole segments below the fork; the one that holds it; one of the new timeline.
	for _, n := range []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003", "000000020000000000000003"} {
		if err := os.WriteFile(filepath.Join(a.wal, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	term := twoEpochs()
	term.History[1].ForkLSN = cluster.LSN(3*size) + 0x1000
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

// PostgreSQL wants a history archived that goes back in time: it is refused, and
// said so; a good one goes in.
func TestImpossibleHistoryIsNotArchived(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	repo := &flakyRepo{}
	a.repo, a.rec.snap.Term, a.mem.leads = repo, twoEpochs(), 2
	if err := os.MkdirAll(a.wal, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"00000003.history": "1\t0/60000A0\tx\n2\t0/70000A0\tx\n", "00000004.history": "1\t0/60000A0\tx\n2\t0/70000A0\tx\n3\t0/5000620\tbefore\n",
	} {
		if err := os.WriteFile(filepath.Join(a.wal, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		a.servePush(w, httptest.NewRequest("POST", "/archive-push", strings.NewReader(`{"path":"pg_wal/`+name+`"}`)))
		if good := name == "00000003.history"; (w.Code == 200) != good || strings.Contains(w.Body.String(), "back in time") == good {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if !slices.Equal(repo.have, []string{"00000003.history"}) {
		t.Errorf("archived: %v", repo.have)
	}
}

func (r *flakyRepo) Restore(context.Context, string, string, func(done, total int64)) error {
	return errors.New("not asked for")
}

// writeControl makes the part of pg_control that tells the segments' size.
func writeControl(t *testing.T, a *Agent, segment uint32) {
	t.Helper()
	b, le := make([]byte, 8192), binary.LittleEndian
	le.PutUint64(b, 1)
	le.PutUint32(b[8:], 1300)
	le.PutUint32(b[224:], 8192)
	le.PutUint32(b[228:], segment)
	le.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	dir := filepath.Join(filepath.Dir(a.wal), "global")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "pg_control"), b, 0o600)); err != nil {
		t.Fatal(err)
	}
}
