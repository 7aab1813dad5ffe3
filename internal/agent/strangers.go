package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
	"manada/internal/postgres"
)

// strangers is what this agent has seen of walsenders that are not their names'.
// Guarded by Agent.mu.
type strangers struct {
	// unrecorded is who bore a member's name since the record last said k = 0.
	unrecorded string
	// lie is who reported a flush beyond the WAL to the postmaster liedTo.
	lie    string
	liedTo int
	// through is since when probe commits have not waited, of postmaster throughTo.
	through   time.Time
	throughTo int
	seen      map[int]*impostor // by pid of the walsender, while it lives
	told      []impostor        // those that are gone
	looks     []look
	started   []postgres.SenderStart // not judged yet
}

// impostor is one walsender that bore a member's name.
type impostor struct {
	name, who string
	pid       int
	since     time.Time
	counted   bool        // commits waited for that name
	from, to  cluster.LSN // what it may have acknowledged, and no member has
	gone      time.Time
}

// look is where the WAL ended at a moment, in the last seconds.
type look struct {
	at  time.Time
	wal cluster.LSN
}

const (
	looksKept     = 30
	impostorShown = 24 * time.Hour
)

// noteStrangers keeps what decide needs to know of false flush positions and
// false names, also when they are gone. While a false name is borne nothing
// counts as proved: what it releases lies before whatever is waited for again.
// Called with mu held; it says whether the loop should look at once.
func (a *Agent) noteStrangers(s *observed) bool {
	x, m := &a.strangers, &a.mem
	if s.state != cluster.PostgresPrimary {
		return false
	}
	here := map[int]bool{}
	for _, w := range s.senders {
		if _, _, ok := cluster.ParseCertifiedName(w.Name); ok && w.Flush > s.wal {
			x.lie, x.liedTo = fmt.Sprintf("%s reported WAL flushed to %s beyond this primary's end", w.Name, w.Flush), s.postmaster
		}
		if w.Impostor() {
			here[w.PID] = true
			a.meet(s, w)
		}
	}
	t := a.rec.snap.Term
	if len(here) > 0 {
		m.provedPID, m.syncSince = 0, 0
	} else if t != nil && t.K == 0 && !a.rec.unsettled { // else k = 1 may still be on its way
		x.unrecorded = ""
	}
	for pid, i := range x.seen {
		if !here[pid] {
			delete(x.seen, pid)
			a.part(s, *i)
		}
	}
	if x.looks = append(x.looks, look{s.at, s.wal}); len(x.looks) > looksKept {
		x.looks = slices.Delete(x.looks, 0, 1)
	}
	return len(here) > 0
}

// releasedAfter is how long commits may come through although the placeholder
// is set; a checkpointer that is held up takes the setting over late.
const releasedAfter = 2 * time.Minute

// probed: a probe commit waited, or it did not. When they go on coming through
// under the placeholder, a position beyond the WAL was released, by somebody who
// was not seen: only a restart of PostgreSQL helps.
func (x *strangers) probed(waited bool, postmaster int, now time.Time) {
	switch {
	case waited || x.throughTo != postmaster:
		x.through, x.throughTo = now, postmaster
	case now.Sub(x.through) > releasedAfter:
		x.lie, x.liedTo = "commits do not wait although they should: a position beyond this primary's end was released", postmaster
	}
}

// meet notes an impostor that is there.
func (a *Agent) meet(s *observed, w cluster.Sender) {
	x := &a.strangers
	x.unrecorded = w.Name + " is borne by " + w.Stranger
	counts := slices.Contains(s.sync.Names, w.Name)
	if i, known := x.seen[w.PID]; known {
		i.counted = i.counted || counts
		return
	}
	i := &impostor{name: w.Name, who: w.Stranger, pid: w.PID, since: time.UnixMicro(w.Start).UTC(), counted: counts}
	for _, l := range x.looks { // the last end of the WAL before it began
		if i.from == 0 || l.at.Before(i.since) {
			i.from = l.wal
		}
	}
	if x.seen == nil {
		x.seen = map[int]*impostor{}
	}
	x.seen[w.PID] = i
	a.event("impostor", a.mem.leads, fmt.Sprintf("%s is borne by %s since %s", i.name, i.who, i.since.Format(time.RFC3339)))
}

