package agent

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/peer"
	"manada/internal/postgres"
)

// draining is a switchover that this run of the agent has begun, until the stop.
// What is decided about it is in decide/drain.go. Guarded by Agent.mu.
type draining struct {
	id, to, request string
	preparing       bool      // the checkpoint is under way, or the filling of the WAL segment
	failed          string    // why it failed
	began, heldAt   time.Time // when the phases stood in the record; zero before
	looked          time.Time // when the newest look was begun
	clients         postgres.Clients
	answers         map[string]cluster.DrainAnswer // the newest of each proxy, by its process's id
	answered        time.Time                      // when one last began to hold
	ended           int                            // idle sessions of clients that came by no proxy
	held            func()                         // ends what is done until the hold begins
}

// lookEvery is how often the clients' sessions are looked at: what is waited for
// in the hold is an outage, before it is not.
const (
	lookEvery     = 50 * time.Millisecond
	lookEveryHold = 5 * time.Millisecond
)

// prepare begins a switchover, with a checkpoint and a WAL segment that is nearly
// full, beside the loop: the stop is short then, and what a leader owes the clients
// meanwhile goes on.
func (a *Agent) prepare(ctx context.Context, act decide.Action) error {
	// It is attempted once: one that is marked already, or gone, is not begun.
	if err := a.store.MarkRequest(ctx, act.Request, optionTried); err != nil {
		return fmt.Errorf("mark the request as tried: %w", err)
	}
	d := &draining{id: nonce(), to: act.To, request: act.Request, preparing: true, answers: map[string]cluster.DrainAnswer{}}
	ctx, d.held = context.WithCancel(ctx)
	a.mu.Lock()
	a.drain = d
	successor := cluster.CertifiedName(d.to, a.rec.snap.Term.Epoch)
	a.mu.Unlock()
	go a.prepareStop(ctx, d, successor)
	return nil
}

const (
	archiveTime  = 30 * time.Second // the most that a switchover is put off by the archive
	archiveStuck = 3 * time.Second  // and by one that archives nothing meanwhile

	fillTime  = 3 * time.Second        // the most that a switchover is put off by the filling
	fillAgain = 500 * time.Millisecond // between two looks at the segment in the first phase
)

// prepareStop goes on until the hold begins: clients may begin another segment in
// the first phase. A checkpoint near the end of a segment makes the file of the next
// one, so that the stop does not have to.
func (a *Agent) prepareStop(ctx context.Context, d *draining, successor string) {
	defer d.held()
	a.awaitArchive(ctx)
	a.fill(ctx, successor, postgres.FillFirst)
	err := a.db.Checkpoint(ctx)
	if err == nil {
		a.fill(ctx, successor, postgres.FillMost)
	}
	a.mu.Lock()
	d.preparing = false
	if err != nil {
		d.failed = "the checkpoint before it failed: " + brief(err)
	}
	a.mu.Unlock()
	a.poke()
	for err == nil && a.draining(d) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(fillAgain):
			a.fill(ctx, successor, postgres.FillMost)
		}
	}
}

