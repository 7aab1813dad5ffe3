package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/peer"
	"manada/internal/postgres"
	"manada/internal/store"
)

// RestoreVerb orders a restore of the herd: POST /v1/restore. It comes out of a
// plan, so the epoch in which that was made must still be the herd's.
type RestoreVerb struct {
	Order cluster.Restore `json:"order"`
	Epoch uint64          `json:"epoch"`
	By    string          `json:"by,omitempty"`
}

// notRestoring refuses what cannot be done while the herd is being restored.
func (a *Agent) notRestoring() error {
	if t := a.Term(); t != nil && t.Restore != nil {
		return peer.Refuse(http.StatusConflict, "restoring", "manada restore --herd --resume  shows how far it is, --undo ends it",
			"the herd is being restored to %s", t.Restore.To())
	}
	return nil
}

// serveRestore files the order; the primary takes it, or says why not.
func (a *Agent) serveRestore(w http.ResponseWriter, r *http.Request) {
	var q RestoreVerb
	if !peer.Take(w, r, &q) {
		return
	}
	st, t := a.Status(), a.Term()
	err := a.notRestoring()
	if err == nil {
		err = checkOrder(st, t, q)
	}
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	text, err := json.Marshal(q.Order)
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	req := newRequest(store.RequestRestore, st.Primary, q.By)
	req.Options["restore"], req.Options["epoch"] = string(text), strconv.FormatUint(q.Epoch, 10)
	a.ticket(w, r, req)
}

func checkOrder(st cluster.Status, t *cluster.Term, q RestoreVerb) error {
	o := q.Order
	targeted := o.Type == "time" || o.Type == "lsn" || o.Type == "xid" || o.Type == "name"
	switch {
	case st.Primary == "" || t == nil:
		return peer.Refuse(http.StatusConflict, "no_primary", "manada status", "there is no primary: a restore begins with a herd that has one")
	case q.Epoch != t.Epoch:
		return peer.Refuse(http.StatusConflict, "stale_plan", "look at a new plan: manada restore --herd --dry-run", "the primary has changed since the plan was made")
	case o.Set == "" || t.Line(o.Timeline) == nil || targeted != (o.Target != "") ||
		!targeted && o.Type != cluster.RestoreDefault && o.Type != "immediate":
		return peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, "manada restore --herd --help", "an order of a restore names a backup, a timeline of the herd, and a target where its type wants one")
	}
	return nil
}

// serveUndo withdraws the order that stands. This node does it, whichever it is.
func (a *Agent) serveUndo(w http.ResponseWriter, r *http.Request) {
	var q RestoreVerb
	if !peer.Take(w, r, &q) {
		return
	}
	t := a.Term()
	if t == nil || t.Restore == nil {
		e := peer.Refuse(http.StatusConflict, "no_restore", "manada status", "no restore of the herd is under way")
		if t != nil && t.Current().Restored != "" {
			e.Message += fmt.Sprintf("; the last one began epoch %d and cannot be undone any more", t.Epoch)
		}
		peer.WriteError(w, e)
		return
	}
	req := newRequest(store.RequestUndoRestore, a.cfg.Node, q.By)
	req.Options["order"] = t.Restore.ID
	a.ticket(w, r, req)
}

// ticket files a request and answers its id.
func (a *Agent) ticket(w http.ResponseWriter, r *http.Request, q store.Request) {
	if err := a.file(r.Context(), q); err != nil {
		peer.WriteError(w, a.storeDoubt(err))
		return
	}
	peer.WriteJSON(w, Ticket{ID: q.ID, To: q.To})
}

// orderOf reads what a request says of a restore.
func orderOf(q store.Request) (*cluster.Restore, uint64) {
	text, ok := q.Options["restore"]
	if !ok {
		return nil, 0
	}
	var o cluster.Restore
	if json.Unmarshal([]byte(text), &o) != nil {
		return nil, 0
	}
	epoch, _ := strconv.ParseUint(q.Options["epoch"], 10, 64)
	return &o, epoch
}

// restoreView is how far an order has come here, for decide.
func restoreView(o postgres.Observation) decide.LocalRestore {
	m := o.Restore
	if m == nil {
		return decide.LocalRestore{}
	}
	r := decide.LocalRestore{ID: m.Order.ID, Tail: m.Tail, Touched: m.Touched, Restored: m.Restored, Done: o.RestoreDone, ToEnd: m.ToEnd,
		Along: m.Along, Stop: m.Stop}
	if o.Recovering {
		r.Replayed, r.Paused = o.Replayed, o.Paused && o.Unfit == ""
		if o.Unfit != "" {
			r.Obstacle = "replay stopped at a setting that is too low: " + o.Unfit
		}
	}
	return r
}

