package sim

import (
	"slices"

	"manada/internal/cluster"
)

// An intruder is a walsender that bears a standby's name and is nobody's
// standby. PostgreSQL counts by the name alone: what such a walsender says it
// has flushed releases waiting commits in the same step, and the released
// position stays until PostgreSQL was restarted.
//
// A role that is trusted with REPLICATION gets in. One outside the list is kept
// out: pg_hba.conf has no line for its physical walsenders; one of a database
// looks like an ordinary session to pg_hba.conf, and only the attribute, which
// the leader's agent takes every second, closes that door.

// outsider is a role outside the list with the attribute REPLICATION.
type outsider struct {
	since     int64
	attribute bool
	database  bool // tries replication=database, else physical
	guarded   int  // ticks in which the leader's agent could have looked at it
}

const (
	releasedAfter = 20 * 500 // ms that probes come through under the placeholder
	guardEvery    = 1000     // ms between two looks of a leader's agent at the roles
	outsiderOld   = 2000     // ms: the role was made before it tries
	guardedEnough = 30       // ticks in which a leader's agent runs: more than one look at the roles
	recordWithin  = 14       // ticks of an agent that runs and reaches the store, from a false acknowledgement to k = 0
	lookWithin    = 12       // ticks of an agent that runs, until the walsender is ended
)

// intrude lets a trusted role bear the name of somebody that commits wait for.
func (w *world) intrude(n *node) {
	p := n.pg
	if p == nil || p.phase != primary || !n.answers(w.now) {
		return
	}
	name := cluster.CertifiedName(w.nodes[(n.i+1)%w.data].name, p.epoch)
	switch names := n.syncFile.Names; {
	case w.chance(100):
		name = cluster.UncertifiedName(w.nodes[(n.i+1)%w.data].name, p.epoch)
	case len(names) > 0:
		name = names[w.rng.IntN(len(names))]
	}
	w.admit(n, name, w.chance(250))
}

// admit starts a walsender for somebody who sends what he likes.
func (w *world) admit(n *node, name string, lies bool) {
	w.nextPID++
	s := &sender{pid: w.nextPID, name: name, node: n.i, conf: n.syncFile, lastReply: w.now, recv: &receiver{}, stranger: "role reppy", lies: lies}
	s.listed = slices.Contains(s.conf.Names, name)
	n.pg.senders = append(n.pg.senders, s)
	w.stats.Intruders++
	w.logf("%s: an intruder bears %s, lies=%v", n.name, name, lies)
}

// stepStranger says that all is flushed; false when it leaves.
func (w *world) stepStranger(n *node, s *sender) bool {
	if s.seen && w.chance(150) {
		return false
	}
	s.lastReply = w.now
	s.flush = len(n.d.wal)
	if s.lies {
		s.flush += 10000
	}
	w.release(n, s)
	return true
}

// knock is an outsider that tries to get in, once its role is old enough.
func (w *world) knock() {
	o, n := w.outsider, w.leader()
	if o == nil || n.pg == nil || n.pg.phase != primary || !n.answers(w.now) {
		return
	}
	if n.a != nil && n.a.awake > 0 && n.a.mem.leads != 0 {
		o.guarded++
	}
	if w.now-o.since < outsiderOld {
		return
	}
	w.outsider = nil
	w.stats.Knocks++
	if !o.attribute || !o.database { // must be a replication role; no pg_hba.conf entry
		return
	}
	if o.guarded >= guardedEnough {
		w.fail("6 (who may)", "a role outside the list, made %d ms before, got a walsender on %s", w.now-o.since, n.name)
	}
	w.admit(n, cluster.CertifiedName(w.nodes[(n.i+1)%w.data].name, n.pg.epoch), false)
}

// guard is the agent's look at the roles.
func (w *world) guard(n *node) {
	if o := w.outsider; o != nil && !w.prof.databaseIn {
		o.attribute = false
	}
	n.a.guardAt = w.now + guardEvery
}

// noteStrangers is what the agent remembers of them (agent/strangers.go).
func (w *world) noteStrangers(n *node) {
	a := n.a
	o, m := &a.seen, &a.mem
	if o.state != cluster.PostgresPrimary {
		return
	}
	here := false
	if m.heldSince != 0 && w.now-m.heldSince > releasedAfter {
		m.lie, m.liedTo = "commits do not wait", o.pid
	}
	for _, s := range o.senders {
		if _, _, ok := cluster.ParseCertifiedName(s.Name); ok && s.Flush > o.wal {
			m.lie, m.liedTo = s.Name+" lied", o.pid
		}
		if s.Impostor() {
			here, m.unrecorded = true, s.Name+" is borne by "+s.Stranger
		}
	}
	switch {
	case here && !w.prof.credulous:
		m.provedPID, m.since, m.sincePend, m.heldSince = 0, 0, false, 0
	case here:
	case a.term != nil && a.term.K == 0 && !a.unsettled:
		m.unrecorded = ""
	}
}

