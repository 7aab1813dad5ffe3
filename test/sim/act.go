package sim

import (
	"slices"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// operation is long work beside the agent's loop.
type operation struct {
	act   decide.Action
	phase int
	due   int64
	limit int64
}

// act carries out one action; false when it failed or only began.
func (w *world) act(n *node, act decide.Action, rev int64) bool {
	a := n.a
	switch act.Verb {
	case decide.ReadStore:
		return w.readStore(n)
	case decide.Settle:
		return w.settle(n)
	case decide.Create, decide.Swap, decide.Withdraw:
		return w.change(n, act, rev)
	case decide.Answer:
		if w.reaches(n) && w.st.request != nil && w.st.request.ID == act.Request {
			if act.OK {
				w.stats.Switchovers++
			}
			w.st.request = nil
		}
		return w.readStore(n)
	case decide.Found, decide.StartStandby, decide.StartFounding, decide.Stop,
		decide.Prepare, decide.HandOver, decide.Promote, decide.Rewind, decide.Clone, decide.ArchiveEnd, decide.FetchWAL:
		if a.busy == "" {
			a.busy, a.op = string(act.Verb), &operation{act: act}
			w.stepOperation(n)
		}
		return false
	}
	ok := w.small(n, act)
	w.observe(n)
	return ok
}

// small steps on this node's PostgreSQL or disk.
func (w *world) small(n *node, act decide.Action) bool {
	m, p := &n.a.mem, n.pg
	switch act.Verb {
	case decide.Promise:
		n.d.promised, m.promisedAt = act.Epoch, w.now
	case decide.DropPromise:
		n.d.promised = 0
	case decide.CutUpstream:
		n.upstream, n.credential = "", false
		if p != nil {
			p.connChanged = true
		}
	case decide.EndReceiver:
		w.endReceiver(n)
	case decide.ReadPosition:
		if p != nil && p.recv != nil && w.prof.Without&decide.WithoutReceiverGone == 0 {
			return false
		}
		m.final, m.timeline, m.lsn = true, n.d.wal.timeline(), w.readEnd(n)
	case decide.Follow:
		w.follow(n, act)
	case decide.Undrain:
		n.a.drain = nil
	default:
		return w.smallPrimary(n, act)
	}
	return true
}

func (w *world) follow(n *node, act decide.Action) {
	m := &n.a.mem
	m.final, m.progressAt = false, w.now
	n.upTo = w.index(act.To)
	n.upstream, n.credential = cluster.CertifiedName(n.name, act.Epoch), true
	if act.Mode == "uncertified" {
		n.upstream = cluster.UncertifiedName(n.name, act.Epoch)
	} else {
		w.checkCertificate(n, w.nodes[n.upTo], act.Epoch)
	}
	if n.pg != nil {
		n.pg.connChanged = true
	}
}

// smallPrimary: steps that need a session on a primary that answers.
func (w *world) smallPrimary(n *node, act decide.Action) bool {
	m, p := &n.a.mem, n.pg
	if act.Verb == decide.SetSync {
		return w.setSync(n, act.Sync)
	}
	if p == nil || p.phase != primary || p.hungUntil > w.now {
		return false
	}
	switch act.Verb {
	case decide.WriteControl:
		w.guard(n) // no epoch opens before
		e := entry{kind: control, epoch: uint32(p.epoch), tl: uint16(n.d.wal.timeline()), nonce: w.nonceIndex(act.Nonce)}
		n.d.wal = n.d.wal.add(e)
		m.written = act.Epoch
	case decide.Probe:
		if !w.localCommit(n, entry{kind: probe}) && !w.prof.unproved {
			if m.heldSince == 0 {
				m.heldSince = w.now
			}
			return false
		}
		m.provedPID, m.heldSince = p.pid, 0
	case decide.EndSenders:
		p.senders = slices.DeleteFunc(p.senders, func(s *sender) bool {
			if !slices.Contains(act.PIDs, s.pid) {
				return false
			}
			s.recv.dead = s.recv.dead || w.linked(n.i, s.node)
			return true
		})
	}
	return true
}

func (w *world) setSync(n *node, s cluster.SyncSetting) bool {
	m := &n.a.mem
	was := n.syncFile
	m.heldSince = 0
	if m.sincePend && s.Equal(was) { // asked for already
		w.observe(n)
		return !m.sincePend
	}
	if s.Alone {
		m.provedPID = 0
	}
	w.checkNames(n, s)
	n.syncFile = s
	if n.pg == nil {
		return false
	}
	w.reload(n) // a signal: what hangs gets to it later
	if s.K <= 1 {
		m.old = m.old[:0] // nothing applies less
	}
	// Raising k, or an agent that does not know what it raised before: whoever
	// streams now may still apply the setting before (H4).
	if s.K > was.K && len(was.Names) > 0 || m.since == 0 && !m.sincePend && s.K > 1 && len(was.Names) > 0 {
		for _, x := range n.pg.senders {
			m.old = append(m.old, x.pid)
		}
	}
	m.since, m.sincePend = 0, true
	if w.prof.hasty {
		m.since, m.sincePend = n.d.wal.end(), false
	}
	return true
}

// change swaps the record; what is unknown stays unsettled (H2).
func (w *world) change(n *node, act decide.Action, rev int64) bool {
	a := n.a
	a.unsettled = true
	if act.Verb == decide.Create {
		rev = 0
	}
	switch w.put(n, rev, act.Term, string(act.Verb)+" "+act.Note) {
	case unknown:
		return false
	case conflict:
		a.unsettled = false
		w.readStore(n)
		return false
	}
	a.unsettled = false
	old := a.term
	a.term, a.rev, a.sent, a.have = act.Term, rev+1, w.now, true
	if w.st.rev != a.rev { // somebody wrote since; the next read tells
		w.readStore(n)
	}
	n.d.highEpoch = max(n.d.highEpoch, act.Term.Epoch)
	if old == nil || old.Epoch != act.Term.Epoch {
		a.newEpoch()
	}
	w.drainSwapped(n, act)
	if act.Verb == decide.Withdraw {
		n.d.promised = 0
		a.mem.withdrawn++
		a.mem.withdrawAt = w.now
		w.observe(n)
	}
	return true
}

// settle reads the record and rewrites it as it is.
func (w *world) settle(n *node) bool {
	a := n.a
	if !w.readStore(n) {
		return false
	}
	if a.term == nil {
		a.unsettled = false
		return true
	}
	if w.put(n, a.rev, a.term, "settle") != applied {
		return false
	}
	a.unsettled = false
	return w.readStore(n)
}

// stepOperation carries long work on.
func (w *world) stepOperation(n *node) {
	a := n.a
	if a.op == nil {
		if a.busyUntil <= w.now {
			a.busy = ""
		}
		return
	}
	done, ok := w.longStep(n, a.op)
	if !done {
		return
	}
	w.logf("%s: %s done, ok=%v", n.name, a.op.act, ok)
	a.op = nil
	w.observe(n)
	if ok || w.healing {
		a.busy = ""
		return
	}
	a.busy, a.busyUntil = "a pause after a failed operation", w.now+suspectAfter.Milliseconds()
}

func (w *world) longStep(n *node, o *operation) (done, ok bool) {
	if o.phase == 0 {
		o.limit = w.now + 200*tick
	}
	if w.now > o.limit {
		return true, false
	}
	switch o.act.Verb {
	case decide.Found:
		n.d = disk{instance: w.freshInstance(), maxTimeline: 1, wal: wal{}.add(entry{kind: checkpoint, tl: 1}), highEpoch: n.d.highEpoch}
		return true, true
	case decide.StartStandby, decide.StartFounding:
		return w.opStart(n, o)
	case decide.Stop, decide.HandOver:
		return w.opStop(n, o)
	case decide.Prepare:
		return w.opPrepare(n, o)
	case decide.Promote:
		return w.opPromote(n, o)
	case decide.ArchiveEnd:
		return w.opArchive(n, o)
	case decide.FetchWAL:
		return w.opFetch(n, o)
	}
	return w.opRemake(n, o)
}

func (w *world) opStart(n *node, o *operation) (bool, bool) {
	switch {
	case o.phase == 0:
		if n.pg != nil || n.d.empty || n.d.poisoned || o.act.Verb == decide.StartFounding && n.d.former {
			return true, false
		}
		n.a.mem.final = false
		n.syncFile = cluster.HoldCommits()
		w.nextPID++
		n.pg = &postgres{pid: w.nextPID, phase: starting, flag: true, founding: o.act.Verb == decide.StartFounding,
			until: w.now + int64(1+w.rng.IntN(4))*tick}
		n.d.cleanStop = false
		o.phase = 1
	case n.pg == nil:
		return true, false
	case n.pg.phase == standby || n.pg.phase == primary || n.d.consistentAt > len(n.d.wal) && w.chance(50):
		n.a.mem.provedPID, n.a.mem.progressAt = n.pg.pid, w.now
		return true, true
	}
	return false, false
}

func (w *world) opStop(n *node, o *operation) (bool, bool) {
	if o.phase == 0 {
		o.phase = 1
		if n.pg == nil {
			return true, true
		}
		switch {
		case o.act.Verb == decide.HandOver:
			if o.act.Request != "" {
				w.checkStop(n)
			}
			n.a.mem.handoverTo, n.a.mem.promisedAt = o.act.To, w.now
			w.endOthers(n, o.act.To)
			w.stopFast(n, o.act.To)
		case o.act.Mode == "fast":
			w.stopFast(n, "")
		default:
			w.kill(n)
		}
	}
	if n.pg != nil && n.pg.hungUntil > w.now && o.act.Mode == "immediate" {
		w.gone(n) // SIGKILL in the end
	}
	return n.pg == nil, true
}

// endOthers ends the walsenders that a fast stop would wait for in vain (M6).
func (w *world) endOthers(n *node, to string) {
	n.pg.senders = slices.DeleteFunc(n.pg.senders, func(s *sender) bool { return w.nodes[s.node].name != to })
}

func (w *world) opPromote(n *node, o *operation) (bool, bool) {
	p := n.pg
	if p == nil || p.hungUntil > w.now && o.phase == 0 {
		return true, false
	}
	switch {
	case p.phase == primary:
		n.a.mem.fork = cluster.LSN(p.fork)
		return true, true
	case o.phase == 0 && p.phase == standby:
		if p.recv != nil && w.prof.Without&decide.WithoutReceiverGone == 0 {
			return true, false
		}
		o.phase = 1
		n.d.former, n.a.mem.final = true, false
		p.phase, p.epoch, p.toTimeline = promoting, o.act.Epoch, o.act.Timeline
		p.until = w.now + int64(1+w.rng.IntN(6))*tick
	case o.phase == 0:
		return true, false
	}
	return false, false
}

// opRemake is a rewind or a clone: poison, destroy, copy, and only then clear
// the mark. What interrupts it leaves the mark.
func (w *world) opRemake(n *node, o *operation) (bool, bool) {
	src := w.nodes[w.index(o.act.To)]
	up := src.answers(w.now) && src.pg.phase == primary && w.linked(n.i, src.i)
	switch o.phase {
	case 0:
		if o.act.Verb == decide.Clone && n.pg != nil {
			w.stopFast(n, "")
			if n.pg != nil && n.pg.phase == dying {
				return false, false
			}
		}
		o.phase = 1
	case 1:
		if n.pg != nil {
			return false, false
		}
		if !up || o.act.Verb == decide.Rewind && (n.d.empty || n.d.poisoned) {
			return true, false
		}
		w.discarded(n, src)
		n.a.mem.final = false
		n.d.poisoned, n.d.empty = true, false
		n.d.wal = n.d.wal[:min(len(n.d.wal), n.d.wal.common(src.d.wal))]
		o.phase, o.due = 2, w.now+int64(2+w.rng.IntN(8))*tick
	default:
		if !up {
			return true, false
		}
		if w.now < o.due {
			return false, false
		}
		kept, end := len(n.d.wal), len(src.d.wal) // in common, and what the pages may need
		n.d = disk{instance: w.freshInstance(), maxTimeline: src.d.maxTimeline, remade: src.pg.epoch, consistentAt: end,
			promised: n.d.promised, highEpoch: n.d.highEpoch}
		n.d.wal = src.d.wal[:max(kept, end-w.rng.IntN(8))].clone()
		if o.act.Verb == decide.Rewind {
			w.stats.Rewinds++
		} else {
			w.stats.Clones++
		}
		return true, true
	}
	return false, false
}
