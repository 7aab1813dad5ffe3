package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
)

// slowRepo tells that it was asked, and answers when it must.
type slowRepo struct {
	flakyRepo
	asked chan string
}

func (r *slowRepo) Push(ctx context.Context, path string) error {
	r.asked <- path
	<-ctx.Done()
	return ctx.Err()
}

func (r *slowRepo) Get(ctx context.Context, name, _ string) error {
	r.asked <- name
	<-ctx.Done()
	return ctx.Err()
}

// Nothing out of the archive comes to a node that has frozen, nor does its
// promotion wait for the archive: what was asked before is ended, what is asked
// afterwards is not there. Recovery of a restore is no such node.
func TestFrozenFetchesNothing(t *testing.T) {
	a := newTestAgent(t)
	repo := &slowRepo{asked: make(chan string, 1)}
	a.repo = repo
	a.rec.snap.Term = twoEpochs()
	a.rec.snap.Term.Leader = "slave"
	get := func(ctx context.Context) int {
		w := httptest.NewRecorder()
		a.serveGet(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/archive-get", strings.NewReader(`{"name":"000000010000000000000003","dest":"/x"}`)))
		return w.Code
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer := make(chan int, 1)
	go func() { answer <- get(ctx) }()
	<-repo.asked
	a.fetches.end(errUpstreamCut)
	if code := <-answer; code != http.StatusNotFound || ctx.Err() != nil {
		t.Errorf("what was asked before the upstream was cut: %d, %v", code, ctx.Err())
	}
	for name, freeze := range map[string]func(){
		"promised": func() { a.seen.promised = 2 },
		"won":      func() { a.seen.promised = 0; a.rec.snap.Term.Leader = "master" },
	} {
		freeze()
		if code := get(ctx); code != http.StatusNotFound || len(repo.asked) > 0 {
			t.Errorf("%s: %d, the repository was asked: %v", name, code, len(repo.asked) > 0)
		}
		a.seen.promised, a.rec.snap.Term.Leader = 0, "slave"
	}
	a.rec.snap.Term.Leader = "master"
	a.seen.restore.ID = "r"
	brief, stop := context.WithCancel(ctx)
	go func() { answer <- get(brief) }()
	<-repo.asked
	stop()
	if code := <-answer; code == http.StatusNotFound {
		t.Error("the recovery of a restore hears that the archive has nothing, when it only did not answer")
	}
}

// A stop for another node does not wait for the archive, and says nothing bad of
// it: what was begun is ended, and nothing is begun until the stop is over.
func TestHandingOverArchivesNothing(t *testing.T) {
	a := newTestAgent(t)
	repo := &slowRepo{asked: make(chan string, 1)}
	a.repo = repo
	a.rec.snap.Term, a.mem.leads = twoEpochs(), 2
	push := func() int {
		w := httptest.NewRecorder()
		a.servePush(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/archive-push", strings.NewReader(`{"path":"pg_wal/000000020000000000000003"}`)))
		return w.Code
	}
	answer := make(chan int, 1)
	go func() { answer <- push() }()
	<-repo.asked
	a.mem.archiveRests = true
	a.pushes.end(errHandingOver)
	if code := <-answer; code == http.StatusOK {
		t.Error("what was ended counts as archived")
	}
	if code := push(); code == http.StatusOK || len(repo.asked) > 0 {
		t.Errorf("in the stop: %d, the repository was asked: %v", code, len(repo.asked) > 0)
	}
	if a.archiveErr != "" {
		t.Errorf("told of the archive: %s", a.archiveErr)
	}
}

// Before a switchover is announced the archive gets what it takes, for the stop
// does not wait for it.
func TestSwitchoverAwaitsArchive(t *testing.T) {
	a := withDisk(t, newTestAgent(t))
	a.seen.state = cluster.PostgresPrimary
	dir := filepath.Join(a.wal, "archive_status")
	ready := func(n int) string { return filepath.Join(dir, fmt.Sprintf("00000002000000000000000%d.ready", n)) }
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir, 0o700))
	for n := range 3 {
		must(os.WriteFile(ready(n), nil, 0o600))
	}
	done := make(chan struct{})
	go func() { a.awaitArchive(t.Context()); close(done) }()
	for n := range 3 {
		select {
		case <-done:
			t.Fatalf("not waited for %d segments", 3-n)
		case <-time.After(50 * time.Millisecond):
		}
		must(os.Remove(ready(n)))
	}
	<-done
	must(os.WriteFile(ready(0), nil, 0o600))
	began := time.Now() // an archive that takes nothing is not waited for
	a.awaitArchive(t.Context())
	if took := time.Since(began); took < archiveStuck || took > archiveTime {
		t.Errorf("waited for %s", took)
	}
}

// The session with which a winner looks at what it needs is there at once after
// a start, not up to five seconds later.
func TestWarmAfterEachStart(t *testing.T) {
	a := newTestAgent(t)
	a.seen = observed{state: cluster.PostgresStandby, postmaster: 11}
	if !a.warmingDue(1, 0) || a.warmingDue(1, 11) || !a.warmingDue(5, 11) {
		t.Error("a standby that was just started, warm, warm five seconds long")
	}
	a.seen.postmaster = 12
	if !a.warmingDue(6, 11) {
		t.Error("another postmaster has not answered yet")
	}
}
