package health

import (
	"maps"
	"slices"
	"time"

	"manada/internal/cluster"
)

// Seen is what one host has heard of a node.
type Seen struct {
	Beat *cluster.Beat // newest of the agent; nil: none ever
	Age  time.Duration // since it arrived
	// Guardian is the newest beat of the guardian; nil: none ever.
	Guardian    *cluster.Beat
	GuardianAge time.Duration
}

// Expected is a node that the configuration or the registry names, heard or not.
type Expected struct {
	Name string
	Kind string // as Beat.Kind
	// What it was registered with, for the status.
	ID       int
	Location string
	Address  string
	Failover string
	Priority *int
}

// Backup is what backupd says.
type Backup struct {
	cluster.BackupStatus
	Host        string // the repository host
	Unreachable string // why backupd could not be asked; empty: it was
	ArchiveErr  string // why archiving fails; empty: it does not
	BackupErr   string // why the last backup failed; empty: it did not
	Off         bool   // nobody wants backups
	None        bool   // there is no repository, and never was
	Damaged     string // the last backup, if pages in it are damaged, and the newest clean one
	TestErr     string // why the last restore test failed; empty: it did not
	Lost        string // what the repository had and has not any more; empty: nothing
	Gap         Gap    // WAL that the archive lacks and the newest backup needs
	OldGap      Gap    // WAL that it lacks and older backups need
	Full        string // why the repository takes no new files; empty: it does
	Missed      string // the scheduled backup that was not made, and why; empty: none
}

// Gap is WAL that the archive lacks; empty: it lacks none.
type Gap struct {
	WAL  string // what is missing
	Cost string // what cannot be restored without it
}

// Limits are thresholds; zero fields get the defaults.
type Limits struct {
	Stale           time.Duration // a beat older than this says nothing: 3 s
	Silent          time.Duration // an agent whose guardian was heard that much later is down: 1 s
	LagBytes        int64         // 64 MiB
	Lag             time.Duration // 10 s
	Waiting         time.Duration // commits waiting for a standby: 2 s
	WaitingSegments int64         // 8
	WaitingFor      time.Duration // of the oldest segment: 20 s
	BackupAge       time.Duration // 8 days
}

// DefaultLimits are what zero fields of Limits become.
var DefaultLimits = Limits{
	Stale: 3 * time.Second, Silent: time.Second, LagBytes: 64 << 20, Lag: 10 * time.Second, Waiting: 2 * time.Second,
	WaitingSegments: 8, WaitingFor: 20 * time.Second, BackupAge: 8 * 24 * time.Hour,
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	return Limits{
		Stale: orDefault(l.Stale, d.Stale), Silent: orDefault(l.Silent, d.Silent), LagBytes: orDefault(l.LagBytes, d.LagBytes),
		Lag: orDefault(l.Lag, d.Lag), Waiting: orDefault(l.Waiting, d.Waiting), WaitingSegments: orDefault(l.WaitingSegments, d.WaitingSegments),
		WaitingFor: orDefault(l.WaitingFor, d.WaitingFor), BackupAge: orDefault(l.BackupAge, d.BackupAge),
	}
}

func orDefault[N int64 | time.Duration](n, def N) N {
	if n > 0 {
		return n
	}
	return def
}

// Input is all that Build looks at.
type Input struct {
	Cluster  string
	Self     string // the host whose view it is
	Now      time.Time
	Nodes    map[string]Seen // by node name
	Expected []Expected
	// Term is the newest record the caller has read and TermRev its
	// modification revision. A newer one out of a beat is preferred: records
	// only ever grow, so even an old beat's may be the newest known.
	Term    *cluster.Term
	TermRev int64
	Store   *cluster.StoreStatus // nil: unknown
	Backup  *Backup
	Paused  bool
	Limits  Limits
	// Extra are conditions that the caller knows of by itself.
	Extra []cluster.Condition
}

// Build makes the status of the herd out of what one host has heard. It
// trusts no beat older than Limits.Stale: of such a node only its name, its
// place in the record and the age of the beat are told. The input is not
// changed and nothing in the result points into it.
func Build(in Input) cluster.Status {
	b := builder{in: in, lim: in.Limits.withDefaults()}
	b.term = newestTerm(in)
	for _, name := range b.names() {
		b.nodes = append(b.nodes, b.observe(name))
	}
	b.findPrimary()
	st := cluster.Status{
		Cluster: in.Cluster, SeenFrom: in.Self, At: in.Now.UTC(), Primary: b.primary, Paused: b.paused(),
	}
	if t := b.term; t != nil {
		st.Epoch, st.Durability, st.K = t.Epoch, t.Durability, t.K
		for _, m := range t.Sync {
			st.Sync = append(st.Sync, m.Name)
		}
		slices.Sort(st.Sync)
	}
	for i := range b.nodes {
		st.Nodes = append(st.Nodes, b.row(&b.nodes[i]))
	}
	slices.SortStableFunc(st.Nodes, func(x, y cluster.NodeStatus) int { return roleRank(x.Role) - roleRank(y.Role) })
	if in.Store != nil {
		st.Store = cloneStore(*in.Store)
	}
	if k := in.Backup; k != nil && !k.Off && !k.None {
		st.Backup = b.backupRow(cloneBackup(in.Backup.BackupStatus))
	}
	st.Conditions = Sort(b.conditions(st))
	st.Health = Of(st.Conditions)
	return st
}

// builder carries one Build.
type builder struct {
	in      Input
	lim     Limits
	term    *cluster.Term
	nodes   []node // by name
	primary string
}

