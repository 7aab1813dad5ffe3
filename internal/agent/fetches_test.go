package agent

import (
	"context"
	"net/http"
	"net/http/httptest"
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
	a.fetches.end()
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
