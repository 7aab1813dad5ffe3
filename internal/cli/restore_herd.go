package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os/user"
	"strings"
	"time"

	"manada/internal/agent"
	"manada/internal/cluster"
	"manada/internal/health"
	"manada/internal/peer"
	"manada/internal/process"
	"manada/internal/verb"
)

type herdFlags struct {
	herd, keepOld, yes, dryRun, resume, undo bool
	timeline                                 uint32
	timeout                                  time.Duration
}

// restoreHerd plans, asks, orders and watches a restore of the herd.
func (a *app) restoreHerd(ctx context.Context, all restoreFlags) error {
	f := all.on
	kind, target, err := all.at.resolve()
	if err != nil {
		return err
	}
	c, err := a.open()
	if err != nil {
		return err
	}
	t, _, err := c.term(ctx)
	if err != nil {
		return err
	}
	q := process.PlanRequest{Type: kind, Target: target, Exclusive: all.at.exclusive, Timeline: cluster.Timeline(f.timeline), Set: all.set, KeepOld: f.keepOld}
	switch o := t.Restore; {
	case f.undo:
		return a.undoRestore(ctx, c, f.timeout)
	case o != nil && (f.resume || sameWish(q, o)) && !f.dryRun:
		a.say("a restore of the herd to %s is under way (order %s); watching it", o.To(), o.ID)
		return a.watchRestore(ctx, c, o.ID, f.timeout)
	case o != nil:
		return fail(exitFailed, "manada restore --herd --resume  watches it, --undo ends it", "another restore is under way, to %s", o.To())
	case f.resume:
		return a.resumeOver(ctx, c, t, f.timeout)
	}
	var p process.RestorePlan
	if err := c.write(ctx, verb.Plan, q, &p); err != nil {
		return err
	}
	if a.output != "json" || f.dryRun { // one document: the plan, or the result
		if err := a.showPlan(p); err != nil || f.dryRun {
			return err
		}
	}
	if len(p.Undone) > 0 {
		if err := a.confirmUndone(c, f.yes); err != nil {
			return err
		}
	}
	return a.orderRestore(ctx, c, p, f.timeout)
}

// term is the newest record that the hosts know.
func (c *caller) term(ctx context.Context) (*cluster.Term, []peer.Row, error) {
	rows, _, err := read[[]peer.Row](ctx, c, verb.View, time.Second)
	if err != nil {
		return nil, nil, err
	}
	t, _ := peer.NewestTerm(rows)
	if t == nil {
		return nil, nil, fail(exitFailed, "manada status", "the herd's record is not known yet")
	}
	return t, rows, nil
}

// sameWish says whether somebody types again what is under way. What he leaves
// to the plan may be anything.
func sameWish(q process.PlanRequest, o *cluster.Restore) bool {
	return q.Type == o.Type && q.Target == o.Target && q.Exclusive == o.Exclusive && q.KeepOld == o.KeepOld &&
		(q.Set == "" || q.Set == o.Set) && (q.Timeline == 0 || q.Timeline == o.Timeline)
}

// resumeOver: nothing is under way any more; perhaps it has only just ended.
func (a *app) resumeOver(ctx context.Context, c *caller, t *cluster.Term, timeout time.Duration) error {
	if id := t.Current().Restored; id != "" {
		return a.watchRestore(ctx, c, id, timeout)
	}
	return fail(exitFailed, "manada restore --herd  begins one", "no restore of the herd is under way")
}

func (a *app) confirmUndone(c *caller, yes bool) error {
	if !yes && !a.asks() {
		return fail(exitRefused, "add --yes if you are sure", "commits will be undone and nobody is there to confirm it")
	}
	return a.confirm(yes, c.id.Cluster(), "The herd goes back; what is listed under UNDONE will be gone on every node.")
}

