package sim

import (
	"slices"
	"strconv"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// fault is a kind of misfortune.
type fault uint8

const (
	pgCrash fault = iota
	pgHang
	hostCrash
	hostFreeze
	agentCrash
	agentFreeze
	cutOneWay
	cutBoth
	isolate
	split
	storeOutage
	storeCut
	storeFlaky
	lostDisk
	switchover
	slowCheckpoint
	replayStuck
	leaderDies // host of the leader, so that takeovers are common
	standbyLeaves
	leaderFreeze
	winnerDies   // the next leader that is promoted and has not opened its epoch
	leaderCut    // the leader alone on its side, while clients go on writing there
	crashWrite   // the leader's agent dies while a write of the record is on its way
	promiseCrash // an agent dies just after its promise reached the record
	shutdown     // a host is stopped in order
	lateReload   // a setting is followed late by everybody on the leader
	intruder     // a trusted role bears a standby's name on the leader
	outside      // a role outside the list is made, and tries to
	faultKinds
)

// even gives every kind its share.
func even() [faultKinds]int {
	return [faultKinds]int{
		pgCrash: 10, pgHang: 5, hostCrash: 8, hostFreeze: 8, agentCrash: 8, agentFreeze: 6,
		cutOneWay: 8, cutBoth: 8, isolate: 8, split: 4, storeOutage: 3, storeCut: 5, storeFlaky: 6,
		lostDisk: 4, switchover: 6, slowCheckpoint: 4, replayStuck: 6, leaderDies: 10, standbyLeaves: 8,
		leaderFreeze: 6, lateReload: 3, winnerDies: 5,
		leaderCut: 5, crashWrite: 4, promiseCrash: 3, shutdown: 6,
	}
}

type planned struct {
	at   int
	kind fault
}

// plan draws the faults of a schedule.
func (w *world) plan() []planned {
	total := 0
	for _, x := range w.prof.Weights {
		total += x
	}
	var out []planned
	for range w.prof.Faults + w.rng.IntN(w.prof.Faults+1) {
		x, k := w.rng.IntN(total), fault(0)
		for x >= w.prof.Weights[k] {
			x -= w.prof.Weights[k]
			k++
		}
		out = append(out, planned{w.rng.IntN(w.prof.Steps), k})
	}
	slices.SortStableFunc(out, func(a, b planned) int { return a.at - b.at })
	return out
}

// heal is a link that comes back.
type heal struct {
	at   int64
	i, j int
}

func (w *world) mend() {
	keep := w.heals[:0]
	for _, h := range w.heals {
		if h.at <= w.now {
			w.cut[h.i][h.j] = false
		} else {
			keep = append(keep, h)
		}
	}
	w.heals = keep
	for _, n := range w.nodes {
		if !n.hostUp && n.hostAt <= w.now {
			n.hostUp = true
			w.logf("%s: host is back", n.name)
		}
	}
}

// forAWhile is a duration: mostly around the time-outs, sometimes long.
func (w *world) forAWhile() int64 {
	switch w.rng.IntN(4) {
	case 0:
		return int64(1+w.rng.IntN(8)) * tick
	case 3:
		return int64(20+w.rng.IntN(80)) * tick
	}
	return int64(8+w.rng.IntN(30)) * tick
}

func (w *world) cutLink(i, j int, d int64) {
	if i != j {
		w.cut[i][j] = true
		w.heals = append(w.heals, heal{w.now + d, i, j})
	}
}

func (w *world) leader() *node {
	if w.st.term == nil {
		return w.nodes[0]
	}
	return w.nodes[w.index(w.st.term.Leader)]
}

func (w *world) someStandby() *node {
	n := w.nodes[w.rng.IntN(w.data)]
	if n == w.leader() {
		n = w.nodes[(n.i+1)%w.data]
	}
	return n
}

func (w *world) inject(k fault) {
	w.stats.Faults++
	n, d := w.nodes[w.rng.IntN(w.data)], w.forAWhile()
	switch k {
	case leaderDies:
		n, k = w.leader(), [...]fault{hostCrash, pgCrash, isolate}[w.rng.IntN(3)]
	case leaderCut:
		n, k, d = w.leader(), isolate, int64(12+w.rng.IntN(30))*tick
	case leaderFreeze:
		n, k = w.leader(), [...]fault{hostFreeze, agentFreeze, agentCrash}[w.rng.IntN(3)]
	case standbyLeaves:
		n, k = w.someStandby(), [...]fault{hostCrash, pgCrash, isolate, hostFreeze}[w.rng.IntN(4)]
	case lateReload:
		n, k = w.leader(), slowCheckpoint
		if n.pg != nil {
			for _, s := range n.pg.senders {
				s.reloadAt = w.now + d
			}
		}
	}
	w.logf("FAULT %s on %s for %d ms", faultNames[k], n.name, d)
	switch k {
	case pgCrash:
		w.kill(n)
	case pgHang:
		if n.pg != nil {
			n.pg.hungUntil = w.now + d
		}
	case hostCrash:
		w.crashHost(n, d)
	case hostFreeze:
		n.frozenUntil = max(n.frozenUntil, w.now+d)
	case agentCrash:
		w.crashAgent(n, d)
	case agentFreeze:
		if n.a != nil {
			n.a.pausedUntil = w.now + d
		}
	case winnerDies:
		w.winnerDies++
	case crashWrite:
		w.crashWrites++
	case promiseCrash:
		w.promiseCrashes++
	case lostDisk:
		w.loseDisk(n)
	case switchover:
		w.request(d)
	case shutdown:
		if w.chance(500) {
			n = w.leader()
		}
		w.shutDown(n, d)
	case intruder:
		w.intrude(w.leader())
	case outside:
		w.outsider = &outsider{since: w.now, attribute: true, database: w.chance(500)}
	case slowCheckpoint:
		if n.pg != nil {
			n.pg.slowUntil = w.now + d
			n.pg.flagAt = max(n.pg.flagAt, n.pg.slowUntil)
		}
	case replayStuck:
		if n = w.someStandby(); n.pg != nil {
			n.pg.busyUntil = w.now + d
		}
	default:
		w.injectNet(k, n, d)
	}
}

func (w *world) injectNet(k fault, n *node, d int64) {
	m := w.rng.IntN(len(w.nodes))
	switch k {
	case cutOneWay:
		w.cutLink(n.i, m, d)
	case cutBoth:
		w.cutLink(n.i, m, d)
		w.cutLink(m, n.i, d)
	case isolate:
		for j := range w.nodes {
			w.cutLink(n.i, j, d)
			w.cutLink(j, n.i, d)
		}
	case split:
		side := w.rng.IntN(1 << len(w.nodes))
		for i := range w.nodes {
			for j := range w.nodes {
				if side>>i&1 != side>>j&1 {
					w.cutLink(i, j, d)
				}
			}
		}
	case storeOutage:
		w.outageUntil = w.now + d
	case storeCut:
		n.storeCutUntil = w.now + d
	case storeFlaky:
		w.flakyUntil = w.now + d
	}
}

// ambush kills a leader between promotion and opening, or just before.
func (w *world) ambush() {
	t := w.st.term
	if w.winnerDies == 0 || t == nil || t.Open || w.healing || !w.chance(150) {
		return
	}
	if n := w.leader(); n.pg != nil && t.Epoch > 1 {
		w.winnerDies--
		w.logf("the winner of e%d, %s, dies", t.Epoch, n.name)
		w.crashHost(n, w.forAWhile()*2)
	}
}

func (w *world) crashAgent(n *node, d int64) {
	// What it had sent may still arrive; what it had decided is gone. Work in
	// PostgreSQL itself (a promotion, a stop) goes on.
	n.a, n.agentAt = nil, w.now+d
	if w.prof.amnesiac {
		n.d.promised = 0
	}
}

func (w *world) crashHost(n *node, d int64) {
	if n.pg != nil {
		n.d.cleanStop = false
		w.gone(n)
	}
	n.hostUp, n.hostAt = false, w.now+d
	n.frozenUntil = 0
	n.a, n.agentAt = nil, n.hostAt
	n.syncFile = cluster.HoldCommits()
}

// loseDisk takes a node's disk away unless that is more than the herd was
// built to survive: the only copy of an acknowledged commit, or the last node
// that could ever lead again without an operator.
func (w *world) loseDisk(n *node) {
	c, t := &w.chk, w.st.term
	if n.d.empty || t == nil || len(w.st.late) > 0 || !t.Open && t.Epoch == 1 {
		return
	}
	copies, members, lead := 0, 0, false
	for _, m := range w.nodes[:w.data] {
		if m == n || m.d.empty || m.d.poisoned {
			continue
		}
		if c.acks == 0 || m.d.wal.has(c.last, c.hash) {
			copies++
		}
		me := cluster.Member{Name: m.name, Instance: m.d.instance}
		if t.InSync(me) {
			members++
		}
		lead = lead || t.LastOpenLeader == me || w.inherits(t, m)
	}
	if src := w.archive[t.Current().Timeline]; src.has(c.last, c.hash) {
		copies++
	}
	if copies == 0 || !lead && (len(t.Sync) == 0 || members < t.Needed()) {
		return
	}
	w.logf("%s: disk is lost", n.name)
	w.stats.LostDisks++
	w.crashHost(n, int64(2+w.rng.IntN(20))*tick)
	n.d = disk{empty: true, maxTimeline: 1}
	n.upstream, n.credential = "", false
}

func (w *world) request(d int64) {
	if w.st.request != nil {
		return
	}
	w.nextID++
	w.st.request = &decide.Request{ID: "r" + strconv.Itoa(int(w.nextID)), Kind: "switchover", To: w.someStandby().name}
}

// healAll ends every fault.
func (w *world) healAll() {
	w.logf("HEAL")
	w.healing = true
	w.outageUntil, w.flakyUntil = 0, 0
	for _, h := range w.heals {
		w.cut[h.i][h.j] = false
	}
	w.heals = w.heals[:0]
	for _, n := range w.nodes {
		n.hostAt, n.agentAt, n.frozenUntil, n.storeCutUntil, n.downFor = 0, 0, 0, 0, tick
		if n.a != nil {
			n.a.pausedUntil = 0
		}
		if n.pg != nil {
			n.pg.hungUntil, n.pg.busyUntil, n.pg.slowUntil = 0, 0, 0
		}
	}
}

var faultNames = [faultKinds]string{
	"PostgreSQL crash", "PostgreSQL hang", "host crash", "host freeze", "agent crash", "agent freeze",
	"one-way cut", "cut", "isolation", "split", "store outage", "store cut", "flaky store", "lost disk",
	"switchover", "slow checkpointer", "replay stuck", "leader dies", "standby leaves", "leader freezes", "winner dies", "leader cut off", "crash while writing", "crash after a promise", "shutdown", "late reload", "intruder", "role outside the list",
}
