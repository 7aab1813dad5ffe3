package sim

import (
	"strconv"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// draining is a switchover that an agent has begun, until the stop.
type draining struct {
	id, to, request       string
	ready                 int64 // when the checkpoint has ended
	failed                bool  // it fails
	began, heldAt, looked int64 // 0: not yet
	open, inCommit        int
	oldest                int64 // ms
	answered              int64 // when a proxy last began to hold
	answers               [8]bool
}

// proxy is one on each host: clients' transactions go through it to whoever
// leads by the newest record that it has heard of.
type proxy struct {
	i       int
	term    *cluster.Term
	rev     int64
	id      string // of the newest drain that it has seen, first at seenAt, held since heldAt
	seenAt  int64
	heldAt  int64
	holds   bool
	linked  int64 // since when it hears the leader, of linkedTo
	to      int
	clients [2]client
}

// client is a session: idle while pg is nil.
type client struct {
	pg         *postgres
	node       int
	since, due int64
	committing bool
}

// under is how long a phase lasts at most.
func under(d time.Duration) int64 { return d.Milliseconds() }

func (w *world) stepProxies() {
	for _, p := range w.proxies {
		n := w.nodes[p.i]
		if !n.hostUp {
			*p = proxy{i: p.i} // its sessions are lost with the host
			continue
		}
		if !n.runs(w.now) {
			continue
		}
		w.hears(p)
		w.obey(p)
		for k := range p.clients {
			w.stepClient(p, &p.clients[k])
		}
		w.answer(p)
	}
}

// hears: beats carry the record with its revision.
func (w *world) hears(p *proxy) {
	for _, n := range w.nodes {
		if n.a == nil || n.a.beat == nil || !n.runs(w.now) || !w.linked(n.i, p.i) || !w.chance(700) {
			continue
		}
		if b := n.a.beat; b.Term != nil && b.TermRev > p.rev {
			p.term, p.rev = b.Term, b.TermRev
		}
	}
	if p.term == nil {
		return
	}
	if to := w.index(p.term.Leader); !w.linked(to, p.i) || to != p.to {
		p.to, p.linked = to, w.now
	}
}

// obey: the drain of the newest record, of its own epoch only, and not for ever.
func (w *world) obey(p *proxy) {
	d := p.term.Draining()
	if w.prof.anyEpoch && p.term != nil {
		d = p.term.Drain
	}
	if d == nil {
		p.holds = false
		return
	}
	if d.ID != p.id {
		p.id, p.seenAt, p.heldAt = d.ID, w.now, 0
	}
	if d.Hold && p.heldAt == 0 {
		p.heldAt = w.now
	}
	p.holds = d.Hold && w.now-p.seenAt < d.ForMS+under(w.spec.HandoverAfter)
	if p.holds && d.Epoch != p.term.Epoch {
		w.fail("drain", "the proxy on %s holds what is new in e%d for a drain of e%d", w.nodes[p.i].name, p.term.Epoch, d.Epoch)
	}
}

func (w *world) stepClient(p *proxy, c *client) {
	n := w.nodes[c.node]
	switch {
	case c.pg != nil && (n.pg != c.pg || c.pg.phase != primary || !w.linked(p.i, c.node)):
		*c = client{} // rolled back, or in doubt when it was in COMMIT
	case c.committing:
	case c.pg == nil:
		w.beginClient(p, c)
	case p.holds && w.now-p.heldAt > p.term.Drain.HoldMS:
		w.stats.Cut++
		*c = client{} // 40001
	case c.due <= w.now && c.pg.hungUntil <= w.now:
		w.nextID++
		c.committing = w.localCommit(n, entry{kind: commit, id: w.nextID})
		if !c.committing {
			*c = client{}
			return
		}
		c.pg.waiting[len(c.pg.waiting)-1].client = c
	}
}

func (w *world) beginClient(p *proxy, c *client) {
	if p.holds || p.term == nil || !p.term.Open || !w.chance(100) {
		return
	}
	n := w.nodes[w.index(p.term.Leader)]
	if n.pg == nil || n.pg.phase != primary || n.pg.epoch != p.term.Epoch || !n.answers(w.now) || !w.linked(p.i, n.i) {
		return
	}
	long := int64(w.rng.IntN(3))
	if w.chance(50) {
		long = int64(10 + w.rng.IntN(60))
	}
	*c = client{pg: n.pg, node: n.i, since: w.now, due: w.now + long*tick}
}

// answer: the leader's agent hears that the proxy holds.
func (w *world) answer(p *proxy) {
	if !p.holds || !w.chance(700) {
		return
	}
	n := w.nodes[w.index(p.term.Leader)]
	if n.a == nil || n.a.drain == nil || n.a.drain.id != p.id || !n.runs(w.now) || !w.linked(n.i, p.i) {
		return
	}
	if d := n.a.drain; !d.answers[p.i] {
		d.answers[p.i], d.answered = true, w.now
	}
}

// hearers: the proxies whose stream of beats from this host is open, as far as it
// can know.
func (w *world) hearers(n *node) (out []*proxy) {
	for _, p := range w.proxies {
		if w.nodes[p.i].hostUp && w.linked(n.i, p.i) {
			out = append(out, p)
		}
	}
	return out
}

// look counts the sessions in a transaction, as the leader's agent does.
func (w *world) look(n *node) {
	d := n.a.drain
	if d == nil || d.began == 0 || n.pg == nil || n.pg.phase != primary || n.pg.hungUntil > w.now {
		return
	}
	d.looked, d.open, d.inCommit, d.oldest = w.now, 0, 0, 0
	for _, x := range n.pg.waiting {
		if x.kind == commit && x.client == nil { // came by itself
			d.open, d.inCommit = d.open+1, d.inCommit+1
		}
	}
	for _, p := range w.proxies {
		for _, c := range p.clients {
			if c.pg != n.pg {
				continue
			}
			d.open, d.oldest = d.open+1, max(d.oldest, w.now-c.since)
			if c.committing {
				d.inCommit++
			}
		}
	}
}

func (w *world) drainView(n *node) decide.LocalDrain {
	d := n.a.drain
	if d == nil {
		return decide.LocalDrain{}
	}
	if x := n.a.term.Draining(); x != nil && x.ID == d.id {
		if d.began == 0 {
			d.began = w.now
		}
		if x.Hold && d.heldAt == 0 {
			d.heldAt = w.now
		}
	}
	v := decide.LocalDrain{ID: d.id, To: d.to, Request: d.request, Preparing: w.now < d.ready, Hold: d.heldAt != 0, Looked: never, Open: d.open, InCommit: d.inCommit, Oldest: ms(d.oldest)}
	if d.failed && !v.Preparing {
		v.Failed = "the disk is full"
	}
	if d.looked != 0 {
		v.Looked = ms(w.now - d.looked)
	}
	if d.began != 0 {
		v.Age = ms(w.now - d.began)
	}
	if d.heldAt != 0 {
		v.HoldAge = ms(w.now - d.heldAt)
		for _, p := range w.hearers(n) {
			if !d.answers[p.i] {
				v.Unheld = append(v.Unheld, w.nodes[p.i].name)
			}
		}
		if len(v.Unheld) == 0 {
			v.HeldFor = ms(w.now - max(d.heldAt, d.answered))
		}
	}
	return v
}

// drainSwapped: it was withdrawn.
func (w *world) drainSwapped(n *node, act decide.Action) {
	if act.Note == "undrained" {
		n.a.drain = nil
		w.stats.GivenUp++
	}
}

// opPrepare begins a switchover, and the checkpoint before it, which lasts a while and
// may fail.
func (w *world) opPrepare(n *node, o *operation) (bool, bool) {
	if w.st.request == nil || w.st.request.ID != o.act.Request || !w.reaches(n) {
		return true, false
	}
	r := *w.st.request
	r.Tried = true
	w.st.request = &r
	w.nextID++
	d := &draining{id: "d" + strconv.Itoa(int(w.nextID)), to: o.act.To, request: o.act.Request, ready: w.now + int64(w.rng.IntN(4))*tick}
	if w.chance(50 + w.prof.slowPrepare) {
		d.ready += int64(w.rng.IntN(100)) * tick
	}
	d.failed = w.chance(10)
	n.a.drain = d
	return true, true
}

// checkStop: before the hold is over the stop comes only when every proxy that
// hears the leader has said that it holds, and when none of them waits for the
// answer to a COMMIT.
func (w *world) checkStop(n *node) {
	d := n.a.drain
	if d == nil {
		return // decided a while ago: it leads no more
	}
	if d.heldAt == 0 {
		w.fail("drain", "%s stops for a switchover that was not announced", n.name)
		return
	}
	w.stats.Drained++
	if w.now-d.heldAt >= under(w.spec.Drain.Hold) {
		w.stats.Late++
		return
	}
	for _, p := range w.hearers(n) {
		if !d.answers[p.i] {
			if p.to == n.i && p.linked < d.heldAt {
				w.fail("drain", "%s stops before the proxy on %s has answered", n.name, w.nodes[p.i].name)
			}
			continue
		}
		for _, c := range p.clients {
			if c.pg == n.pg && c.committing && p.holds && p.id == d.id {
				w.fail("drain", "the stop of %s interrupts a COMMIT %d ms after the hold began", n.name, w.now-d.heldAt)
			}
		}
	}
}

// checkHold: a leader that can go on does not hold for ever, and goes on without a
// standby that is gone, whatever else it waits for before a switchover.
func (w *world) checkHold() {
	t := w.st.term
	n := w.leader()
	if n.a == nil || n.a.drain == nil || !w.atLiberty(n) {
		w.held, w.starved = 0, 0
		return
	}
	d := t.Draining()
	if d == nil || !d.Hold || n.a.drain.id != d.ID {
		w.held = 0
	} else if w.held++; int64(w.held) > under(w.spec.Drain.Hold)*5/4/tick+25 {
		w.fail("drain", "%s has held what is new for %d ms", n.name, w.now-n.a.drain.heldAt)
	}
	if w.now >= n.a.drain.ready || w.spec.Durability != cluster.Quorum || len(n.pg.waiting) == 0 || !w.deserted(n, t) {
		w.starved = 0
	} else if w.starved++; int64(w.starved) > 2*under(w.spec.DegradeAfter)/tick+25 {
		w.fail("drain", "%s lets commits wait for a checkpoint", n.name)
	}
}

// atLiberty: nothing keeps this leader's agent from its next step.
func (w *world) atLiberty(n *node) bool {
	return n.runs(w.now) && n.a.pausedUntil <= w.now && w.reaches(n) && n.a.busy == "" && n.a.next == nil && !n.a.unsettled && !n.a.failed &&
		n.pg != nil && n.pg.phase == primary && n.pg.hungUntil <= w.now
}

// deserted: nobody whom a commit waits for is there.
func (w *world) deserted(n *node, t *cluster.Term) bool {
	for _, m := range t.Sync {
		if x := w.nodes[w.index(m.Name)]; x.hostUp && x.pg != nil && w.linked(x.i, n.i) {
			return false
		}
	}
	return len(t.Sync) > 0
}