// passedBy notes impostors that came and went between two looks, which are in
// PostgreSQL's log only. Called with mu held; it says whether there were any.
func (a *Agent) passedBy(s *observed, started []postgres.SenderStart) bool {
	x, any := &a.strangers, false
	x.started = append(x.started, started...)
	if s.state == cluster.PostgresHung { // it was the primary, and may be again
		return false
	}
	started, x.started = x.started, nil
	if s.state != cluster.PostgresPrimary {
		return false
	}
	for _, b := range started {
		there := slices.ContainsFunc(s.senders, func(w cluster.Sender) bool { return w.PID == b.PID })
		if _, known := x.seen[b.PID]; known || there || x.toldOf(b) {
			continue
		}
		any = true
		w := cluster.Sender{PID: b.PID, Name: b.Name, Start: b.At.UnixMicro(), Stranger: "role " + b.Role}
		if b.At.IsZero() && len(x.looks) > 0 {
			w.Start = x.looks[len(x.looks)-1].at.UnixMicro()
		}
		a.meet(s, w)
		a.mem.provedPID, a.mem.syncSince = 0, 0
		a.part(s, *x.seen[b.PID])
		delete(x.seen, b.PID)
	}
	return any
}

// toldOf says whether a line of the log, which may come late, is of one that was
// seen and is gone.
func (x *strangers) toldOf(b postgres.SenderStart) bool {
	return slices.ContainsFunc(x.told, func(i impostor) bool {
		return i.pid == b.PID && i.name == b.Name && (b.At.IsZero() || i.gone.After(b.At))
	})
}

// strangersLoop looks at PostgreSQL's log between two observations: the sooner
// somebody under a member's name is found, the less it acknowledges.
func (a *Agent) strangersLoop(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Beat / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if a.leading() && a.db.StrangerBegan() {
			a.observe(ctx)
		}
	}
}

// part notes that an impostor is gone, and what it may have acknowledged that no
// true member has.
func (a *Agent) part(s *observed, i impostor) {
	i.gone, i.to = time.Now(), s.wal
	for _, w := range s.senders {
		if cluster.IsMemberName(w.Name) && w.Stranger == "" {
			i.from = max(i.from, w.Flush)
		}
	}
	if !i.counted || i.from > i.to {
		i.from = i.to
	}
	a.strangers.told = append(a.strangers.told, i)
	a.event("impostor", a.mem.leads, fmt.Sprintf("%s, borne by %s since %s, is gone: %s", i.name, i.who, i.since.Format(time.RFC3339), i.acknowledged()))
}

func (i impostor) acknowledged() string {
	if i.from >= i.to {
		return "nothing was acknowledged by it that no standby has"
	}
	return fmt.Sprintf("commits from %s to %s were acknowledged by an impostor", i.from, i.to)
}

// impostorThere says whether somebody bears a member's name at this moment.
func impostorThere(senders []cluster.Sender) bool {
	return slices.ContainsFunc(senders, cluster.Sender.Impostor)
}

// impostorConditions is called with mu held.
func (a *Agent) impostorConditions() []cluster.Condition {
	x := &a.strangers
	x.told = slices.DeleteFunc(x.told, func(i impostor) bool { return time.Since(i.gone) > impostorShown })
	var cs []cluster.Condition
	say := func(i impostor, what string) {
		cs = append(cs, health.Say(health.Impostor, a.cfg.Node, "name", i.name, "who", i.who,
			"since", i.since.Format(time.RFC3339), "acknowledged", what))
	}
	for _, i := range x.seen {
		say(*i, "its walsender is being ended")
	}
	// One that comes back again and again is one line.
	last := map[string]impostor{}
	for _, i := range x.told {
		if o, ok := last[i.name+i.who]; ok && o.from < o.to && i.from >= i.to {
			continue
		}
		last[i.name+i.who] = i
	}
	for _, i := range last {
		say(i, i.acknowledged())
	}
	slices.SortFunc(cs, func(x, y cluster.Condition) int { return cmp.Compare(x.Text, y.Text) })
	return cs
}
