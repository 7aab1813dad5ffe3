package sim

import (
	"fmt"
	"math/rand/v2"

	"manada/internal/cluster"
	"manada/internal/decide"
)

const systemID = "7000000000000000001"

// Profile says what happens in a schedule and how often. Chances are in
// thousandths.
type Profile struct {
	Name    string
	Without decide.Mutation
	WantK   int
	Strict  bool
	Steps   int // with faults, after the herd was founded
	Faults  int // at least so many; up to twice as many
	Weights [faultKinds]int

	reply      int // a walsender hears its receiver, per tick
	reset      int // a walsender notices that its receiver is gone, per tick
	beatLoss   int
	conflict   int // replay gets stuck, per tick
	slowReload int
	slowAct    int // time passes between deciding and acting
	flaky      int // a write's outcome is unknown although the store is there
	late       int // a write sent into a partition is applied later
	garbage    int // old records stand behind what a standby has just received

	// Faults of the agent, not of decide: the tests show that they matter.
	forgetful bool // after a restart an agent takes earlier writes for settled (H2)
	slotless  bool // standbys stream without a slot, so one may be there twice
	unproved  bool // the probe is not seen waiting (C5)
	amnesiac  bool // the promise is not on disk (H3)
	lossOnly  bool // the checker is silent about names (invariant 4): only losses count
	// The leader's agent does not take REPLICATION from roles outside the list:
	// pg_hba.conf alone lets walsenders of a database in.
	databaseIn  bool
	trusting    bool // while a stranger bears a name, what was proved still counts
	hasty       bool // Since is read before every walsender follows the setting (C2)
	slowPrepare int  // per 1000 more checkpoints before a switchover that last long
	anyEpoch    bool // a proxy obeys the drain of another epoch
	credulous   bool // the first record behind what was replayed need not name the one before it
}

// Stats counts what happened, so that a test can tell that it did.
type Stats struct {
	Schedules, Steps, Faults, Decisions           int
	Acks, Takeovers, SelfSuccessions, Switchovers int
	Degradations, Restorations, Widened, Narrowed int
	Rewinds, Clones, Unknown, LateApplied, Opened int
	LostDisks, Withdrawn, Promises, RaisedK       int
	LastWords, Fetched                            int
	Intruders, Knocks, FalseAcks, FalseLost       int
	Drained, Late, GivenUp, Cut                   int
}

func (s *Stats) add(o *Stats) {
	s.Schedules += o.Schedules
	s.Steps += o.Steps
	s.Faults += o.Faults
	s.Decisions += o.Decisions
	s.Acks += o.Acks
	s.Takeovers += o.Takeovers
	s.SelfSuccessions += o.SelfSuccessions
	s.Switchovers += o.Switchovers
	s.Degradations += o.Degradations
	s.Restorations += o.Restorations
	s.Widened += o.Widened
	s.Narrowed += o.Narrowed
	s.Rewinds += o.Rewinds
	s.Clones += o.Clones
	s.Unknown += o.Unknown
	s.LateApplied += o.LateApplied
	s.Opened += o.Opened
	s.LostDisks += o.LostDisks
	s.Withdrawn += o.Withdrawn
	s.Promises += o.Promises
	s.RaisedK += o.RaisedK
	s.LastWords += o.LastWords
	s.Fetched += o.Fetched
	s.Intruders += o.Intruders
	s.Knocks += o.Knocks
	s.FalseAcks += o.FalseAcks
	s.FalseLost += o.FalseLost
	s.Drained += o.Drained
	s.Late += o.Late
	s.GivenUp += o.GivenUp
	s.Cut += o.Cut
}