// doubt is the newest commit that a stranger released and that less than k
// members of sync have: somebody could take over without it.
type doubt struct {
	n       *node
	epoch   uint64
	i       int
	hash    uint64
	agent   *agent // that saw it; one that dies meanwhile takes its knowledge along
	healthy int    // ticks in which that agent could have recorded k = 0
}

// doubtful says whether a commit is acknowledged by a stranger alone, and notes it.
func (w *world) doubtful(n *node, upto int) bool {
	c, t := &w.chk, w.st.term
	if upto > n.falseUpto || t == nil {
		return false
	}
	h := n.d.wal[upto-1].hash
	if t.Leader == n.name && t.Epoch == n.pg.epoch && (t.K == 0 || w.holders(t, upto-1, h) >= t.K) {
		return false
	}
	w.stats.FalseAcks++
	if c.doubt.n == n && c.doubt.epoch == n.pg.epoch {
		c.doubt.i, c.doubt.hash = upto-1, h
		return true
	}
	c.doubt = doubt{n: n, epoch: n.pg.epoch, i: upto - 1, hash: h, agent: n.a}
	return true
}

// doubted: what is acknowledged lost its standing by a late write of k >= 1: a
// stranger had released it under k = 0.
func (w *world) doubted(t *cluster.Term) bool {
	c, n := &w.chk, w.nodes[w.index(t.Leader)]
	if c.last >= n.falseUpto || !n.d.wal.has(c.last, c.hash) {
		return false
	}
	if c.doubt.n == nil {
		c.doubt = doubt{n: n, epoch: t.Epoch, i: c.last, hash: c.hash, agent: n.a}
	}
	c.acks = 0 // it binds nobody until that is settled
	return true
}

// holders counts the members of sync that have an entry; those that no longer
// exist count: nobody can take over with them.
func (w *world) holders(t *cluster.Term, i int, hash uint64) int {
	have := 0
	for _, m := range t.Sync {
		n := w.nodes[w.index(m.Name)]
		if n.d.instance != m.Instance || n.d.empty || n.d.poisoned || n.d.wal.has(i, hash) {
			have++
		}
	}
	return have
}

// checkStrangers: what was acknowledged falsely is made good within one look, by
// the record or by a member's flush, and no stranger streams on after it was seen.
func (w *world) checkStrangers() {
	for _, n := range w.nodes[:w.data] {
		if n.pg == nil || n.pg.phase != primary || !n.answers(w.now) {
			continue
		}
		for _, s := range n.pg.senders {
			if s.stranger == "" || n.a == nil || n.a.awake == 0 || n.a.busy != "" || n.a.next != nil {
				continue
			}
			if s.ticks++; s.listed && s.ticks > lookWithin && n.a.have && w.st.term.Leader == n.name && !n.a.unsettled {
				w.fail("7 (strangers)", "%s: the walsender of %s, borne by %s, goes on", n.name, s.name, s.stranger)
			}
		}
	}
	w.settleDoubt()
}

func (w *world) settleDoubt() {
	c, t := &w.chk, w.st.term
	d := &c.doubt
	if d.n == nil {
		return
	}
	same := t.Epoch == d.epoch && t.Leader == d.n.name
	switch {
	case d.n.d.wal.has(d.i, d.hash) && same && (t.K == 0 || w.holders(t, d.i, d.hash) >= t.K):
		if c.acks == 0 || d.i > c.last { // good from now on
			c.acks++
			c.last, c.hash = d.i, d.hash
		}
		*d = doubt{}
	case !same:
		if !w.leaderHas(d.i, d.hash) {
			w.stats.FalseLost++
		}
		*d = doubt{}
	case d.n.a != nil && d.n.a == d.agent && d.n.a.awake > 0 && d.n.a.next == nil && d.n.a.busy == "" && !d.n.a.unsettled && !d.n.a.failed && w.reaches(d.n) && d.n.pg != nil && d.n.pg.phase == primary && d.n.pg.hungUntil <= w.now:
		if d.healthy++; d.healthy > recordWithin {
			w.fail("7 (strangers)", "%s: entry %d was acknowledged by a stranger alone, and the record still says k = %d", d.n.name, d.i+1, t.K)
		}
	}
}
