package decide

import (
	"time"

	"manada/internal/cluster"
)

// View is all that one node knows at one moment. Ages stand in for a clock.
type View struct {
	Self  string
	Spec  Spec
	Store Store
	Local Local
	// Peers are the other nodes, sorted by name.
	Peers []Peer
	// Nonce is a fresh random value for the epoch that this decision may win.
	Nonce string
	// Without removes rules. Only the simulator sets it, to prove that it
	// would notice.
	Without Mutation
}

// Spec is what the herd was asked to be.
type Spec struct {
	Witness    bool // this host has no database
	Durability cluster.Durability
	WantK      int
	// SuspectAfter is how long a leader must be silent before it is suspected.
	SuspectAfter time.Duration
	// DegradeAfter is how long a member of sync may be away before it is taken out.
	DegradeAfter time.Duration
	// OpenAfter is how long a new leader waits for certified standbys.
	OpenAfter time.Duration
	// HandoverAfter is how long a fallen or stopped leader leaves the epoch to others.
	HandoverAfter time.Duration
	// WithdrawAfter is how long an unused promise stands; it doubles with each withdrawal.
	WithdrawAfter time.Duration
	// Drain is how a switchover begins.
	Drain Drain
	// RecloneAfter is how long a standby may fail to stream from a healthy leader.
	RecloneAfter time.Duration
	// FreshRead is how old a linearizable read may be before a freeze.
	FreshRead time.Duration
}

// Store is the record as this node last read it.
type Store struct {
	Reachable bool          // the last read succeeded
	ReadAge   time.Duration // since the newest successful read was sent
	Term      *cluster.Term // nil: the herd has no term yet
	Rev       int64
	// Unsettled: a write of ours has an unknown outcome; until a later read and
	// write of ours succeed, PostgreSQL obeys both values (H2).
	Unsettled bool
	// RolledBack: an answer was older than what this node has on disk (C6).
	RolledBack bool
	Lease      Lease
	Paused     bool
	Request    *Request
	// JustOpened: the epoch has been known to be open for a moment only.
	JustOpened bool
}

// Lease is the leader's renewal counter as observed here.
type Lease struct {
	Node      string
	Epoch     uint64
	Unchanged time.Duration // by this node's own clock and its own reads
}

// Request is an operator's wish.
type Request struct {
	ID             string
	Kind           string // "switchover", "failover", "reinit", "restore" or "undo-restore"
	To             string
	By             string
	Epoch          uint64           // of a restore: the one in which its plan was made
	Restore        *cluster.Restore // what is to be restored
	Order          string           // of undo-restore: which order
	AcceptDataLoss bool
	OldPrimaryOff  bool
	// Tried: a leader has stopped for it once.
	Tried bool
	Age   time.Duration
}

// Local is this node.
type Local struct {
	Instance string
	// Empty: there is no data directory. Poisoned: a rewind or clone did not end.
	Empty, Poisoned bool
	// Founder: this host was told to found the herd. SystemID is the directory's.
	Founder  bool
	SystemID string
	// AgentFor is how long the agent has been listening to the others.
	AgentFor time.Duration
	// HighEpoch is the highest epoch ever obeyed, from disk.
	HighEpoch uint64

	Postgres cluster.PostgresState
	// Busy names the long operation under way, "" if none.
	Busy string
	// TreeEmpty: no process of this data directory lives.
	TreeEmpty bool
	// CleanStop: pg_control says that it was shut down.
	CleanStop bool
	// DownFor is how long PostgreSQL has been down.
	DownFor time.Duration
	// Former: the directory has run as a primary and was not rewound or cloned since.
	Former bool
	// Leads is the epoch in which PostgreSQL runs as primary, 0 if it does not;
	// LeadsFor since when. Written says that the epoch's control row stands.
	Leads    uint64
	LeadsFor time.Duration
	Written  bool
	// Fork is where the running timeline begins.
	Fork     cluster.LSN
	Timeline cluster.Timeline
	// WAL is where the WAL ends; Final says that it was read after the receiver was gone.
	WAL   cluster.Position
	Final bool
	// Complete is where the last complete record ends, which the certificate
	// judges: a received part of a record is no divergence. 0: as WAL.
	Complete cluster.LSN
	// Remade is the epoch from whose leader the directory was rewound or cloned,
	// until it is consistent; 0 otherwise.
	Remade uint64
	// Promised is the epoch whose end is promised on disk, 0 if none.
	Promised    uint64
	PromisedFor time.Duration
	// Withdrawals counts promises withdrawn since the last epoch that this node
	// followed, WithdrawnAgo since the newest.
	Withdrawals  int
	WithdrawnAgo time.Duration
	// Leaving: this host is being stopped and has nobody to hand the epoch over
	// to. Archived is up to where its WAL is known to be in the archive.
	Leaving  bool
	Archived cluster.LSN
	// HandoverTo is set while a switchover to that node is under way here, from
	// the stop on. Drain is what comes before.
	HandoverTo string
	Drain      LocalDrain

	// Upstream is the application_name rendered on disk, "" when cut off.
	Upstream string
	// Receiver: a walreceiver is in the process table.
	Receiver bool
	// SilentFor: since WAL or a keepalive last arrived.
	SilentFor time.Duration
	// StuckFor: since the standby last streamed or replayed anything new.
	StuckFor     time.Duration
	ControlNonce string

	Restore LocalRestore
	// BadHistory is why the timeline that this primary began cannot be ("" when it
	// can): it goes back in time.
	BadHistory string
	// Rewound is how often this directory was rewound in the present epoch.
	Rewound int
	Sync    Sync
	Senders []cluster.Sender
	// MaxSenders is how many there can be (max_wal_senders), 0 if not known.
	MaxSenders int
	// Impostor is who bore a member's name since the record last said k = 0, also
	// when it has gone meanwhile; "" for nobody. Lie is who reported a flush
	// beyond the WAL to the postmaster that runs.
	Impostor, Lie string
	// Stalled is why nothing can be committed here ("" when it can).
	Stalled string
	MayLead bool
	// Manual: it takes over only when an operator orders it. Priority decides
	// among equals.
	Manual   bool
	Priority int
}

