package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/guardian"
	"manada/internal/health"
	"manada/internal/peer"
	"manada/internal/postgres"
	"manada/internal/store"
)

// Config is what an agent is told about its host and herd.
type Config struct {
	Cluster, Node, Location string
	Version                 string
	Kind                    string // "data" or "witness"
	Founder                 bool   // this host was told to found the herd
	Spec                    decide.Spec
	Run                     string // id of the `manada run` that started it; empty: none did
	Beat                    time.Duration
	RenewEvery              time.Duration
	StopTimeout             time.Duration // of a fast stop, before it becomes immediate
	Addrs                   cluster.Addresses
	StateDir, IdentityDir   string
	RepoPath                string            // of the repository on this host; empty: none
	Peers                   map[string]string // known addresses, node to host:port
	MembersFrom             []string          // networks from which members may stream as well
	ID                      int               // 0: the first free one
	Manual                  bool              // it leads only by order
	Failover                string            // "automatic" or "manual"
	Priority                int
}

// Parts are what an agent is made of. Database is nil on a witness.
type Parts struct {
	Store    store.Store
	High     *store.HighWater
	Hub      *peer.Hub
	Database *postgres.Instance
	Guardian *guardian.Client
	Repo     Repository // nil: no archiving
	Log      *slog.Logger
	// MoveStoreLeader moves etcd's leadership off a host; may be nil.
	MoveStoreLeader func(ctx context.Context, avoid string) error
	// RemoveVoter takes a host's vote in the store away; may be nil.
	RemoveVoter func(ctx context.Context, node string) error
	// Removed makes worthless what a host that an operator removed still knows;
	// may be nil.
	Removed func(ctx context.Context, node string) error
	// Conditions are what else is to be told of this node; may be nil.
	Conditions func() []cluster.Condition
	// CertNotAfter is when this host's certificate expires; may be nil.
	CertNotAfter func() time.Time
	// ConfigRefused says why this host's changed configuration is not used, ""
	// when it is; may be nil.
	ConfigRefused func() string
	// Notify is told of this node's events and may not wait; may be nil.
	Notify func(store.Event)
	// EnsureGuardian starts a guardian where none answers.
	EnsureGuardian func(ctx context.Context) error
}

// Agent runs one node.
type Agent struct {
	cfg   Config
	store store.Store
	high  *store.HighWater
	hub   *peer.Hub
	db    *postgres.Instance
	guard *guardian.Client
	repo  Repository
	log   *slog.Logger
	parts Parts
	wal   string // pg_wal of this node

	certified bool // connections show certificates, and pg_hba.conf knows the members' addresses

	started    time.Time
	boot       string
	bootSeq    uint64
	wake       chan struct{}
	overridden chan struct{} // a setting comes from somewhere else
	events     chan store.Event
	opened     chan struct{} // this node has opened an epoch
	drainNews  chan struct{} // something changed in the drain

	leaving  atomic.Bool // a lone leader leaves its last word
	admits   atomic.Bool // this host's proxy may use the socket of PostgreSQL
	stopping atomic.Bool // this host is being stopped: it takes over nothing any more
	ending   atomic.Bool // and PostgreSQL with it: nothing is begun any more

	addrs   addresses    // of the hosts' names
	fetches calls        // of restore_command
	pushes  calls        // of archive_command
	looking sync.Mutex   // one observation at a time
	turned  atomic.Int64 // when the loop last turned, nanoseconds since 1970

	mu           sync.Mutex // guards what follows
	rec          record
	seen         observed
	mem          memory
	steps        uint64 // small actions done, to drop observations that they overtook
	holder       *turn  // nil: nothing operates on the data directory
	mayRenew     bool
	beat         cluster.Beat
	beatAt       time.Time
	said         beatTimes
	leadsFrom    time.Time // since when this node is known to have won the epoch
	storeUp      store.Status
	storeAskedAt time.Time // when it last answered
	storeUnknown time.Time // since when it does not; zero: it does
	suspects     string
	suspectedAt  time.Time
	cause        string // why the leader was suspected first
	lastTakeover time.Duration
	nodes        []store.Node
	drift        []cluster.Condition
	careful      []cluster.Condition // of limits.go
	unfurnished  []cluster.Condition // of furnish.go
	room         roomMade
	members      []cluster.MemberAccess
	memberAddrs  map[string]time.Time // addresses of members, and when each was last one
	strangers    strangers
	taken        map[string]time.Time // roles from which REPLICATION was taken, and when last
	stepFails    []cluster.Condition  // of the newest long operation
	putBack      string
	putBackAt    time.Time
	archiveErr   string
	archiveOther string // a file of which the archive has another content
	restoreErr   string // why the last step of a restore failed
	backupStatus *health.Backup
	waiting      *cluster.Waiting         // WAL to be archived
	drain        *draining                // nil: no switchover is under way here
	listening    func() map[string]string // proxies that hear this host (peer.Server.Proxies); nil: none

	// Only touched by the loop.
	lastReason, lastFailure string
	seq                     uint64

	lastKnown lastKnown // only touched by SetBackups
}

