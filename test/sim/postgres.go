package sim

import (
	"slices"

	"manada/internal/cluster"
)

const (
	segment    = 48   // entries; streaming begins at the start of one
	walTimeout = 1500 // ms: wal_sender_timeout and wal_receiver_timeout
	maxClients = 8    // commits that wait at the same time
)

// phase of a PostgreSQL whose processes live.
type phase uint8

const (
	starting  phase = iota
	standby         // in recovery, answering
	promoting       // in recovery, told to promote
	primary
	stopping // fast stop under way
	dying    // postmaster gone, its processes not yet
)

// postgres is what lives in processes and shared memory. What survives them is
// in disk.
type postgres struct {
	pid         int
	phase       phase
	until       int64 // when a transition is due
	hungUntil   int64 // SIGSTOP of the whole tree
	founding    bool  // starts as a primary
	epoch       uint64
	toTimeline  cluster.Timeline
	fork        int
	flag        bool  // shared: synchronous standbys are defined; kept by the checkpointer
	flagAt      int64 // when the checkpointer gets to a reload, 0: nothing pending
	slowUntil   int64 // a checkpoint keeps the checkpointer busy
	released    int   // high-water mark of what standbys have flushed
	senders     []*sender
	waiting     []waiter
	recv        *receiver
	replay      int
	busyUntil   int64 // startup process in a recovery conflict
	connChanged bool
	stopFor     string // successor that a fast stop waits for
	stopDue     int64
}

// waiter is a backend in SyncRepWaitForLSN.
type waiter struct {
	upto   int // its commit record ends here
	since  int64
	kind   kind
	client *client // nil: it came by no proxy
}

// sender is a walsender on a primary.
type sender struct {
	pid       int
	name      string
	node      int
	conf      cluster.SyncSetting // its own copy
	listed    bool                // sync_standby_priority <> 0, in shared memory, set by itself
	reloadAt  int64               // when it gets to a reload, 0: nothing pending
	flush     int
	lastReply int64
	recv      *receiver
	stranger  string // whose it is when it is no standby's
	lies      bool   // says more than there is
	seen      bool   // the agent has seen it; who comes and goes unseen is not modelled
	ticks     int    // in which the agent could have ended it
}

// receiver is a walreceiver on a standby.
type receiver struct {
	name      string
	to        int // node
	connectAt int64
	login     bool // the credential was there when it was born
	streaming bool
	pos       int // where the stream is
	flushed   int // what it reports
	lastMsg   int64
	dead      bool
}

// reload is what SIGHUP does: the configuration file is the new one at once,
// each process follows when it gets there.
func (w *world) reload(n *node) {
	p := n.pg
	if p == nil {
		return
	}
	for _, s := range p.senders {
		s.reloadAt = w.now + w.lag(6)
	}
	p.flagAt = max(w.now+w.lag(6), p.slowUntil)
}

// lag is a delay of some ticks, seldom a long one.
func (w *world) lag(ticks int) int64 {
	if !w.healing && w.chance(w.prof.slowReload) {
		ticks *= 12
	}
	return int64(w.rng.IntN(ticks)) * tick
}

// stepPostgres lets the processes of a node's PostgreSQL run for one tick.
func (w *world) stepPostgres(n *node) {
	p := n.pg
	if p == nil || !n.runs(w.now) || p.hungUntil > w.now {
		return
	}
	w.transition(n)
	if n.pg == nil {
		return
	}
	switch p.phase {
	case starting, standby, promoting:
		w.recovery(n)
	case primary, stopping:
		w.serve(n)
	case dying: // orphans go on for a moment
		if p.epoch != 0 {
			w.serve(n)
		}
		if p.recv != nil {
			w.receive(n)
		}
	}
}

