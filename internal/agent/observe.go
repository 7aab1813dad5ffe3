package agent

import (
	"context"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/postgres"
)

// observed is the newest observation in the words of decide. Guarded by Agent.mu.
type observed struct {
	at             time.Time
	state          cluster.PostgresState
	hungWhy        string
	postmaster     int
	treeEmpty      bool
	empty          bool
	poisoned       bool
	cleanStop      bool
	former         bool
	instance       string
	remade         uint64
	systemID       string
	promised       uint64
	timeline       cluster.Timeline
	wal            cluster.LSN
	replay         cluster.LSN
	lagMS          *int64
	upstream       string
	receiver       bool
	silentFor      time.Duration
	controlNonce   string
	controlEpoch   uint64
	controlTable   bool // whether there is one that could be read
	sync           cluster.SyncSetting
	senders        []cluster.Sender
	maxSenders     int
	replied        []time.Time // by senders[i]'s standby, if its clock is right
	waiting        time.Duration
	pendingRestart []string
	lostSlots      []string
	logicalSlots   []string // that nobody uses
	crowded        bool     // ordinary roles leave no connection for our own
	refused        string   // why new connections keep failing
	receiverError  string   // why a standby does not stream
	restore        decide.LocalRestore
	historyFault   string
	rewound        int // in epoch rewoundIn
	rewoundIn      uint64
}

// streams says whether a receiver streams, also one that has nothing to receive.
func (s *observed) streams() bool { return s.receiver && s.silentFor < never }

// observeLoop looks every beat; actions and the guardian make it look sooner.
func (a *Agent) observeLoop(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.observe(ctx)
		}
	}
}

// observe looks once. Observations never overlap, so that an older one cannot
// overwrite a newer.
func (a *Agent) observe(ctx context.Context) {
	a.looking.Lock()
	defer a.looking.Unlock()
	a.mu.Lock()
	steps := a.steps
	a.mu.Unlock()
	o, err := a.db.Observe(ctx)
	if err != nil {
		return // the guardian does not answer; guardianLoop says so and starts another
	}
	if o.SyncSource != "" && strings.HasSuffix(o.SyncSource, "postgresql.auto.conf") {
		select {
		case a.overridden <- struct{}{}:
		default:
		}
	}
	s := translate(o)
	if s.crowded {
		a.makeRoom(ctx)
	}
	a.mu.Lock()
	overtaken := steps != a.steps
	changed := false
	for i, w := range o.Senders {
		s.senders[i].Stranger = a.stranger(w.Name, w.Role, w.Addr)
	}
	changed = a.passedBy(&s, o.Started)
	if !overtaken {
		changed = a.noteChange(&s) || changed
		a.seen = s
	}
	a.mu.Unlock()
	if changed {
		a.poke()
	}
}

func translate(o postgres.Observation) observed {
	s := observed{
		at: o.At, state: o.State, hungWhy: o.Why, postmaster: o.PID, treeEmpty: o.TreeEmpty,
		empty: !o.HasData, poisoned: o.Poison != nil && (o.Poison.Touched || o.Poison.What == "clone"), cleanStop: o.CleanStop, former: o.FormerPrimary,
		instance: o.Instance, remade: o.Remade, timeline: o.Timeline, replay: o.Replayed, lagMS: o.LagMS,
		upstream: o.Upstream, receiver: len(o.Receivers) > 0, waiting: o.OldestWait,
		pendingRestart: o.PendingRestart, silentFor: never, historyFault: o.HistoryFault,
		rewound: o.Rewound, rewoundIn: o.RewoundIn,
	}
	if o.Streaming {
		s.silentFor = o.MessageAge
	}
	if c := o.Control; c != nil {
		s.systemID = c.SystemID
		if s.timeline == 0 {
			s.timeline = c.Timeline
		}
	}
	s.crowded, s.refused, s.receiverError = o.Crowded, o.Refused, o.ReceiverError
	s.restore = restoreView(o)
	if o.Promise != nil {
		s.promised = o.Promise.Epoch
	}
	s.controlTable = o.ControlTable
	if o.ControlRow != nil {
		s.controlNonce, s.controlEpoch = o.ControlRow.Nonce, o.ControlRow.Epoch
	}
	s.wal = max(o.Received, o.Replayed)
	if o.State == cluster.PostgresPrimary {
		s.wal, s.replay = o.Inserted, o.Inserted
	}
	var ok bool
	if s.sync, ok = cluster.ParseSyncSetting(o.Sync); !ok {
		s.sync = cluster.SyncSetting{K: -1} // set by hand: equal to nothing, so it is set again
	}
	for _, w := range o.Senders {
		w.Sender.Start = w.BackendStart.UnixMicro()
		s.senders = append(s.senders, w.Sender)
		s.replied = append(s.replied, o.At.Add(-w.ReplyAge))
	}
	s.maxSenders = o.MaxSenders
	for _, slot := range o.Slots {
		if slot.Logical && !slot.Active {
			s.logicalSlots = append(s.logicalSlots, slot.Name)
		}
		if slot.Status == "lost" {
			s.lostSlots = append(s.lostSlots, slot.Name)
		}
	}
	return s
}

