package agent

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
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
		fork := n.Current().ForkLSN.String()
		a.event("takeover_started", n.Epoch, fmt.Sprintf("%s%s; its WAL goes on at %s", n.Reason, optional(": ", a.causeOf(v)), fork),
			"from", old.Leader, "fork_lsn", fork, "cause", a.causeOf(v))
	case "open":
		if n.Epoch > 1 && n.Leader != previousLeader(n) && isSwitchover(n.Reason) {
			a.event("switchover_done", n.Epoch, n.Reason)
		}
		took := a.tookOver(n)
		a.event("opened", n.Epoch, openedText(n, took), "took_ms", strconv.FormatInt(took.Milliseconds(), 10))
		select {
		case a.opened <- struct{}{}: // before a checkpoint recycles what has to be back-filled
		default:
		}
	case "undrained":
		a.endDrain()
		a.event("switchover_given_up", n.Epoch, n.Reason)
	case "degraded", "durability_restored":
		a.event(act.Note, n.Epoch, n.Reason)
	case "impostor", "lie":
		a.event("degraded", n.Epoch, n.Reason)
	}
}

// openedText says for people how an epoch begins.
func openedText(n *cluster.Term, took time.Duration) string {
	text := fmt.Sprintf("%s leads epoch %d; ", n.Leader, n.Epoch)
	switch {
	case n.K == 0 && n.Durability == cluster.Strict:
		text += "commits wait until a standby is there"
	case n.K == 0:
		text += "commits are on it alone until a standby is there"
	default:
		var names []string
		for _, m := range n.Sync {
			names = append(names, m.Name)
		}
		text += fmt.Sprintf("commits wait for %d of %s", n.K, strings.Join(names, ", "))
	}
	if took > 0 {
		text += fmt.Sprintf("; %.1f s after the first sign of it", took.Seconds())
	}
	return text
}

func optional(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

// causeOf is why this node takes over: the order that it was given, or what it
// suspected first.
func (a *Agent) causeOf(v *decide.View) string {
	if r := v.Store.Request; r != nil && r.To == a.cfg.Node && (r.Kind == store.RequestFailover || r.Kind == store.RequestSwitchover) {
		return "ordered by " + cmp.Or(r.By, "an operator")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cause
}

// tookOver measures a change of leaders from the first suspicion, or from when this
// node heard of the order, to the open epoch; 0 when the leader stays.
func (a *Agent) tookOver(n *cluster.Term) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	took := time.Duration(0)
	if n.Leader != previousLeader(n) && !a.suspectedAt.IsZero() {
		took = time.Since(a.suspectedAt)
		a.lastTakeover = took
	}
	a.suspectedAt, a.cause = time.Time{}, ""
	return took
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
		a.suspectedAt, a.cause = time.Now(), d.Cause
	} else if d.CannotCommit != "" && a.cause == "" {
		a.cause = d.CannotCommit
	}
	a.mu.Unlock()
	if d.Suspects != "" && was == "" {
		a.log.Warn("leader suspected", "leader", d.Suspects, "reason", d.Reason)
	}
}