// world is a herd, its network, its store and the checker.
type world struct {
	rng    *rand.Rand
	prof   *Profile
	spec   decide.Spec
	now    int64
	nodes  []*node // sorted by name; the witness is last
	data   int
	voters []int
	cut    [][]bool // packets from i to j are lost
	heals  []heal
	air    []packet
	st     etcd
	// archive is the WAL of timelines whose leader was stopped in order.
	archive map[cluster.Timeline]wal

	outageUntil, flakyUntil                 int64
	healing                                 bool
	winnerDies, crashWrites, promiseCrashes int // ambushes laid

	outsider *outsider
	proxies  []*proxy
	held     int // ticks for which a leader that could go on has held clients
	starved  int // and for which it let commits wait for a checkpoint

	nextID   uint32
	nextPID  int
	nextInst int
	nonces   []string

	chk     checker
	stats   Stats
	tracing bool
	trace   []string
}

func newWorld(seed uint64, data int, p *Profile) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, uint64(data))), prof: p, data: data, spec: spec, nonces: []string{"n0"}, archive: map[cluster.Timeline]wal{}}
	w.spec.WantK = max(1, p.WantK)
	if p.Strict {
		w.spec.Durability = cluster.Strict
	}
	for i := range data + 1 {
		n := &node{i: i, name: fmt.Sprintf("n%d", i+1), hostUp: true, d: disk{empty: true, maxTimeline: 1}, syncFile: cluster.HoldCommits()}
		if i == data {
			n.name, n.witness = "w", true
		}
		w.nodes = append(w.nodes, n)
		w.proxies = append(w.proxies, &proxy{i: i})
	}
	w.voters = []int{0, 1, data}
	w.cut = make([][]bool, data+1)
	for i := range w.cut {
		w.cut[i] = make([]bool, data+1)
	}
	return w
}

// chance is true k times out of a thousand.
func (w *world) chance(k int) bool { return w.rng.IntN(1000) < k }

func (w *world) linked(i, j int) bool { return !w.cut[i][j] && !w.cut[j][i] }

func (w *world) index(name string) int {
	for _, n := range w.nodes {
		if n.name == name {
			return n.i
		}
	}
	return len(w.nodes) - 1
}

func (w *world) freshInstance() string {
	w.nextInst++
	return fmt.Sprintf("i%d", w.nextInst)
}

func (w *world) nonceIndex(s string) int32 {
	for i, x := range w.nonces {
		if x == s {
			return int32(i)
		}
	}
	return 0
}

func (w *world) logf(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%7.2fs  ", float64(w.now)/1000)+fmt.Sprintf(format, args...))
	}
}

// step is one tick of everything, in an order that differs each time.
func (w *world) step() {
	w.now += tick
	w.stats.Steps++
	w.mend()
	w.ambush()
	w.lateWrites()
	w.shutdowns()
	w.knock()
	w.beats()
	var order [8]int
	for i := range w.nodes {
		order[i] = i
	}
	o := order[:len(w.nodes)]
	w.rng.Shuffle(len(o), func(i, j int) { o[i], o[j] = o[j], o[i] })
	for _, i := range o {
		w.stepPostgres(w.nodes[i])
	}
	w.stepProxies()
	for _, i := range o {
		w.stepAgent(w.nodes[i])
	}
	w.checkStep()
}

// Result of a schedule.
type Result struct {
	Stats Stats
	Err   error
	Trace []string
}

// Run plays the schedule of a seed: found a herd, hurt it, heal it.
func Run(seed uint64, data int, p *Profile, trace bool) Result {
	w := newWorld(seed, data, p)
	w.tracing = trace
	w.play()
	w.stats.Schedules = 1
	return Result{w.stats, w.chk.err, w.trace}
}

const (
	foundingSteps = 400
	healingSteps  = 1600
)

func (w *world) play() {
	if !w.until(foundingSteps, "founding") {
		return
	}
	plan := w.plan()
	for i := range w.prof.Steps {
		for len(plan) > 0 && plan[0].at <= i {
			w.inject(plan[0].kind)
			plan = plan[1:]
		}
		w.step()
		if w.chk.err != nil {
			return
		}
	}
	w.healAll()
	if w.spec.Durability == cluster.Quorum && !w.withoutSome() {
		return
	}
	if w.until(healingSteps, "healing") {
		for range 20 {
			w.step()
		}
	}
}

