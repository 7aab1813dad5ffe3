package agent

import (
	"context"
	"fmt"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
	"manada/internal/peer"
	"manada/internal/store"
)

// leaveWithin bounds how long a host that is being stopped waits for its duties
// to be taken over. Whatever has not happened by then happens as if it had died.
const leaveWithin = 4 * time.Second

// StopPostgres ends this host's part in the herd in order: a primary first hands
// over to a synchronous standby, a synchronous standby first leaves sync; then
// PostgreSQL is stopped cleanly. The agent goes on beating meanwhile and starts
// nothing any more.
func (a *Agent) StopPostgres(ctx context.Context) error {
	a.stopping.Store(true)
	a.poke()
	if a.db == nil {
		a.until(ctx, func() bool { return a.Self().Leaving })
		select { // until that was heard
		case <-ctx.Done():
		case <-time.After(a.cfg.Beat):
		}
		return nil
	}
	a.leave(ctx)
	return a.stopForGood(ctx)
}

// lastWordWithin bounds how long a lone primary's host waits for the end of its
// WAL to be archived, after PostgreSQL has stopped.
const lastWordWithin = 8 * time.Second

// leave gives up what this node is to the others. It is a courtesy that saves
// clients the time-outs: the protocol holds without.
func (a *Agent) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin+a.cfg.Spec.Drain.For) // a switchover waits for clients first
	defer cancel()
	t, paused := a.recordNow()
	switch {
	case t == nil || paused || t.Restore != nil: // a restore goes on when this host is back
	case t.Leader == a.cfg.Node && t.Open && len(t.Sync) > 0:
		a.giveUpLead(ctx)
		a.lastOfTwo(ctx)
	case t.Leader == a.cfg.Node && t.Open && t.K == 0:
		a.leaveWord()
	case t.Leader != a.cfg.Node && inSync(t, a.cfg.Node):
		left := func() bool { t, _ := a.recordNow(); return !inSync(t, a.cfg.Node) }
		a.until(ctx, left)
		if left() {
			a.log.Info("left the synchronous standbys before this host is stopped")
		} else {
			a.log.Warn("still a synchronous standby; this host is stopped all the same")
		}
	}
}

func (a *Agent) recordNow() (t *cluster.Term, paused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.snap.Term, a.rec.snap.Pause != nil || a.rec.rolledBack
}

func inSync(t *cluster.Term, node string) bool {
	_, in := t.SyncNamed(node)
	return in
}

// giveUpLead asks for a switchover, as an operator would, and waits until the
// next epoch is open or the request is refused.
func (a *Agent) giveUpLead(ctx context.Context) {
	st := a.Status()
	to := bestSuccessor(st)
	if n, ok := st.Node(to); ok && n.Failover == "manual" {
		a.log.Warn("this host is stopped without a switchover: "+to+" leads only by order", "hint", "manada switchover "+to)
		return
	}
	if err := checkRequest(st, store.RequestSwitchover, RequestVerb{To: to}, a.cfg.Spec.SuspectAfter); err != nil {
		a.log.Warn("this host is stopped without a switchover", "why", err.Error())
		return
	}
	q := newRequest(store.RequestSwitchover, to, "the stop of "+a.cfg.Node)
	if err := a.file(ctx, q); err != nil {
		a.log.Warn("this host is stopped without a switchover", "why", err.Error())
		return
	}
	a.log.Info("switchover before this host is stopped", "to", to)
	opened := func() bool { t, _ := a.recordNow(); return t.Leader != a.cfg.Node && t.Open }
	a.until(ctx, func() bool { return opened() || a.refused(q.ID) })
	if !opened() {
		a.log.Warn("the switchover did not come about in time; this host is stopped all the same", "to", to)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = a.store.DeleteRequest(late, q.ID) // not to be carried out when this host is back
	}
}

// lastOfTwo: the standby that was to take over may be stopped at the same time
// and leave sync meanwhile. Then this primary is alone, and its commits go to the
// archive before it stops, as if it had been alone before.
func (a *Agent) lastOfTwo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	over := func() bool {
		t, _ := a.recordNow()
		return t.Leader != a.cfg.Node || !t.Open || t.K == 0
	}
	a.until(ctx, over)
	if t, _ := a.recordNow(); t.Leader == a.cfg.Node && t.Open && t.K == 0 {
		a.leaveWord()
	}
}

// leaveWord stops a primary that commits alone and waits until the record says
// where its WAL ends, and the archive has all of it.
func (a *Agent) leaveWord() {
	if a.repo == nil || a.repo.Nowhere() != "" {
		return
	}
	a.leaving.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.StopTimeout) // detached: leave is bounded without the stop
	defer cancel()
	t := a.awaitTurn(ctx, "the stop of PostgreSQL")
	if t == nil {
		return // stopForGood says so
	}
	a.endOtherSenders(ctx, "")
	err := a.db.Stop(ctx, guardian.Fast, a.cfg.StopTimeout)
	a.observe(ctx)
	t.giveBack()
	a.poke()
	if err != nil {
		return // stopForGood says so
	}
	wait, end := context.WithTimeout(ctx, lastWordWithin)
	defer end()
	said := func() bool { t, _ := a.recordNow(); _, ok := t.LastWord(); return ok || t.Leader != a.cfg.Node }
	a.until(wait, func() bool { return said() || a.deserted(time.Now(), a.hub.Heard()) })
	if t, _ := a.recordNow(); !said() {
		a.log.Warn("this host is stopped, and only it has the newest commits", "epoch", t.Epoch)
	} else if p, ok := t.LastWord(); ok {
		a.log.Info("all commits are in the archive; another node may lead if this one does not come back", "epoch", t.Epoch, "lsn", p.LSN.String())
	}
}

// deserted: neither the store nor any other host has been heard for a while, as
// when all of them are stopped at once. Nobody would keep a last word, or hear it.
func (a *Agent) deserted(now time.Time, heard map[string]peer.Heard) bool {
	a.mu.Lock()
	age := now.Sub(a.rec.snap.Sent)
	a.mu.Unlock()
	if age < a.storeStale() {
		return false
	}
	for name, h := range heard {
		if name != a.cfg.Node && now.Sub(h.At) < a.storeStale() {
			return false
		}
	}
	return true
}

func (a *Agent) refused(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.rec.snap.Requests {
		if r.ID == id && r.Result != nil {
			return r.Result.Code != 0
		}
	}
	return false
}

// until waits until ok, or until ctx ends.
func (a *Agent) until(ctx context.Context, ok func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stopForGood stops PostgreSQL and lets nothing start it again.
func (a *Agent) stopForGood(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.StopTimeout+10*time.Second)
	defer cancel()
	a.ending.Store(true)
	t := a.awaitTurn(ctx, "the stop of PostgreSQL")
	if t == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		return fmt.Errorf("stop PostgreSQL on %s: %s is still under way", a.cfg.Node, a.busy())
	}
	defer t.giveBack()
	a.observe(ctx)
	a.endOtherSenders(ctx, "")
	return a.db.Stop(ctx, guardian.Fast, a.cfg.StopTimeout)
}