func (w *world) transition(n *node) {
	p := n.pg
	switch {
	case p.phase == stopping:
		w.finishStop(n)
	case p.until == 0 || p.until > w.now:
	case p.phase == starting:
		if p.founding {
			p.until = 0
			w.becomePrimary(n, 1, 1)
			return
		}
		if len(n.d.wal) < n.d.consistentAt {
			return // needs WAL from its source
		}
		p.until = 0
		p.phase, n.d.remade = standby, 0
		p.replay = len(n.d.wal) - w.rng.IntN(min(len(n.d.wal), 6)+1)
	case p.phase == promoting:
		p.until = 0
		p.replay = len(n.d.wal)
		tl := max(n.d.maxTimeline, p.toTimeline-1) + 1
		w.becomePrimary(n, p.epoch, tl)
	case p.phase == dying:
		w.gone(n)
	}
}

func (w *world) becomePrimary(n *node, epoch uint64, tl cluster.Timeline) {
	p := n.pg
	p.phase, p.epoch, p.fork, n.falseUpto = primary, epoch, len(n.d.wal), 0
	w.endReceiver(n)
	n.d.former, n.d.cleanStop = true, false
	n.d.maxTimeline = max(n.d.maxTimeline, tl)
	n.d.behind = nil
	n.d.wal = n.d.wal.add(entry{kind: promotion, epoch: uint32(epoch), tl: uint16(tl)})
	w.logf("%s: primary of e%d on timeline %d from %d", n.name, epoch, tl, p.fork)
}

// recovery is the startup process and the walreceiver of a standby.
func (w *world) recovery(n *node) {
	p := n.pg
	if p.busyUntil <= w.now {
		if !w.healing && w.chance(w.prof.conflict) {
			p.busyUntil = w.now + int64(w.rng.IntN(40))*tick
		} else {
			p.replay = min(len(n.d.wal), p.replay+1+w.rng.IntN(8))
		}
	}
	if p.replay == len(n.d.wal) && p.busyUntil <= w.now { // it waits for WAL
		if p.connChanged && p.recv != nil {
			w.endReceiver(n)
		}
		p.connChanged = false
		if p.recv == nil && n.upstream != "" && p.phase <= standby {
			p.recv = &receiver{name: n.upstream, to: n.upTo, login: n.credential,
				connectAt: w.now + int64(w.rng.IntN(3))*tick, lastMsg: w.now}
		}
	}
	if p.recv != nil {
		w.receive(n)
	}
}

// receive is the receiver's side: connect, notice that the other end is gone.
func (w *world) receive(n *node) {
	r := n.pg.recv
	switch {
	case !r.streaming && r.connectAt > w.now:
	case !r.streaming:
		if !w.connect(n, r) {
			w.endReceiver(n)
		}
	case r.dead, w.now-r.lastMsg > walTimeout:
		w.endReceiver(n)
	}
}

// connect is START_REPLICATION. The primary accepts when the segment's start
// lies on its history, and believes the position that is reported.
func (w *world) connect(n *node, r *receiver) bool {
	t := w.nodes[r.to]
	q := t.pg
	if !r.login || q == nil || !t.answers(w.now) || (q.phase != primary && q.phase != stopping) ||
		!w.linked(n.i, r.to) {
		return false
	}
	if !w.prof.slotless && slices.ContainsFunc(q.senders, func(s *sender) bool { return s.node == n.i }) {
		return false // "replication slot is active": a node is never counted twice
	}
	p := n.pg
	start := p.replay / segment * segment
	if start > n.d.wal.common(t.d.wal) && start > 0 {
		return false // "requested starting point is not in this server's history"
	}
	w.nextPID++
	s := &sender{pid: w.nextPID, name: r.name, node: n.i, conf: t.syncFile, lastReply: w.now, recv: r}
	s.listed = slices.Contains(s.conf.Names, s.name)
	q.senders = append(q.senders, s)
	r.streaming, r.pos, r.flushed, r.lastMsg = true, p.replay, p.replay, w.now
	return true
}

// endReceiver ends the receiver; the walsender notices when the link is up.
func (w *world) endReceiver(n *node) {
	if n.pg != nil && n.pg.recv != nil {
		n.pg.recv.dead = true
		n.pg.recv = nil
	}
}