// until steps until the herd is well (invariant 5); false is a violation.
func (w *world) until(steps int, what string) bool {
	return w.untilNot(w.unwell, steps, what)
}

func (w *world) untilNot(bad func() string, steps int, what string) bool {
	for range steps {
		w.step()
		if w.chk.err != nil {
			return false
		}
		if bad() == "" {
			return true
		}
	}
	w.fail("5 (liveness)", "%s: not well after %d steps without faults: %s", what, steps, bad())
	return false
}

// withoutSome: some nodes stay dead for the first part of the healing, one
// after the other, as long as the premise of invariant 5 holds without them.
// The others alone must come to commit again.
func (w *world) withoutSome() bool {
	w.st.late = w.st.late[:0] // lost in the end
	dead := uint(0)
	for i := range w.rng.IntN(w.data) {
		n := w.nodes[w.rng.IntN(w.data)]
		if i == 0 && w.chance(600) {
			n = w.leader()
		}
		if n.d.empty || !w.canOpen(dead|1<<n.i) || dead>>n.i&1 == 1 || !n.hostUp && i > 0 {
			continue
		}
		dead |= 1 << n.i
		w.logf("HEAL, but %s stays dead", n.name)
		w.crashHost(n, 1<<40)
		for range w.rng.IntN(30) {
			w.step()
		}
		if w.chk.err != nil {
			return false
		}
	}
	acks := w.chk.acks
	ok := dead == 0 || w.untilNot(func() string {
		if w.chk.acks < acks+3 || !w.st.term.Open {
			return fmt.Sprintf("without %b nothing commits; %s", dead, decide.Describe(w.st.term))
		}
		return ""
	}, healingSteps, "healing without some")
	for _, n := range w.nodes[:w.data] {
		if dead>>n.i&1 == 1 {
			n.hostAt, n.agentAt = w.now, w.now
		}
	}
	return ok
}

// canOpen is the premise of invariant 5 without the dead.
func (w *world) canOpen(dead uint) bool {
	t, members := w.st.term, 0
	if dead&3 == 3 {
		return false // two of three voters
	}
	for _, m := range w.nodes[:w.data] {
		me := cluster.Member{Name: m.name, Instance: m.d.instance}
		if dead>>m.i&1 == 1 || m.d.empty || m.d.poisoned {
			continue
		}
		if t.LastOpenLeader == me && (!t.Open || t.Leader == m.name) || w.inherits(t, m) {
			return true
		}
		if t.InSync(me) {
			members++
		}
	}
	return len(t.Sync) > 0 && members >= t.Needed()
}

// unwell says what the herd still lacks: an open epoch, a primary that leads it,
// everybody waited for, every acknowledged commit everywhere.
func (w *world) unwell() string {
	t := w.st.term
	if t == nil || !t.Open {
		return "no epoch is open"
	}
	l := w.nodes[w.index(t.Leader)]
	switch {
	case l.pg == nil || l.pg.phase != primary || l.pg.epoch != t.Epoch:
		return l.name + " does not run as primary"
	case len(t.Sync) != w.data-1:
		return fmt.Sprintf("sync has %d of %d standbys", len(t.Sync), w.data-1)
	case t.K != min(w.spec.WantK, w.data-1):
		return fmt.Sprintf("k is %d", t.K)
	case w.st.request != nil:
		return "a request is open"
	}
	for _, n := range w.nodes[:w.data] {
		if _, ok := t.SyncNamed(n.name); n != l && (!ok || !t.InSync(cluster.Member{Name: n.name, Instance: n.d.instance})) {
			return n.name + " is not a member of sync"
		}
		if c := &w.chk; c.acks > 0 && !n.d.wal.has(c.last, c.hash) {
			return n.name + " lacks acknowledged commits"
		}
	}
	return ""
}