// restoreStep carries out one step of a restore. It is given up when the order
// no longer stands.
func (a *Agent) restoreStep(ctx context.Context, v *decide.View, act decide.Action) error {
	a.unread()
	if act.Verb == decide.UndoRestore {
		return a.db.UndoRestore(ctx)
	}
	if a.repo == nil {
		return errors.New("no repository is known yet")
	}
	o := *v.Store.Term.Restore
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go a.whileOrdered(ctx, o.ID, cancel)
	switch act.Verb {
	case decide.ArchiveTail:
		return a.db.ArchiveTail(ctx, o, a.repo.Push)
	case decide.RecoverToEnd, decide.RecoverAlong:
		if err := a.stop(ctx, "fast", ""); err != nil {
			return err
		}
		if act.Verb == decide.RecoverToEnd {
			return a.db.RecoverToEnd(o.ID)
		}
		return a.db.RecoverAlong(o.ID, act.Timeline, act.LSN)
	}
	if err := a.db.BeginRestore(ctx, o.ID); err != nil {
		return err
	}
	if err := a.repo.Restore(ctx, o.Set, a.db.Config().DataDir, a.progress("restoring "+o.Set)); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return a.db.FinishRestore(ctx, o.ID)
}

// whileOrdered ends long work when its order was withdrawn.
func (a *Agent) whileOrdered(ctx context.Context, id string, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if t := a.Term(); t != nil && (t.Restore == nil || t.Restore.ID != id) {
			cancel(errors.New("the restore was undone"))
			return
		}
	}
}

// noteRestoring keeps why a step of a restore failed, for `status`.
func (a *Agent) noteRestoring(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.restoreErr = ""
	if t := a.rec.snap.Term; err != nil && t != nil && t.Restore != nil && t.Leader == a.cfg.Node {
		a.restoreErr = fatalLine(err.Error())
	}
}

// fatalLine is what PostgreSQL died of, out of the end of its log.
func fatalLine(s string) string {
	if i := strings.LastIndex(s, "FATAL:"); i >= 0 {
		s, _, _ = strings.Cut(s[i+len("FATAL:"):], "\n")
		return "PostgreSQL: " + strings.TrimSpace(s)
	}
	return strings.ReplaceAll(s, "\n", "; ")
}

// checkpointFirst makes a stop short: the one that PostgreSQL makes while it
// stops has little left to do.
func (a *Agent) checkpointFirst(ctx context.Context) {
	if state, _ := a.running(); state != cluster.PostgresPrimary {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := a.db.Checkpoint(ctx); err != nil {
		a.log.Debug("no checkpoint before the stop", "error", err.Error())
	}
}

// recoveryOp tells people how far the recovery of a restore is.
func (a *Agent) recoveryOp(v *decide.View) string {
	t, m := v.Store.Term, &v.Local.Restore
	if t == nil || t.Restore == nil || t.Leader != a.cfg.Node || !m.Restored || m.Replayed == 0 || m.Paused || m.Replayed >= m.Tail {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mem.recoverFrom == 0 || a.mem.recoverFrom > m.Replayed {
		a.mem.recoverFrom = m.Replayed
	}
	return fmt.Sprintf("recovering %d%%", min(100, uint64(m.Replayed-a.mem.recoverFrom)*100/uint64(m.Tail-a.mem.recoverFrom)))
}

// forgetRestore removes what a restore has left, once the herd is synchronous
// again (or never will be: then once it is open).
func (a *Agent) forgetRestore() {
	if a.db == nil {
		return
	}
	a.mu.Lock()
	t, m := a.rec.snap.Term, a.seen.restore
	alone := a.cfg.Spec.Durability == cluster.Async || a.cfg.Spec.WantK == 0
	a.mu.Unlock()
	if t == nil || t.Restore != nil || !t.Open || m.ID != "" && !m.Done {
		return
	}
	kept := a.db.HasKept()
	if kept && t.K == 0 && !alone || !kept && m.ID == "" {
		return
	}
	mine := a.takeTurn("removing what the restore has left")
	if mine == nil {
		return // it is tried again
	}
	defer mine.giveBack()
	if err := a.db.ForgetRestore(); err != nil {
		a.log.Warn("cannot remove what a restore has left", "error", err.Error())
	}
}

// inWords is a long operation for people: `status` and the command that watches
// a restore show it.
func inWords(act decide.Action) string {
	switch {
	case act.Verb == decide.ArchiveTail:
		return "archiving the last WAL"
	case act.Verb == decide.RestoreData:
		return "restoring the backup's data"
	case act.Verb == decide.RecoverToEnd:
		return "recovering to the end, as nothing was committed after the target"
	case act.Verb == decide.RecoverAlong:
		return "recovering again along the timeline on which the target lies"
	case act.Verb == decide.UndoRestore:
		return "putting back what was there"
	case act.Verb == decide.StartStandby && act.Note == "restore":
		return "starting the recovery"
	case act.Verb == decide.Stop && act.Note == "restore":
		return "stopping PostgreSQL for the restore"
	case act.Verb == decide.Rewind:
		return "rewinding from " + act.To
	case act.Verb == decide.Clone:
		return "cloning from " + act.To
	case act.Verb == decide.Prepare:
		return "the beginning of the switchover to " + act.To
	case act.Verb == decide.HandOver:
		return "handing over to " + act.To
	case act.Verb == decide.Promote:
		return "the promotion"
	case act.Verb == decide.Stop:
		return "stopping PostgreSQL"
	case act.Verb == decide.StartStandby:
		return "starting PostgreSQL as a standby"
	}
	return act.String()
}