// serve is a primary for one tick: checkpointer, walsenders, clients.
func (w *world) serve(n *node) {
	p := n.pg
	if p.flagAt != 0 && p.flagAt <= w.now && p.slowUntil <= w.now {
		p.flagAt = 0
		p.flag = !n.syncFile.Alone
		if !p.flag {
			w.wake(n, len(n.d.wal))
		}
	}
	often := 400
	if n.a != nil && n.a.drain != nil && n.a.drain.heldAt != 0 {
		often = 20 // idle sessions that came by no proxy are ended
	}
	if p.phase == primary && w.chance(often) {
		for range 1 + w.rng.IntN(2) {
			w.clientCommit(n)
		}
	}
	for i := 0; i < len(p.senders); {
		if w.stepSender(n, p.senders[i]) {
			i++
		} else {
			p.senders = slices.Delete(p.senders, i, i+1)
		}
	}
}

// clientCommit writes a commit record and waits as PostgreSQL would.
func (w *world) clientCommit(n *node) {
	if len(n.pg.waiting) < maxClients {
		w.nextID++
		w.localCommit(n, entry{kind: commit, id: w.nextID})
	}
}

// localCommit appends and flushes, then waits if the shared flag says so and
// nothing newer was released. It says whether the commit waits.
func (w *world) localCommit(n *node, e entry) bool {
	p := n.pg
	e.epoch, e.tl = uint32(p.epoch), uint16(n.d.wal.timeline())
	n.d.wal = n.d.wal.add(e)
	upto := len(n.d.wal)
	if !p.flag || p.released >= upto {
		w.acknowledged(n, upto, e.kind)
		return false
	}
	p.waiting = append(p.waiting, waiter{upto: upto, since: w.now, kind: e.kind})
	return true
}

// wake releases every commit up to a position.
func (w *world) wake(n *node, upto int) {
	p := n.pg
	keep := p.waiting[:0]
	for _, x := range p.waiting {
		if x.upto <= upto {
			w.acknowledged(n, x.upto, x.kind)
			if x.client != nil && x.client.pg == p {
				*x.client = client{}
			}
		} else {
			keep = append(keep, x)
		}
	}
	p.waiting = keep
}

// kill ends PostgreSQL uncleanly; its processes die a moment later.
func (w *world) kill(n *node) {
	p := n.pg
	if p == nil || p.phase == dying {
		return
	}
	n.d.cleanStop = false
	p.phase, p.until = dying, w.now+int64(w.rng.IntN(4))*tick
	if p.until == w.now {
		w.gone(n)
	}
}

// gone: no process lives any more. Sessions that waited get no answer.
func (w *world) gone(n *node) {
	w.endReceiver(n)
	if n.pg == nil {
		return
	}
	for _, s := range n.pg.senders {
		if w.linked(n.i, s.node) {
			s.recv.dead = true
		}
	}
	n.pg = nil
}

// finishStop: a fast stop writes the shutdown checkpoint and waits until the
// standby that was named has it, or ends immediately at its deadline.
func (w *world) finishStop(n *node) {
	p := n.pg
	switch {
	case p.stopDue < w.now:
		w.logf("%s: fast stop timed out", n.name)
		w.gone(n)
		return
	case p.stopFor != "":
		for _, s := range p.senders {
			if w.nodes[s.node].name == p.stopFor && s.flush < len(n.d.wal) {
				return
			}
		}
	case p.until > w.now:
		return
	}
	n.d.cleanStop = true
	w.gone(n)
}

// stopFast begins a fast stop. Sessions end without an answer.
func (w *world) stopFast(n *node, successor string) {
	p := n.pg
	if p == nil || p.phase == dying || p.phase == stopping {
		return
	}
	p.waiting = nil
	if p.phase == primary {
		n.d.wal = n.d.wal.add(entry{kind: checkpoint, epoch: uint32(p.epoch), tl: uint16(n.d.wal.timeline())})
	}
	p.stopFor, p.stopDue = successor, w.now+20*tick
	p.phase, p.until = stopping, w.now+int64(w.rng.IntN(3))*tick
}
