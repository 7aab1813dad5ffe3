package agent

import (
	"context"
	"errors"
	"time"

	"manada/internal/cluster"
	"manada/internal/store"
)

// record is the store as this agent last saw it. Guarded by Agent.mu.
type record struct {
	snap       store.Snapshot
	have       bool
	failed     bool // the last read failed
	unsettled  bool // a write of ours has an unknown outcome
	rolledBack bool
	confirmed  time.Time // when the newest request was sent that showed the record as it is in snap
	leaseSince time.Time // since when, by our clock, the renewal counter has not moved
	firstSeen  map[string]time.Time
	openSince  time.Time // when this agent learned that the epoch is open
}

// follow keeps the record current. Watching is only a doorbell with a
// re-read; ages are judged by when a read was sent.
func (a *Agent) followStore(ctx context.Context) {
	for s := range a.store.Watch(ctx) {
		a.take(s)
		a.poke()
	}
}

// readStore makes one linearizable read now.
func (a *Agent) readStore(ctx context.Context) error {
	s, err := a.store.Read(ctx)
	if err != nil {
		a.mu.Lock()
		a.rec.failed = true
		a.mu.Unlock()
		return err
	}
	a.take(s)
	return nil
}

// take accepts a snapshot unless a newer one is there already. An answer from
// the past is told apart by what this node has on its own disk (C6).
func (a *Agent) take(s store.Snapshot) {
	err := a.high.Observe(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rec.rolledBack = errors.Is(err, store.ErrRolledBack)
	if a.rec.rolledBack {
		a.rec.failed = false
		return
	}
	if err != nil {
		a.log.Error("cannot keep the highest epoch on disk", "error", err.Error())
		return
	}
	if a.rec.have && s.Sent.Before(a.rec.snap.Sent) {
		return
	}
	if !a.rec.have || !sameLease(a.rec.snap.Lease, s.Lease) {
		a.rec.leaseSince = time.Now()
	}
	if s.Term != nil && (a.rec.snap.Term == nil || s.Term.Epoch != a.rec.snap.Term.Epoch) {
		a.newEpoch(a.rec.snap.Term)
	}
	if !a.rec.have && (s.Term == nil || s.Term.Leader != a.cfg.Node) {
		a.rec.unsettled = false // nothing of ours that could arrive concerns how PostgreSQL commits here
	}
	a.noteOpen(s.Term)
	a.rec.confirmed = later(a.rec.confirmed, s.Sent)
	a.rec.snap, a.rec.have, a.rec.failed = s, true, false
	seen := map[string]time.Time{}
	for _, r := range s.Requests {
		at, ok := a.rec.firstSeen[r.ID]
		if !ok {
			at = time.Now()
		}
		seen[r.ID] = at
	}
	a.rec.firstSeen = seen
}

// Term is the record as this agent last saw it; nil when there is none yet.
func (a *Agent) Term() *cluster.Term {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.snap.Term.Clone()
}

// noteOpen keeps since when the epoch is known to be open. Called with mu held,
// before the new record is taken over.
func (a *Agent) noteOpen(t *cluster.Term) {
	old := a.rec.snap.Term
	if t != nil && t.Open && (old == nil || !old.Open || old.Epoch != t.Epoch) {
		a.rec.openSince = time.Now()
	}
}

func sameLease(x, y *store.Lease) bool {
	if x == nil || y == nil {
		return x == y
	}
	return *x == *y
}

// renewLoop renews the leader's counter while the last decision allowed it.
func (a *Agent) renewLoop(ctx context.Context) {
	tick := time.NewTicker(a.cfg.RenewEvery)
	defer tick.Stop()
	var seq uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.mu.Lock()
		t, may := a.rec.snap.Term, a.mayRenew
		a.mu.Unlock()
		if !may || t == nil {
			continue
		}
		seq++
		if err := a.store.Renew(ctx, store.Lease{Node: a.cfg.Node, Epoch: t.Epoch, Seq: a.bootSeq + seq}); err != nil && ctx.Err() == nil {
			a.log.Debug("cannot renew", "error", err.Error())
		}
	}
}

func (a *Agent) setRenew(may bool) {
	a.mu.Lock()
	a.mayRenew = may
	a.mu.Unlock()
}
