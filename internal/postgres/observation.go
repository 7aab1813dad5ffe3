package postgres

import (
	"time"

	"manada/internal/cluster"
)

// Observation is what is known of the instance at one moment. Fields that
// cannot be known in the state it is in are zero (or nil).
type Observation struct {
	At        time.Time
	State     cluster.PostgresState
	Why       string // for people, when the state is hung, starting or stopping
	PID       int    // of the postmaster, 0 when none runs
	TreeEmpty bool   // verified by the guardian: nothing of PostgreSQL lives
	Exit      string // how the last postmaster ended
	StartedAt time.Time

	// On disk.
	HasData       bool
	DataError     string // why PGDATA cannot be used, "" when it can
	Control       *Control
	CleanStop     bool // pg_control says so; meaningful while nothing runs
	FormerPrimary bool // led (or set out to) since the last rewind or clone, or pg_control says so: to be rewound
	Instance      string
	LedEpoch      uint64
	Remade        uint64 // epoch from whose leader it was rewound or cloned, until it is consistent
	Rewound       int    // how often it was rewound in epoch RewoundIn
	RewoundIn     uint64
	Promise       *cluster.Promise
	Poison        *Poison
	Restore       *RestoreMark // how far an ordered restore has come here
	RestoreDone   bool         // and that its recovery is over

	// While it answers.
	Recovering bool // pg_is_in_recovery
	Timeline   cluster.Timeline
	// HistoryFault is why the timeline that this primary began cannot be, "" when
	// it can.
	HistoryFault string
	Received     cluster.LSN // a standby's; reset to a segment's start by a restart (trap T2)
	Replayed     cluster.LSN
	Flushed      cluster.LSN // a primary's
	Inserted     cluster.LSN // a primary's
	LagMS        *int64      // age of the last replayed commit while behind, else 0
	Paused       bool        // replay is paused
	Unfit        string      // replay is paused because of a setting that is too low: which

	Receivers  []int  // pids, from the process table
	Upstream   string // application_name in the rendered primary_conninfo, "" if none
	Streaming  bool   // a receiver streams
	ReceivedTL cluster.Timeline
	// ReceiverError is why it does not stream, in the receiver's words; "" while it
	// streams or they are not known.
	ReceiverError string
	MessageAge    time.Duration // since the last word of the upstream; only when streaming
	ConnInfoOf    string        // application_name of the receiver that lives
	ControlRow    *ControlRow   // newest replayed (or written)
	// ControlTable says whether the table of control rows is there and ours.
	ControlTable bool

	Sync           string // synchronous_standby_names as a fresh command sees it
	SyncSource     string // file that it comes from
	Senders        []Sender
	Started        []SenderStart // began since the last observation, for as long as they lived
	MaxSenders     int           // max_wal_senders
	OldestWait     time.Duration // of a commit that waits for a standby; counted from when it was first seen
	Waiting        int           // commits that wait
	PendingRestart []string      // settings that take effect at the next start
	Slots          []Slot
	NewConnection  error  // how the last try of a new connection ended; nil: it worked
	Crowded        bool   // ordinary roles have taken the connections that our own need: see MakeRoom
	Refused        string // why new connections keep failing, in PostgreSQL's words; "" when they do not
}

// ControlRow is a row of manada.control.
type ControlRow struct {
	Epoch uint64
	Node  string
	Nonce string
}

// Sender is a walsender with what tells it from an older one of the same name
// (finding H4).
type Sender struct {
	cluster.Sender
	Role         string // usename
	Addr         string
	BackendStart time.Time
	Write        cluster.LSN
	Sent         cluster.LSN
	ReplyAge     time.Duration
}

// Slot is a replication slot.
type Slot struct {
	Name    string
	Active  bool
	Restart cluster.LSN
	Status  string // wal_status: reserved, extended, unreserved, lost
	Logical bool
}
