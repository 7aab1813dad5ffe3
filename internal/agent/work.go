package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/guardian"
	"manada/internal/health"
	"manada/internal/postgres"
)

// long returns the operation behind an action that takes its time, and whether
// the action is one.
func (a *Agent) long(v *decide.View, act decide.Action) (func(context.Context) error, bool) {
	switch act.Verb {
	case decide.Found:
		return a.db.Found, true
	case decide.StartStandby:
		return func(ctx context.Context) error { return a.start(ctx, a.db.StartStandby) }, true
	case decide.StartFounding:
		return func(ctx context.Context) error { return a.start(ctx, a.db.StartFounding) }, true
	case decide.Stop:
		return func(ctx context.Context) error {
			if act.Note == "restore" {
				a.checkpointFirst(ctx)
			}
			return a.stop(ctx, act.Mode, "")
		}, true
	case decide.ArchiveTail, decide.RestoreData, decide.RecoverToEnd, decide.RecoverAlong, decide.UndoRestore:
		return func(ctx context.Context) error { return a.restoreStep(ctx, v, act) }, true
	case decide.Prepare:
		return func(ctx context.Context) error { return a.prepare(ctx, act) }, true
	case decide.HandOver:
		return func(ctx context.Context) error { return a.handOver(ctx, act) }, true
	case decide.Promote:
		return func(ctx context.Context) error { return a.promote(ctx, act) }, true
	case decide.Rewind:
		return func(ctx context.Context) error { return a.rewind(ctx, act) }, true
	case decide.ArchiveEnd:
		return a.archiveEnd, true
	case decide.FetchWAL:
		return func(ctx context.Context) error { return a.fetchWAL(ctx, act.LSN) }, true
	case decide.Clone:
		return func(ctx context.Context) error { return a.clone(ctx, act) }, true
	}
	return nil, false
}

// begin runs a long operation beside the loop; one at a time, and none once
// PostgreSQL is being stopped for good.
func (a *Agent) begin(ctx context.Context, act decide.Action, op func(context.Context) error) error {
	t := a.takeTurn(inWords(act))
	if t == nil {
		return fmt.Errorf("%s on %s: another operation has not ended", act.Verb, a.cfg.Node)
	}
	if a.ending.Load() { // decided before that was known
		t.giveBack()
		return fmt.Errorf("%s on %s: this host is being stopped", act.Verb, a.cfg.Node)
	}
	go func() {
		a.operate(ctx, t, act, op)
		t.giveBack()
		a.poke()
	}()
	return nil
}

func (a *Agent) operate(ctx context.Context, t *turn, act decide.Action, op func(context.Context) error) {
	began := time.Now()
	err := op(ctx)
	a.observe(ctx)
	took := time.Since(began).Milliseconds()
	a.noteRestoring(err)
	if err == nil || ctx.Err() != nil {
		a.failed(act, nil)
		a.log.Info("operation done", "action", act.String(), "took_ms", took)
		return
	}
	a.log.Error("operation failed", "action", act.String(), "took_ms", took, "error", err.Error())
	a.failed(act, err)
	t.say("a pause after a failed operation")
	a.pauseAfterFailure(ctx)
}

// failed remembers for `status` how the newest long operation ended.
func (a *Agent) failed(act decide.Action, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stepFails = nil
	if err != nil {
		a.stepFails = []cluster.Condition{health.Say(health.StepFails, a.cfg.Node, "step", string(act.Verb), "why", brief(err))}
	}
}

// brief is an error on one line of a length that a table bears; its end says
// most.
func brief(err error) string {
	const most = 300
	text := []rune(strings.Join(slices.Compact(strings.Split(strings.Join(strings.Fields(err.Error()), " "), "; ")), "; "))
	if len(text) > most {
		return string(text[:most/3]) + " ... " + string(text[len(text)-2*most/3:])
	}
	return string(text)
}

// pauseAfterFailure keeps an operation that fails at once from being repeated
// in a tight loop.
func (a *Agent) pauseAfterFailure(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(a.cfg.Spec.SuspectAfter):
	}
}

// startWait is how long a start is waited for.
const startWait = 3 * time.Second

func (a *Agent) start(ctx context.Context, start func(context.Context) error) error {
	a.unread()
	// Recovery may take long, or wait for WAL that never comes: the loop must
	// not be blind meanwhile, so only the usual case is waited for.
	wctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	err := start(wctx)
	a.observe(ctx)
	if state, _ := a.running(); err != nil && (wctx.Err() == nil || state == cluster.PostgresDown) {
		return err
	}
	// The postmaster started with the placeholder and was never without: that
	// commits wait is in force from its first moment (C5).
	a.remembered(func(m *memory) { m.provedPID = a.seen.postmaster; m.progressAt = time.Now() })
	a.makeReady(ctx)
	return nil
}