// awaitArchive waits while WAL is being archived, for the stop does not: the
// successor may not have what has waited for long.
func (a *Agent) awaitArchive(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, archiveTime)
	defer cancel()
	least, since := int64(math.MaxInt64), time.Now()
	for time.Since(since) < archiveStuck {
		w := a.countWaiting()
		if w == nil || w.Segments == 0 {
			return
		}
		if w.Segments < least {
			least, since = w.Segments, time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fill saves time in the stop, nothing hangs on it.
func (a *Agent) fill(ctx context.Context, successor string, free int64) {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	n, err := a.db.FillSegment(ctx, successor, free)
	if n > 0 {
		a.log.Info("filled the WAL segment, for a short stop", "bytes", n)
	}
	if err != nil {
		a.log.Info("the stop will not be as short as it could be", "error", err.Error())
	}
}

// draining is false when d was withdrawn, or has ended in an epoch.
func (a *Agent) draining(d *draining) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drain == d
}

// noteDrain notes which phases stand in the record, whoever told so: a write of
// unknown outcome may turn out to have been applied. Called with mu held.
func (a *Agent) noteDrain(t *cluster.Term, now time.Time) {
	d, x := a.drain, t.Draining()
	if d == nil || x == nil || x.ID != d.id {
		return
	}
	if d.began.IsZero() {
		d.began = now
		a.newsOfDrain()
	}
	if x.Hold && d.heldAt.IsZero() {
		d.heldAt = now
		d.held()
		a.newsOfDrain()
	}
}

// endDrain: it was withdrawn.
func (a *Agent) endDrain() {
	a.mu.Lock()
	a.drain = nil
	a.mu.Unlock()
}

func (a *Agent) newsOfDrain() {
	select {
	case a.drainNews <- struct{}{}:
	default:
	}
}

// drainView is called with mu held.
func (a *Agent) drainView(t *cluster.Term, now time.Time) decide.LocalDrain {
	a.noteDrain(t, now)
	d := a.drain
	if d == nil {
		return decide.LocalDrain{}
	}
	v := decide.LocalDrain{ID: d.id, To: d.to, Request: d.request, Preparing: d.preparing, Failed: d.failed, Hold: !d.heldAt.IsZero(), Looked: never,
		Oldest: d.clients.Oldest, Open: d.clients.Open, InCommit: d.clients.InCommit}
	if !d.looked.IsZero() {
		v.Looked = now.Sub(d.looked)
	}
	if !d.began.IsZero() {
		v.Age = now.Sub(d.began)
	}
	if v.Hold {
		v.HoldAge = now.Sub(d.heldAt)
		if v.Unheld = a.unheld(); len(v.Unheld) == 0 {
			v.HeldFor = now.Sub(later(d.heldAt, d.answered))
		}
	}
	return v
}

// unheld are the hosts whose proxy hears this one and has not said that it holds.
// Called with mu held.
func (a *Agent) unheld() (hosts []string) {
	if a.listening == nil {
		return nil
	}
	for boot, host := range a.listening() {
		if !a.drain.answers[boot].Hold {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// serveDrain takes a proxy's word on what it does in the drain. It changes
// nothing else, whoever calls.
func (a *Agent) serveDrain(w http.ResponseWriter, r *http.Request) {
	var x cluster.DrainAnswer
	if !peer.Take(w, r, &x) {
		return
	}
	who, _ := peer.CallerOf(r.Context())
	if x.Proxy != who.Node {
		peer.WriteError(w, peer.Refuse(http.StatusForbidden, peer.CodeForbidden, "", "%s answers for %s", who.Node, x.Proxy))
		return
	}
	if !a.takeAnswer(x) {
		peer.WriteError(w, peer.Refuse(http.StatusConflict, "no_drain", "", "no switchover %s is under way on %s, or no proxy %s hears it", x.ID, a.cfg.Node, x.Boot))
		return
	}
	peer.WriteJSON(w, struct{}{})
}

// takeAnswer is false when it is of no use: nothing is kept of whom is not
// listening.
func (a *Agent) takeAnswer(x cluster.DrainAnswer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.drain
	if d == nil || d.id != x.ID || a.listening == nil || a.listening()[x.Boot] != x.Proxy {
		return false
	}
	if x.Hold && !d.answers[x.Boot].Hold {
		d.answered = time.Now()
	}
	d.answers[x.Boot] = x
	a.newsOfDrain()
	return true
}

// drainLoop looks at the clients' sessions while a switchover is under way.
func (a *Agent) drainLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.drainNews:
		}
		for pause := a.drainLook(ctx); pause > 0; pause = a.drainLook(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-a.drainNews:
			case <-time.After(pause):
			}
		}
		a.db.EndLooking()
	}
}

// drainLook looks once and has the loop decide; 0 when there is nothing to look
// for any more, else when to look again.
func (a *Agent) drainLook(ctx context.Context) time.Duration {
	a.mu.Lock()
	d := a.drain
	on := d != nil && !d.began.IsZero() && a.mem.handoverTo == ""
	held := on && !d.heldAt.IsZero() && len(a.unheld()) == 0
	pause := lookEvery
	if on && !d.heldAt.IsZero() {
		pause = lookEveryHold
	}
	a.mu.Unlock()
	if !on {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ended := 0
	if held { // else they could come back by a proxy that does not hold yet
		ended, _ = a.db.EndIdleClients(ctx)
	}
	began := time.Now()
	c, err := a.db.LookAtClients(ctx)
	if err != nil {
		a.log.Debug("cannot look at the clients' sessions", "error", err.Error())
		return pause
	}
	a.mu.Lock()
	d.looked, d.clients, d.ended = began, c, d.ended+ended
	a.mu.Unlock()
	a.poke()
	return pause
}

// drainOp says for `status` what is under way, since when, and who is waited for.
func (a *Agent) drainOp(d decide.Decision) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.drain
	if x == nil {
		return ""
	}
	since := later(x.began, x.heldAt)
	text := d.Reason
	if !since.IsZero() {
		text += fmt.Sprintf(" (for %.1f s; %d transactions open", time.Since(since).Seconds(), x.clients.Open)
		if x.clients.Open > 0 {
			text += fmt.Sprintf(", the oldest for %.1f s", x.clients.Oldest.Seconds())
		}
		text += ")"
	}
	return text
}

// toldOfDrain logs how the wait for the clients ended, at the stop.
func (a *Agent) toldOfDrain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.drain
	if d == nil {
		return
	}
	silent := []string{}
	if a.listening != nil {
		silent = a.unheld()
	}
	a.log.Info("stopping for the switchover", "to", d.to, "announced_ms", time.Since(d.began).Milliseconds(), "held_ms", time.Since(d.heldAt).Milliseconds(),
		"open", d.clients.Open, "in_commit", d.clients.InCommit, "proxies", len(d.answers), "silent", silent, "idle_ended", d.ended)
}
