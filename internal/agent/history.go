package agent

import (
	"context"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/store"
)

// event queues one for the herd's history; the store may be away for a while.
func (a *Agent) event(kind string, epoch uint64, text string, details ...string) {
	e := store.Event{Kind: kind, Node: a.cfg.Node, Epoch: epoch, Text: text, At: time.Now().UTC()}
	if len(details) > 0 {
		e.Details = map[string]string{}
		for i := 0; i+1 < len(details); i += 2 {
			e.Details[details[i]] = details[i+1]
		}
	}
	a.log.Info("event", "event", kind, "epoch", epoch, "text", text)
	if a.parts.Notify != nil {
		a.parts.Notify(e)
	}
	select {
	case a.events <- e:
	default: // the store has been away for 64 events: the log has them
	}
}

func (a *Agent) eventLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-a.events:
			for ctx.Err() == nil {
				if _, err := a.store.AppendEvent(ctx, e); err == nil {
					break
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		}
	}
}

// swapped tells the history of a change of the record that this agent made.
func (a *Agent) swapped(v *decide.View, act decide.Action, n *cluster.Term) {
	old := v.Store.Term
	switch act.Note {
	case "restore_started", "restore_undone":
		a.event(act.Note, n.Epoch, n.Reason)
	case "won":
		if n.Current().Restored != "" {
			a.event("restored", n.Epoch, n.Reason, "fork_lsn", n.Current().ForkLSN.String())
			return
		}
		a.event("takeover_started", n.Epoch, n.Reason, "from", old.Leader, "fork_lsn", n.Current().ForkLSN.String())
	case "open":
		if n.Epoch > 1 && n.Leader != previousLeader(n) && isSwitchover(n.Reason) {
			a.event("switchover_done", n.Epoch, n.Reason)
		}
		a.event("opened", n.Epoch, decide.Describe(n))
		a.tookOver(n)
		select {
		case a.opened <- struct{}{}: // before a checkpoint recycles what has to be back-filled
		default:
		}
	case "degraded", "durability_restored":
		a.event(act.Note, n.Epoch, n.Reason)
	}
}

// tookOver measures a takeover from the first suspicion to the open epoch.
func (a *Agent) tookOver(n *cluster.Term) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n.Leader != previousLeader(n) && !a.suspectedAt.IsZero() {
		a.lastTakeover = time.Since(a.suspectedAt)
	}
	a.suspectedAt = time.Time{}
}

// LastTakeover is how long the last takeover took that this node won; false
// when it won none since it started.
func (a *Agent) LastTakeover() (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lastTakeover, a.lastTakeover != 0
}

func previousLeader(n *cluster.Term) string {
	if i := len(n.History) - 2; i >= 0 {
		return n.History[i].Leader
	}
	return ""
}

func isSwitchover(reason string) bool { return len(reason) > 10 && reason[:10] == "switchover" }

// BySwitchover says whether the present epoch began with a switchover.
func (a *Agent) BySwitchover() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.rec.snap.Term
	return t != nil && isSwitchover(t.Reason)
}

// remember notes when this node begins or ends to suspect the leader.
func (a *Agent) remember(d decide.Decision) {
	a.mu.Lock()
	was := a.suspects
	a.suspects = d.Suspects
	if d.Suspects != "" && was == "" {
		a.suspectedAt = time.Now()
	}
	a.mu.Unlock()
	if d.Suspects != "" && was == "" {
		a.log.Warn("leader suspected", "leader", d.Suspects, "reason", d.Reason)
	}
}