// LocalRestore is how far this node has come with the order of a restore.
type LocalRestore struct {
	ID string // of the order that was begun here, "" if none
	// Tail is where the WAL ended that the leader had; all of it is archived.
	Tail cluster.LSN
	// Touched: the data directory has been altered or moved aside. Restored: the
	// backup's data is in place. Done: it was promoted since, nothing of the
	// recovery is left.
	Touched, Restored, Done bool
	// ToEnd: the time that was asked for lies after the last commit.
	ToEnd bool
	// Along is the ancestor's timeline on which the target was found to lie, at
	// Stop: recovery goes along that one now. 0 before.
	Along cluster.Timeline
	Stop  cluster.LSN
	// Replayed is how far recovery has come, Paused that it stopped at its target.
	Replayed cluster.LSN
	Paused   bool
	// Obstacle is the setting at which replay stopped without being there: it is
	// lower than the primary's was. A start takes what pg_control asks for.
	Obstacle string
}

// Sync is the setting of synchronous_standby_names as rendered here.
type Sync struct {
	Setting cluster.SyncSetting
	// Proved: waiting is in force (seen, or never empty since the postmaster started; C5).
	Proved bool
	// Since is a WAL position taken after the setting was in force in every
	// process: none of Old is left, and no walsender outside the setting says
	// that it is synchronous (pg_stat_replication.sync_state). 0 until then, and
	// when it is not known.
	Since cluster.LSN
	// Old are the walsenders that may still apply a smaller k: those that ran
	// when k was raised, or when a setting with k > 1 was found by an agent that
	// does not know what stood before. They stay until they are gone (H4).
	Old []int
}

// Peer is another node.
type Peer struct {
	cluster.Beat
	Age time.Duration // of its agent's newest beat
	// Guardian is its guardian's word; GuardianAge is large when there is none.
	Guardian    cluster.PostgresState
	GuardianAge time.Duration
	// UnseenFor is since its certified walsender was last seen streaming here.
	UnseenFor time.Duration
}

// Mutation is a set of rules to leave out.
type Mutation uint

// The rules that the simulator must miss when they are gone.
const (
	WithoutCertificate    Mutation = 1 << iota // C1
	WithoutNarrowingFlush                      // C2
	WithoutOpening                             // C3
	WithoutReceiverGone                        // C4
	WithoutWALEpoch                            // C7
	WithoutSwapFirst                           // degrade swaps before it clears
	WithoutBothValues                          // H2
	WithoutTheRest                             // an heir by the last word fetches what it lacks
	WithoutStandingAside                       // a restore is ordered
	WithoutTail                                // a restore brings back everything
	WithoutRecord                              // k = 0 is recorded before an impostor's walsender is ended
	WithoutRole                                // whose walsender it is counts, not only its name
	WithoutRestart                             // a false flush position stays until PostgreSQL was restarted
	WithoutHeld                                // a switchover goes on when every proxy has answered
	WithoutQuiet                               // and when nothing is under way
	WithoutDuties                              // while the checkpoint before a switchover is under way
	WithoutHoldEnd                             // or when the hold has lasted long enough
	WithoutClearing                            // the next epoch ends a drain
)

func (v *View) without(m Mutation) bool { return v.Without&m != 0 }

// me is this node's directory as a member.
func (v *View) me() cluster.Member {
	return cluster.Member{Name: v.Self, Instance: v.Local.Instance}
}

func (v *View) peer(name string) (Peer, bool) {
	for _, p := range v.Peers {
		if p.Node == name {
			return p, true
		}
	}
	return Peer{}, false
}

// fresh says whether the node's agent was heard within the time-out.
func (v *View) fresh(p Peer) bool { return p.Age < v.Spec.SuspectAfter }

// sender is the walsender of a member under its certified name, the youngest if
// there are two; never one that somebody else has.
func (v *View) sender(node string, epoch uint64) (x cluster.Sender, ok bool) {
	name := cluster.CertifiedName(node, epoch)
	for _, s := range v.Local.Senders {
		if s.Name == name && (s.Stranger == "" || v.without(WithoutRole)) && (!ok || s.Start > x.Start) {
			x, ok = s, true
		}
	}
	return x, ok
}