// noteChange keeps the ages that decide needs and says whether the loop should
// look at once. Called with mu held.
func (a *Agent) noteChange(s *observed) bool {
	old, m, now := &a.seen, &a.mem, time.Now()
	if s.state == cluster.PostgresDown && old.state != cluster.PostgresDown {
		m.downSince = now
	}
	if s.state != cluster.PostgresHung {
		m.hungSince = time.Time{}
	} else {
		if m.hungSince.IsZero() {
			m.hungSince = now
		}
		s.keepFrom(old)
	}
	if s.promised != 0 && old.promised == 0 && m.promisedAt.IsZero() {
		m.promisedAt = now
	}
	if s.wal != m.progress || !s.receiver && s.state != cluster.PostgresStandby {
		m.progress, m.progressAt = s.wal, now
	}
	if s.streams() { // an idle primary sends nothing at all
		m.progressAt = now
	}
	a.noteLeading(s, now)
	urgent := a.noteStrangers(s)
	t := a.rec.snap.Term
	for i, w := range s.senders {
		if node, e, ok := cluster.ParseCertifiedName(w.Name); ok && t != nil && e == t.Epoch && w.State == "streaming" && w.Stranger == "" && a.answers(node, w, s.reply(i), now) {
			m.streamed[node] = now
		}
	}
	return urgent || s.state != old.state || s.postmaster != old.postmaster || s.receiver != old.receiver ||
		s.promised != old.promised || s.controlNonce != old.controlNonce || len(s.senders) != len(old.senders)
}

// reply is when the standby behind a walsender last replied, as it says.
func (s *observed) reply(i int) time.Time {
	if i >= len(s.replied) {
		return time.Time{}
	}
	return s.replied[i]
}

// keepFrom: a PostgreSQL that hangs is what it was before it hung.
func (s *observed) keepFrom(old *observed) {
	if s.postmaster != old.postmaster {
		return
	}
	s.timeline, s.wal, s.replay = old.timeline, old.wal, old.replay
	s.controlNonce, s.controlEpoch, s.sync = old.controlNonce, old.controlEpoch, old.sync
}

// noteLeading: a primary leads the epoch to which its timeline was allocated.
// Also called when a record arrives: an agent that was started again beside a
// running primary sees that first.
func (a *Agent) noteLeading(s *observed, now time.Time) {
	m, t := &a.mem, a.rec.snap.Term
	leads := uint64(0)
	switch {
	case s.state == cluster.PostgresPrimary && t != nil:
		leads = ledEpoch(t, s.timeline, a.cfg.Node)
	case s.state == cluster.PostgresHung || s.state == cluster.PostgresStopping:
		leads = m.leads
	}
	if leads != m.leads {
		m.leadsSince = now
		m.leads = leads
		if leads == 0 {
			m.writtenEpoch = 0
		}
		// A running primary that was adopted: commits provably wait when the
		// record says k >= 1, for that was only written after the proof.
		if leads != 0 && t.K >= 1 && len(s.sync.Names) > 0 {
			m.provedPID = s.postmaster
		}
	}
	// Somebody deleted the row, or the table, which was made anew without it.
	if leads != 0 && s.state == cluster.PostgresPrimary && s.controlTable && s.controlEpoch != leads {
		m.writtenEpoch = 0
	}
}

func ledEpoch(t *cluster.Term, tl cluster.Timeline, node string) uint64 {
	e, ok := t.EpochOf(tl)
	if b, _ := t.Branch(e); !ok || b.Leader != node {
		return 0
	}
	return e
}

// promiseOf is what goes to disk before the store hears of it.
func (a *Agent) promiseOf(act decide.Action) cluster.Promise {
	a.mu.Lock()
	defer a.mu.Unlock()
	return cluster.Promise{Node: a.cfg.Node, Instance: a.seen.instance, Epoch: act.Epoch}
}
