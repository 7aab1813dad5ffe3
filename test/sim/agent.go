package sim

import (
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// The herd's time-outs, in virtual time.
const (
	tick         = 50 // ms
	suspectAfter = 500 * time.Millisecond
	never        = 24 * time.Hour
)

var spec = decide.Spec{
	Durability: cluster.Quorum, WantK: 1,
	SuspectAfter: suspectAfter, DegradeAfter: 600 * time.Millisecond,
	OpenAfter: 500 * time.Millisecond, HandoverAfter: time.Second,
	WithdrawAfter: time.Second, RecloneAfter: 6 * time.Second,
	FreshRead: 200 * time.Millisecond,
	Drain:     decide.Drain{Soft: 100 * time.Millisecond, Hold: 400 * time.Millisecond, For: 1500 * time.Millisecond},
}

// agent is one run of a node's agent: all of it is lost when it crashes.
type agent struct {
	started     int64
	awake       int   // ticks in a row that it ran
	guardAt     int64 // when it looks at the roles again
	pausedUntil int64 // SIGSTOP of the agent alone, or a slow step
	next        *step // decided, not yet carried out

	// The record as last read.
	have, failed, unsettled bool
	term                    *cluster.Term
	rev                     int64
	sent                    int64
	lease                   lease
	leaseSince              int64
	request                 *decide.Request
	requestSince            int64

	seen      observed
	mem       memory
	drain     *draining // nil: no switchover is under way here
	leaving   bool      // a lone leader was stopped and leaves its last word
	asked     bool      // for a switchover
	busy      string
	busyUntil int64
	op        *operation

	heard []heard
	beat  *cluster.Beat
	renew bool
	seq   uint64

	view  decide.View
	peers []decide.Peer
}

// step is a decision on its way to being carried out.
type step struct {
	act decide.Action
	rev int64
	at  int64
}

type heard struct {
	beat    *cluster.Beat
	at      int64
	guard   cluster.PostgresState
	guardAt int64
	sent    int64 // of the newest packet, by the sender
}

// memory is what the agent knows beyond its observations.
type memory struct {
	final      bool
	timeline   cluster.Timeline
	lsn        cluster.LSN
	provedPID  int
	since      cluster.LSN // of the sync setting, once it is in force
	sincePend  bool        // not yet in force in every walsender
	old        []int
	handoverTo string
	downSince  int64
	leads      uint64
	leadsSince int64
	written    uint64
	withdrawn  int
	withdrawAt int64
	promisedAt int64
	hungSince  int64
	progress   cluster.LSN
	progressAt int64
	fork       cluster.LSN
	archived   cluster.LSN
	streamed   [8]int64
	unrecorded string
	lie        string
	heldSince  int64 // since when probes come through although the placeholder is set
	liedTo     int
}

// observed is one look at this node's PostgreSQL and disk.
type observed struct {
	state     cluster.PostgresState
	pid       int
	timeline  cluster.Timeline
	wal       cluster.LSN
	upstream  string
	receiver  bool
	silentFor time.Duration
	nonce     string
	sync      cluster.SyncSetting
	senders   []cluster.Sender
	waiting   int64
	promised  uint64
	dir       disk // flags only
}

func ms(d int64) time.Duration { return time.Duration(d) * time.Millisecond }

func (w *world) newAgent(n *node) *agent {
	a := &agent{started: w.now, heard: make([]heard, len(w.nodes)), seq: uint64(w.now)}
	for i := range a.heard {
		a.heard[i].at, a.heard[i].guardAt = -1<<40, -1<<40
	}
	a.mem = memory{downSince: w.now, promisedAt: w.now, progressAt: w.now, leadsSince: w.now}
	// Writes of an earlier run of this agent may still be on their way (H2).
	a.unsettled = !w.prof.forgetful
	return a
}

// stepAgent lets a node's agent read, observe, decide and act.
func (w *world) stepAgent(n *node) {
	if !n.runs(w.now) {
		if n.a != nil {
			n.a.awake = 0
		}
		return
	}
	if n.a == nil {
		if n.agentAt > w.now {
			return
		}
		n.a = w.newAgent(n)
		w.observe(n)
	}
	a := n.a
	if a.pausedUntil > w.now {
		a.awake = 0
		return
	}
	a.awake++
	if a.mem.leads != 0 && a.seen.state == cluster.PostgresPrimary && a.guardAt <= w.now {
		w.guard(n)
	}
	w.stepOperation(n)
	if w.chance(900) {
		w.look(n)
	}
	if w.chance(800) {
		w.readStore(n)
	}
	if s := a.next; s != nil {
		if s.at > w.now {
			return
		}
		a.next = nil
		if !w.act(n, s.act, s.rev) {
			return
		}
	}
	w.think(n)
	if a.renew && w.reaches(n) && w.chance(900) {
		a.seq++
		w.st.lease = lease{n.name, a.term.Epoch, a.seq}
	}
}

// think makes up to three quick decisions in a row and carries them out.
func (w *world) think(n *node) {
	a := n.a
	for i := range 3 {
		if i > 0 || w.chance(850) {
			w.observe(n)
		}
		d := decide.Decide(w.viewOf(n))
		w.stats.Decisions++
		a.renew = d.Renew && a.term != nil
		w.publish(n, d)
		w.note(n, d)
		if len(d.Actions) == 0 {
			return
		}
		act := d.Actions[0]
		if !w.healing && w.chance(w.prof.slowAct) {
			a.next = &step{act, a.rev, w.now + int64(1+w.rng.IntN(8))*tick}
			return
		}
		if !w.act(n, act, a.rev) {
			return
		}
	}
}

func (w *world) note(n *node, d decide.Decision) {
	if w.tracing && len(d.Actions) > 0 {
		w.logf("%s: [%s] %s -> %s", n.name, d.Rule, d.Reason, d.Actions[0])
	}
}

// readStore is one linearizable read.
func (w *world) readStore(n *node) bool {
	a := n.a
	if !w.reaches(n) {
		if a.have && w.now-a.sent > 2*tick {
			a.failed = true
		}
		return false
	}
	if !a.have && w.st.term != nil && w.st.term.Leader != n.name {
		a.unsettled = false // only a leader's late writes change what PostgreSQL obeys
	}
	if !a.have || a.lease != w.st.lease {
		a.lease, a.leaseSince = w.st.lease, w.now
	}
	if w.st.term != nil && (a.term == nil || a.term.Epoch != w.st.term.Epoch) {
		a.newEpoch()
	}
	if r := w.st.request; r != a.request {
		a.request, a.requestSince = r, w.now
	}
	a.term, a.rev, a.sent, a.have, a.failed = w.st.term, w.st.rev, w.now, true, false
	if a.term != nil {
		n.d.highEpoch = max(n.d.highEpoch, a.term.Epoch)
	}
	return true
}

func (a *agent) newEpoch() {
	m := &a.mem
	a.drain = nil
	m.handoverTo, m.old, m.since, m.sincePend, m.withdrawn, m.archived = "", nil, 0, false, 0, 0
	m.streamed = [8]int64{}
}

// observe looks at PostgreSQL and the disk once.
func (w *world) observe(n *node) {
	a, p := n.a, n.pg
	o, old := &a.seen, a.seen.state
	o.state = n.state(w.now)
	o.dir = disk{instance: n.d.instance, empty: n.d.empty, poisoned: n.d.poisoned, former: n.d.former, cleanStop: n.d.cleanStop, remade: n.d.remade}
	o.promised, o.upstream, o.sync = n.d.promised, n.upstream, n.syncFile
	o.silentFor, o.receiver, o.waiting = never, false, 0
	o.senders = o.senders[:0]
	if p == nil {
		o.pid = 0
		o.wal, o.timeline = n.d.wal.end(), n.d.wal.timeline()
	} else {
		w.observeRunning(n, o)
	}
	w.noteChange(n, old)
}

func (w *world) observeRunning(n *node, o *observed) {
	p := n.pg
	o.pid = p.pid
	o.receiver = p.recv != nil
	if p.recv != nil && p.recv.streaming {
		o.silentFor = ms(w.now - p.recv.lastMsg)
	}
	if o.state == cluster.PostgresHung {
		return // what it was before it hung
	}
	o.wal, o.timeline = n.d.wal.end(), n.d.wal.timeline()
	o.nonce = w.controlNonce(n)
	for _, s := range p.senders {
		s.seen = true
		x := cluster.Sender{Name: s.name, State: "streaming", Sync: "async", Flush: cluster.LSN(s.flush), PID: s.pid, Stranger: s.stranger}
		if s.listed {
			x.Sync = "quorum"
		}
		o.senders = append(o.senders, x)
	}
	if len(p.waiting) > 0 {
		o.waiting = w.now - p.waiting[0].since
	}
}

func (w *world) noteChange(n *node, old cluster.PostgresState) {
	a := n.a
	o, m := &a.seen, &a.mem
	if o.state == cluster.PostgresDown && old != cluster.PostgresDown {
		m.downSince = w.now
	}
	if o.state != cluster.PostgresHung {
		m.hungSince = 0
	} else if m.hungSince == 0 {
		m.hungSince = w.now
	}
	if o.wal != m.progress || !o.receiver && o.state != cluster.PostgresStandby || o.receiver && o.silentFor < suspectAfter {
		m.progress, m.progressAt = o.wal, w.now
	}
	w.noteLeading(n)
	w.noteStrangers(n)
	for _, s := range o.senders {
		node, e, ok := cluster.ParseCertifiedName(s.Name)
		if ok && s.Stranger == "" && a.term != nil && e == a.term.Epoch {
			m.streamed[w.index(node)] = w.now
		}
	}
	if m.sincePend && w.inForce(n) && len(a.oldSenders()) == 0 {
		m.since, m.sincePend = o.wal, false
	}
}

// inForce: no walsender that the setting does not list says that it is listed.
func (w *world) inForce(n *node) bool {
	o := &n.a.seen
	if o.state != cluster.PostgresPrimary {
		return false
	}
	for _, s := range o.senders {
		if s.Sync == "async" {
			continue
		}
		listed := false
		for _, name := range o.sync.Names {
			listed = listed || name == s.Name
		}
		if !listed {
			return false
		}
	}
	return true
}

// noteLeading: a primary leads the epoch to which its timeline was allocated.
func (w *world) noteLeading(n *node) {
	a := n.a
	o, m := &a.seen, &a.mem
	leads := uint64(0)
	switch {
	case o.state == cluster.PostgresPrimary && a.term != nil:
		if e, ok := a.term.EpochOf(o.timeline); ok {
			if b, _ := a.term.Branch(e); b.Leader == n.name {
				leads = e
			}
		}
	case o.state == cluster.PostgresHung || o.state == cluster.PostgresStopping:
		leads = m.leads
	}
	if leads == m.leads {
		return
	}
	m.leads, m.leadsSince = leads, w.now
	if leads == 0 {
		m.written = 0
	}
	if leads != 0 && a.term.K >= 1 && len(o.sync.Names) > 0 {
		m.provedPID = o.pid
	}
}