// showPlan tells what will happen, before it does.
func (a *app) showPlan(p process.RestorePlan) error {
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(struct {
			Schema int `json:"schema"`
			process.RestorePlan
		}{1, p})
	}
	o := p.Order
	a.print("PLAN  restore the herd to %s", o.To())
	a.print("  backup    %s (%s), ended %s: %s, %s to read", o.Set, p.Kind, p.Stop.UTC().Format("2006-01-02 15:04:05Z"), bytesText(p.Size), bytesText(p.Read))
	a.print("  WAL       %d archived segments, %s, and what %s has not archived yet; timeline %d", p.Segments, bytesText(p.WALBytes), p.Node, o.Timeline)
	a.print("  data of   %s, its files that are as in the backup stay", p.Node)
	if o.KeepOld {
		a.print("  old data  is kept beside until the herd is synchronous again: %s needed, %s free", bytesText(p.Need), bytesText(p.Free))
	} else {
		a.print("  old data  is replaced; %s", wayBack(p.Standbys))
	}
	a.print("  takes     about %s (%s); nobody can connect meanwhile", time.Duration(p.Seconds)*time.Second, p.From)
	if len(p.Standbys) > 0 {
		a.print("  then      %s: followed or rewound, synchronous again", strings.Join(p.Standbys, ", "))
	}
	if len(p.Undone) == 0 {
		a.print("UNDONE  nothing: every acknowledged commit comes back")
	}
	for _, u := range p.Undone {
		a.print("UNDONE  %s", u)
	}
	for _, w := range p.Warnings {
		a.say("warning: %s", w)
	}
	return nil
}

func wayBack(standbys []string) string {
	if len(standbys) == 0 {
		return "there is no way back but another restore"
	}
	return "the way back (--undo) is the data of " + strings.Join(standbys, ", ")
}

func (a *app) orderRestore(ctx context.Context, c *caller, p process.RestorePlan, timeout time.Duration) error {
	if u, err := user.Current(); err == nil {
		p.By = u.Username
	}
	var k agent.Ticket
	if err := c.write(ctx, verb.Restore, p.RestoreVerb, &k); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := c.result(wait, k.ID)
	switch {
	case ctx.Err() != nil:
		return watchInterrupted()
	case err != nil:
		return fail(exitUnknown, "manada restore --herd --resume  or  manada status  says what became of it", "the restore was asked for (request %s), no outcome within a minute", k.ID)
	case r.Code != 0:
		return fail(r.Code, "manada status", "the restore was not begun: %s", r.Text)
	}
	a.say("%s (order %s)", r.Text, k.ID)
	return a.watchRestore(ctx, c, k.ID, timeout)
}

func watchInterrupted() error {
	return fail(exitInterrupted, "manada restore --herd --resume  watches it, --undo ends it", "interrupted; the restore goes on without us")
}

// stuckFor is how long a failing step is left to mend itself before the command
// gives up watching.
const stuckFor = 10 * time.Second

// restoreWatch remembers what was said of a restore.
type restoreWatch struct {
	*app
	p       *progress
	said    string
	failing time.Time
}

// under tells of a restore that is under way; the error says that it does not
// go on.
func (w *restoreWatch) under(op, why string) error {
	w.p.said(op)
	if phase := strings.TrimRight(op, "0123456789%"); phase != w.said && !w.p.bar {
		w.said = phase
		w.say("restore: %s", op)
	}
	switch {
	case why == "":
		w.failing = time.Time{}
	case w.failing.IsZero():
		w.failing = time.Now()
	case time.Since(w.failing) > stuckFor:
		return fail(exitFailed, "manada restore --herd --undo  or mend it, then  --resume", "the restore does not go on: %s", why)
	}
	return nil
}