// New makes an agent; Run starts it.
func New(cfg Config, p Parts) *Agent {
	id := make([]byte, 8)
	_, _ = rand.Read(id)
	a := &Agent{
		cfg: cfg, store: p.Store, high: p.High, hub: p.Hub, db: p.Database, guard: p.Guardian,
		repo: p.Repo, log: p.Log, parts: p,
		started: time.Now(), boot: hex.EncodeToString(id), bootSeq: uint64(time.Now().UnixNano()),
		taken: map[string]time.Time{}, wake: make(chan struct{}, 1), overridden: make(chan struct{}, 1), events: make(chan store.Event, 64), opened: make(chan struct{}, 1),
		drainNews: make(chan struct{}, 1),
	}
	if a.db != nil {
		a.certified = a.db.Config().TLS.CA != ""
		a.wal = filepath.Join(a.db.Config().DataDir, "pg_wal")
	}
	a.mem = newMemory()
	a.readLastKnown()
	a.turned.Store(time.Now().UnixNano())
	// A write of the run before may still arrive: nothing is loosened until a
	// read and a write of this run have succeeded (H2).
	a.rec.unsettled = p.Database != nil
	return a
}

// Run observes, decides and acts until ctx ends. PostgreSQL goes on running;
// see Shutdown.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	loops := []func(context.Context){a.followStore, a.renewLoop, a.eventLoop, a.membersLoop, a.loop}
	if a.db != nil {
		a.observe(ctx)
		loops = append(loops, a.observeLoop, a.guardianLoop, a.careLoop, a.furnishLoop, a.strangersLoop, a.drainLoop)
		if a.repo != nil {
			loops = append(loops, a.backfillLoop)
		}
	}
	for _, f := range loops {
		g.Go(func() error { f(ctx); return nil })
	}
	return g.Wait()
}

// memory is what the agent knows beyond its observations and may forget: after
// a restart every field is safe at its zero value. Guarded by Agent.mu.
type memory struct {
	position     decidePosition
	provedPID    int // postmaster for which waiting is proved in force
	syncSince    cluster.LSN
	oldSenders   []int
	syncKnown    bool // this agent has rendered the setting itself
	handoverTo   string
	archiveRests bool // while this primary is being stopped for another
	downSince    time.Time
	leadsSince   time.Time
	leads        uint64
	writtenEpoch uint64
	withdrawals  int
	withdrawnAt  time.Time
	promisedAt   time.Time
	hungSince    time.Time
	streamed     map[string]time.Time // certified sender last seen streaming
	answered     map[string]answered  // and what its standby last said
	progress     cluster.LSN
	progressAt   time.Time
	fork         cluster.LSN
	archived     cluster.LSN // all WAL of the newest final position is archived up to here
	recoverFrom  cluster.LSN // where the recovery of a restore was first seen
}

// decidePosition is where the WAL ended when it was last read with no receiver.
type decidePosition struct {
	final    bool
	timeline cluster.Timeline
	lsn      cluster.LSN
	complete cluster.LSN
}

func newMemory() memory {
	now := time.Now()
	return memory{streamed: map[string]time.Time{}, answered: map[string]answered{}, progressAt: now, downSince: now, promisedAt: now}
}

// newEpoch forgets what belonged to the epoch before. Called with mu held.
func (a *Agent) newEpoch(old *cluster.Term) {
	a.noteWon(old)
	a.mem.handoverTo, a.drain = "", nil
	a.mem.streamed = map[string]time.Time{}
	a.mem.oldSenders = nil
	a.mem.syncSince = 0
	a.mem.withdrawals = 0
}