// makeReady opens beside the loop what a winner needs right after its promotion:
// that costs more than all the rest of what it does then.
func (a *Agent) makeReady(ctx context.Context) {
	go func() { _ = a.db.WarmFurnisher(ctx) }()
}

func (a *Agent) stop(ctx context.Context, mode, to string) error {
	if mode == "fast" {
		a.endOtherSenders(ctx, to)
		return a.db.Stop(ctx, guardian.Fast, a.cfg.StopTimeout)
	}
	return a.db.Stop(ctx, guardian.Immediate, 0)
}

// endOtherSenders: a fast stop waits for every walsender, also for one that
// hangs (M6). Those of sync and of the successor, if there is one, stay.
func (a *Agent) endOtherSenders(ctx context.Context, successor string) {
	a.mu.Lock()
	var pids []int
	t := a.rec.snap.Term
	for _, s := range a.seen.senders {
		if heir := t != nil && s.Stranger == "" && s.Name == cluster.CertifiedName(successor, t.Epoch); !heir && (t == nil || !streamsFor(t, s)) {
			pids = append(pids, s.PID)
		}
	}
	a.mu.Unlock()
	if len(pids) > 0 {
		_ = a.db.EndSenders(ctx, pids)
	}
}

// handOver stops this primary for another. A switchover has been prepared for;
// what a false flush position wants has not.
func (a *Agent) handOver(ctx context.Context, act decide.Action) error {
	a.remembered(func(m *memory) { m.handoverTo = act.To; m.promisedAt = time.Now() })
	if act.Request == "" {
		if err := a.db.Checkpoint(ctx); err != nil {
			return err
		}
		a.remembered(func(m *memory) { m.promisedAt = time.Now() })
	}
	a.toldOfDrain()
	a.restArchive(ctx)
	defer a.remembered(func(m *memory) { m.archiveRests = false })
	return a.stop(ctx, "fast", act.To)
}

// restArchive keeps the stop, and with it every client, from waiting for the
// archive: PostgreSQL archives what it can before it ends, however long that
// takes. The successor has the same WAL and archives what is missing (backfill).
func (a *Agent) restArchive(ctx context.Context) {
	if err := a.db.RestArchiver(ctx); err != nil {
		a.log.Warn("the stop may wait for the archive", "error", err.Error())
		return
	}
	a.remembered(func(m *memory) { m.archiveRests = true })
	a.pushes.end(errHandingOver)
}

func (a *Agent) promote(ctx context.Context, act decide.Action) error {
	began := time.Now()
	a.makeReady(ctx)
	fork, err := a.db.Promote(ctx, act.Epoch, act.Timeline)
	if err != nil {
		return err
	}
	a.unread()
	a.remembered(func(m *memory) { m.fork = fork })
	a.event("promoted", act.Epoch, fmt.Sprintf("%s promoted to timeline %d", a.cfg.Node, act.Timeline),
		"took_ms", fmt.Sprint(time.Since(began).Milliseconds()), "fork_lsn", fork.String())
	return nil
}

func (a *Agent) rewind(ctx context.Context, act decide.Action) error {
	src, err := a.source(ctx, act.To)
	if err != nil {
		return err
	}
	a.unread()
	if err := a.db.Rewind(ctx, src, a.Term(), a.progress("pg_rewind from "+act.To)); err != nil {
		return err
	}
	a.event("rewound", act.Epoch, a.cfg.Node+" was rewound from "+act.To)
	return nil
}

func (a *Agent) clone(ctx context.Context, act decide.Action) error {
	src, err := a.source(ctx, act.To)
	if err != nil {
		return err
	}
	a.unread()
	if err := a.db.Stop(ctx, guardian.Fast, a.cfg.StopTimeout); err != nil {
		return err
	}
	if err := a.db.Clone(ctx, src, a.progress("clone from "+act.To)); err != nil {
		return err
	}
	a.event("cloned", act.Epoch, a.cfg.Node+" was cloned from "+act.To)
	if act.Request != "" {
		return a.answer(ctx, decide.Action{Request: act.Request, OK: true, Note: a.cfg.Node + " was cloned from " + act.To})
	}
	return nil
}

// progress puts how far the copy of the operation under way is into the beat, for
// status.
func (a *Agent) progress(what string) postgres.Progress {
	a.mu.Lock()
	t := a.holder
	a.mu.Unlock()
	var last time.Time
	return func(done, total int64) {
		if time.Since(last) < 500*time.Millisecond {
			return
		}
		last = time.Now()
		text := what
		if total > 0 {
			text = fmt.Sprintf("%s %d%%", what, min(100, done*100/total))
		}
		t.say(text)
	}
}
