package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/store"
)

// quick is the deadline of a small step.
const quick = 5 * time.Second

// act carries out one action. Long ones are only begun here (work.go).
func (a *Agent) act(ctx context.Context, v *decide.View, act decide.Action) error {
	qctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	switch act.Verb {
	case decide.ReadStore:
		return a.readStore(qctx)
	case decide.Settle:
		return a.settle(qctx)
	case decide.Create, decide.Swap, decide.Withdraw:
		return a.change(qctx, v, act)
	case decide.Answer:
		return a.answer(qctx, act)
	}
	if a.db == nil {
		return fmt.Errorf("%s: this host has no database", act.Verb)
	}
	if op, long := a.long(v, act); long {
		return a.begin(ctx, act, op)
	}
	if err := a.small(qctx, v, act); err != nil {
		a.observe(ctx)
		return err
	}
	if !a.seenDone(act) {
		a.observe(ctx)
	}
	return nil
}

// seenDone puts the effect of a successful step into what was observed, so that
// a takeover does not look at everything again between its steps. False when
// the effect has to be looked at. An observation that was under way meanwhile
// is dropped (observe.go).
func (a *Agent) seenDone(act decide.Action) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps++
	switch act.Verb {
	case decide.Promise:
		a.seen.promised = act.Epoch
	case decide.DropPromise:
		a.seen.promised = 0
	case decide.CutUpstream:
		// Whether a receiver lives was observed a moment ago: have its end
		// verified in the process table in any case.
		a.seen.upstream, a.seen.receiver = "", true
	case decide.EndReceiver:
		a.seen.receiver = false
	case decide.WriteControl:
		a.seen.controlEpoch, a.seen.controlNonce = act.Epoch, act.Nonce
	case decide.ReadPosition, decide.Probe:
	default:
		return false
	}
	return true
}

// small carries out a step on this node's PostgreSQL or disk.
func (a *Agent) small(ctx context.Context, v *decide.View, act decide.Action) error {
	switch act.Verb {
	case decide.Promise:
		a.remembered(func(m *memory) { m.promisedAt = time.Now() })
		return a.db.WritePromise(a.promiseOf(act))
	case decide.DropPromise:
		return a.db.RemovePromise()
	case decide.CutUpstream:
		a.fetches.end(errUpstreamCut)
		return a.db.CutUpstream(ctx)
	case decide.EndReceiver:
		return a.db.EndReceiver(ctx)
	case decide.ReadPosition:
		return a.readPosition(ctx)
	case decide.WriteControl:
		// Before an epoch opens nobody may be able to acknowledge its commits in a
		// standby's name. A role that somebody's transaction holds does not keep it
		// closed: the next look at the roles comes within a second.
		if err := a.takeReplication(ctx); err != nil {
			a.log.Warn("cannot take REPLICATION from a role before the epoch opens", "error", err.Error())
		}
		err := a.db.WriteControl(ctx, act.Epoch, a.cfg.Node, act.Nonce)
		if err == nil {
			a.remembered(func(m *memory) { m.writtenEpoch = act.Epoch })
		}
		return err
	case decide.SetSync:
		return a.setSync(ctx, act.Sync)
	case decide.Probe:
		return a.probe(ctx)
	case decide.EndSenders:
		return a.db.EndSenders(ctx, act.PIDs)
	case decide.Follow:
		return a.follow(ctx, act)
	case decide.Undrain:
		a.endDrain()
		return nil
	}
	return fmt.Errorf("unknown action %s", act.Verb)
}

func (a *Agent) remembered(f func(*memory)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.mem)
}

// change swaps the record. A write of unknown outcome is marked so before it
// is sent: until a later read and write of ours succeed both values count (H2).
func (a *Agent) change(ctx context.Context, v *decide.View, act decide.Action) error {
	n := act.Term.Clone()
	n.Since = time.Now().UTC().Format(time.RFC3339)
	a.setUnsettled(true)
	sent := time.Now()
	var rev int64
	var err error
	if act.Verb == decide.Create {
		rev, err = a.store.Create(ctx, n)
	} else {
		rev, err = a.store.Swap(ctx, v.Store.Rev, n)
	}
	if err != nil {
		if !errors.Is(err, store.ErrUnknown) {
			a.setUnsettled(false)
		}
		return err
	}
	if err := a.high.Obey(n.Epoch, rev); err != nil {
		return fmt.Errorf("keep epoch %d on disk: %w", n.Epoch, err)
	}
	a.setUnsettled(false)
	a.changed(n, rev, sent)
	if act.Verb == decide.Withdraw {
		// Off the store before off the disk.
		if err := a.db.RemovePromise(); err != nil {
			return err
		}
		a.remembered(func(m *memory) { m.withdrawals++; m.withdrawnAt = time.Now() })
		a.observe(ctx)
	}
	a.swapped(v, act, n)
	return nil
}

func (a *Agent) setUnsettled(u bool) {
	a.mu.Lock()
	a.rec.unsettled = u
	a.mu.Unlock()
}