// node is what Build made of one node's beats.
type node struct {
	name   string
	kind   string
	beat   *cluster.Beat // the freshest trusted word, agent's before guardian's; nil: unreachable
	agent  bool          // beat is the agent's
	heard  bool          // at least once, by anyone
	age    time.Duration // of the newest beat, trusted or not
	state  cluster.NodeState
	lagged *int64
	// stopped: its last word was that its host is being stopped in order.
	stopped bool
}

func (b *builder) names() []string {
	set := map[string]bool{}
	for _, e := range b.in.Expected {
		set[e.Name] = true
	}
	for name := range b.in.Nodes {
		set[name] = true
	}
	if b.term != nil {
		if b.term.Leader != "" {
			set[b.term.Leader] = true
		}
		for _, m := range b.term.Sync {
			set[m.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// observe finds the freshest trusted word on a node.
func (b *builder) observe(name string) node {
	n := node{name: name, kind: b.kind(name)}
	s := b.in.Nodes[name]
	if s.Beat != nil {
		n.heard, n.age = true, s.Age
		if s.Age <= b.lim.Stale {
			n.beat, n.agent = s.Beat, true
		}
	}
	if s.Guardian != nil {
		if n.agent && s.GuardianAge <= b.lim.Stale && s.Age-s.GuardianAge > b.lim.Silent {
			n.beat, n.agent = nil, false // the host is heard, and its agent says nothing
		}
		if !n.heard || s.GuardianAge < n.age {
			n.heard, n.age = true, s.GuardianAge
		}
		if n.beat == nil && s.GuardianAge <= b.lim.Stale {
			n.beat = s.Guardian
		}
	}
	if s.Beat != nil && s.Beat.Leaving && !n.agent {
		n.beat, n.stopped = nil, true // its guardian goes, too
	}
	return n
}

// kind is what a node was made as. It does not change while it lives, so an old
// beat may tell it.
func (b *builder) kind(name string) string {
	s := b.in.Nodes[name]
	for _, beat := range []*cluster.Beat{s.Beat, s.Guardian} {
		if beat != nil && beat.Kind != "" {
			return beat.Kind
		}
	}
	for _, e := range b.in.Expected {
		if e.Name == name && e.Kind != "" {
			return e.Kind
		}
	}
	return "data"
}

// findPrimary: the record must be open, and its leader heard leading that very
// epoch within the threshold.
func (b *builder) findPrimary() {
	if b.term == nil || !b.term.Open {
		return
	}
	if n := b.node(b.term.Leader); n != nil && n.leads(b.term.Epoch) {
		b.primary = n.name
	}
}

// leads says whether the node's trusted word is that its PostgreSQL runs as
// primary of the epoch: answering, not hung or stopping. A guardian does not
// always know epochs; of one that names none, the word that PostgreSQL is a
// primary is enough, because the record names its epoch.
func (n *node) leads(epoch uint64) bool {
	if n.beat == nil || n.beat.Postgres != cluster.PostgresPrimary {
		return false
	}
	return n.beat.Leads == epoch || !n.agent && n.beat.Leads == 0
}

func (b *builder) node(name string) *node {
	for i := range b.nodes {
		if b.nodes[i].name == name {
			return &b.nodes[i]
		}
	}
	return nil
}

func (b *builder) paused() bool {
	if b.in.Paused {
		return true
	}
	return slices.ContainsFunc(b.nodes, func(n node) bool { return n.beat != nil && n.agent && n.beat.Paused })
}

// newestTerm takes the record with the highest revision that anybody mentions.
// At equal revisions the caller's own wins.
func newestTerm(in Input) *cluster.Term {
	best, rev := in.Term, in.TermRev
	for _, name := range slices.Sorted(maps.Keys(in.Nodes)) {
		s := in.Nodes[name]
		for _, beat := range []*cluster.Beat{s.Beat, s.Guardian} {
			if beat != nil && beat.Term != nil && (best == nil || beat.TermRev > rev) {
				best, rev = beat.Term, beat.TermRev
			}
		}
	}
	return best
}

func roleRank(r cluster.Role) int {
	return slices.Index([]cluster.Role{cluster.RolePrimary, cluster.RoleStandby, cluster.RoleWitness, cluster.RoleOfProxy}, r)
}

func cloneStore(s cluster.StoreStatus) *cluster.StoreStatus {
	s.Voting, s.Down = append([]string{}, s.Voting...), append([]string{}, s.Down...) // never null in JSON
	slices.Sort(s.Voting)
	slices.Sort(s.Down)
	s.UnknownSince = utc(s.UnknownSince)
	return &s
}

// backupRow adds what the primary says: the WAL that waits there, and a backup that
// is newer than what this host was told last.
func (b *builder) backupRow(k *cluster.BackupStatus) *cluster.BackupStatus {
	p := b.node(b.primary)
	if p == nil || !p.agent {
		return k
	}
	if w := p.beat.Waiting; w != nil {
		n := w.Segments
		k.WaitingSegments = &n
	}
	if l := p.beat.Backup; l != nil && (k.Last == nil || l.Stop.After(k.Last.Stop)) {
		c := *l
		c.Stop = c.Stop.UTC()
		k.Last = &c
	}
	return k
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

func cloneBackup(b cluster.BackupStatus) *cluster.BackupStatus {
	if b.Last != nil {
		l := *b.Last
		l.Stop = l.Stop.UTC()
		b.Last = &l
	}
	b.RestorableFrom, b.RestorableTo, b.RestoreTested = utc(b.RestorableFrom), utc(b.RestorableTo), utc(b.RestoreTested)
	b.UnknownSince = utc(b.UnknownSince)
	if b.WaitingSegments != nil {
		n := *b.WaitingSegments
		b.WaitingSegments = &n
	}
	return &b
}