// watchRestore tells how an order goes on until the herd is synchronous again.
func (a *app) watchRestore(ctx context.Context, c *caller, id string, timeout time.Duration) error {
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	began := time.Now()
	w := &restoreWatch{app: a, p: a.newProgress("restore")}
	defer w.p.end()
	for {
		t, rows, err := c.term(wait)
		switch {
		case err != nil:
		case t.Restore != nil && t.Restore.ID == id:
			if err := w.under(leaderSays(t, rows)); err != nil {
				return err
			}
		default:
			b, done := t.RestoredBy(id)
			if !done {
				return fail(exitFailed, "manada status", "the restore was undone, or never begun")
			}
			if ok, state := synchronous(wait, c, t, b.Epoch); ok {
				w.p.end()
				return a.restored(t, b, time.Since(began))
			} else {
				w.p.show(state, 0, 0)
			}
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return watchInterrupted()
			}
			return fail(exitUnknown, "manada restore --herd --resume  watches it on", "the restore is not done after %s; it goes on", timeout)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// leaderSays is what the restoring node does, and why it fails if it does.
func leaderSays(t *cluster.Term, rows []peer.Row) (op, why string) {
	for _, r := range rows {
		if r.Node != t.Leader || r.From != "agent" {
			continue
		}
		op = r.Op
		if op == "" {
			op = strings.TrimPrefix(r.Reason, "restore: ")
		}
		for _, x := range r.Conditions {
			if x.Code == string(health.RestoreFails) {
				why = x.Text
			}
		}
		if r.AgeMS > 3000 {
			op = t.Leader + " does not answer; it goes on when it is back"
		}
		return op, why
	}
	return t.Leader + " has not been heard", ""
}

// synchronous says whether the herd is whole again: open, and commits wait for
// as many as they should, if there is anybody to wait for.
func synchronous(ctx context.Context, c *caller, t *cluster.Term, epoch uint64) (bool, string) {
	s, err := c.status(ctx)
	switch {
	case err != nil:
		return false, "no host of the herd answers"
	case s.Primary == "" || s.Epoch < epoch:
		return false, "restored; the primary is being promoted"
	case s.K >= 1 || t.Durability == cluster.Async || t.WantK == 0:
		return true, ""
	}
	standbys := 0
	for _, n := range s.Nodes {
		if n.Role == cluster.RoleStandby {
			standbys++
		}
	}
	return standbys == 0, "restored; the standbys are coming back"
}

func (a *app) restored(t *cluster.Term, b cluster.Branch, took time.Duration) error {
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "order": b.Restored, "epoch": b.Epoch, "primary": b.Leader,
			"timeline": b.Timeline, "fork_lsn": b.ForkLSN, "sync": t.Sync, "seconds": took.Seconds()})
	}
	with := "it commits alone, as no standby is there"
	if len(t.Sync) > 0 {
		names := make([]string, len(t.Sync))
		for i, m := range t.Sync {
			names[i] = m.Name
		}
		with = "synchronous with " + strings.Join(names, ", ")
	}
	a.print("restored: %s is the primary of epoch %d, timeline %d from %s on, %s (%.1f s)", b.Leader, b.Epoch, b.Timeline, b.ForkLSN, with, took.Seconds())
	a.print("Next: a new full backup, so that the next restore need not follow the old line:")
	a.print("  manada backup --type full")
	return nil
}

func (a *app) undoRestore(ctx context.Context, c *caller, timeout time.Duration) error {
	if timeout <= 0 {
		timeout = 5 * time.Minute
	}
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q := agent.RestoreVerb{}
	if u, err := user.Current(); err == nil {
		q.By = u.Username
	}
	var k agent.Ticket
	if err := c.write(wait, verb.Undo, q, &k); err != nil {
		return err
	}
	r, err := c.result(wait, k.ID)
	switch {
	case ctx.Err() != nil:
		return fail(exitInterrupted, "manada status", "interrupted; the request to undo goes on without us")
	case err != nil:
		return fail(exitUnknown, "manada status", "undoing the restore: no outcome within %s", timeout)
	case r.Code != 0:
		return fail(r.Code, "manada restore --herd --resume", "%s", r.Text)
	}
	a.say("%s", r.Text)
	for {
		if s, err := c.status(wait); err == nil && s.Primary != "" {
			a.print("undone: %s is the primary of epoch %d", s.Primary, s.Epoch)
			return nil
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return fail(exitInterrupted, "manada status", "interrupted; the restore is undone, a primary comes by itself")
			}
			return fail(exitNoPrimary, "manada explain", "the restore is undone, but there is no primary after %s", timeout)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// checkHerdFlags refuses what goes with a new directory only, and the other way round.
func checkHerdFlags(f restoreFlags) error {
	one := fmt.Sprint(f.on.resume, f.on.undo)
	switch {
	case f.on.herd && f.action != "promote":
		return usage("leave it out", "--target-action %s: a herd that was restored goes on as a herd", f.action)
	case f.on.herd && f.to != "": // --delta is what --herd does anyway
		return usage("manada restore --herd  or  manada restore --to DIR", "--herd restores the running herd, --to a copy into a directory: one or the other")
	case f.on.herd && one == "true true":
		return usage("one of them", "--resume and --undo")
	case f.on.herd && (len(f.spaces) > 0 || f.allSpaces != ""):
		return usage("leave it out", "--tablespace-map goes with --to: the herd's tablespaces stay where they are")
	case !f.on.herd && (f.on.resume || f.on.undo || f.on.keepOld || f.on.yes):
		return usage("add --herd", "--keep-old, --yes, --resume and --undo go with --herd")
	}
	return nil
}