// changed takes over our own successful write without another read.
func (a *Agent) changed(n *cluster.Term, rev int64, sent time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.rec.snap.Term
	a.noteOpen(n)
	a.rec.confirmed = later(a.rec.confirmed, sent)
	a.rec.snap.Term, a.rec.snap.TermRev, a.rec.snap.Sent, a.rec.have = n, rev, time.Now(), true
	if old == nil || old.Epoch != n.Epoch {
		a.newEpoch(old)
	}
}

// settle reads and rewrites the record.
func (a *Agent) settle(ctx context.Context) error {
	if err := a.readStore(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	rev := a.rec.snap.TermRev
	a.mu.Unlock()
	if rev == 0 { // the first record was never written: only Create can do it, and it compares
		a.setUnsettled(false)
		return nil
	}
	if _, err := a.store.Touch(ctx, rev); err != nil {
		return err
	}
	a.setUnsettled(false)
	return a.readStore(ctx)
}

func (a *Agent) answer(ctx context.Context, act decide.Action) error {
	code := 1 // exit codes of the command that asked (design, section 9)
	switch {
	case act.OK:
		code = 0
	case act.Lossy:
		code = 5
	}
	err := a.store.FinishRequest(ctx, act.Request, store.Result{Code: code, Text: act.Note, Node: a.cfg.Node, At: time.Now().UTC()})
	if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return a.readStore(ctx)
}

// readPosition asks where the WAL ends, now that nobody adds to it.
func (a *Agent) readPosition(ctx context.Context) error {
	w, err := a.db.WALTail(ctx)
	if err != nil {
		return err
	}
	a.remembered(func(m *memory) {
		m.position = decidePosition{final: true, timeline: w.Timeline, lsn: w.End, complete: w.Complete}
	})
	return nil
}

// unread: something may be received or written again; the position is not final.
func (a *Agent) unread() {
	a.remembered(func(m *memory) { m.position, m.archived = decidePosition{}, 0 })
}

// setSync renders the setting and tells from when on it is obeyed by every
// process: not before the walsenders that may count fewer standbys are ended
// (H4, decide asks for that), and not while one outside the setting still
// counts as synchronous.
func (a *Agent) setSync(ctx context.Context, s cluster.SyncSetting) error {
	a.mu.Lock()
	was, known := a.seen.sync, a.mem.syncKnown
	if s.Alone {
		a.mem.provedPID = 0
	}
	a.mem.syncSince = 0
	a.mu.Unlock()
	if _, err := a.db.SetSync(ctx, s); err != nil {
		return err
	}
	if len(s.Names) > 0 && a.leading() {
		// Waiting commits are released by a standby's next reply. It has replied
		// to all that there is, and while everybody waits nothing new is written:
		// without this they wait for its next status, up to a second.
		if err := a.db.Nudge(ctx); err != nil {
			return err
		}
	}
	a.observe(ctx)
	raised := s.K > 1 && (s.K > was.K || !known)
	outside := a.outsideStillSync(s)
	a.remembered(func(m *memory) {
		m.syncKnown = true
		if raised {
			for _, w := range a.seen.senders {
				m.oldSenders = append(m.oldSenders, w.PID)
			}
			return
		}
		// The end of the WAL is read after the walsenders in an observation: a
		// position taken before the check could be followed by a commit that an
		// outside walsender still releases (C2).
		if !outside && !impostorThere(a.seen.senders) && a.seen.state == cluster.PostgresPrimary && len(stillThere(m.oldSenders, a.seen.senders)) == 0 {
			m.syncSince = a.seen.wal
		}
	})
	return nil
}

func (a *Agent) leading() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mem.leads != 0
}

// outsideStillSync: a walsender that is not in the setting and not async applies
// the one before, so it may still release commits, now or when it has caught up.
// The setting is rendered again in the next step.
func (a *Agent) outsideStillSync(s cluster.SyncSetting) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.seen.senders {
		if w.Sync != "async" && w.Sync != "" && !slices.Contains(s.Names, w.Name) && !s.Alone {
			return true
		}
	}
	return false
}

func (a *Agent) probe(ctx context.Context) error {
	ok, err := a.db.ProbeInForce(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.strangers.probed(ok, a.seen.postmaster, time.Now())
	if !ok {
		return errors.New("a probe commit did not wait: the new setting is not in force yet")
	}
	a.mem.provedPID = a.seen.postmaster
	return nil
}

func (a *Agent) follow(ctx context.Context, act decide.Action) error {
	name := cluster.CertifiedName(a.cfg.Node, act.Epoch)
	if act.Mode == "uncertified" {
		name = cluster.UncertifiedName(a.cfg.Node, act.Epoch)
	} else if err := a.db.SetConsistent(); err != nil {
		return err
	}
	up, err := a.upstream(ctx, act.To, name, act.Epoch)
	if err != nil {
		return err
	}
	a.unread()
	a.remembered(func(m *memory) { m.progressAt = time.Now() })
	return a.db.Follow(ctx, up)
}
