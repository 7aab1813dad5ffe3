package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// StatusSchema is the version of Status as JSON. Readers ignore unknown keys.
const StatusSchema = 1

// Health is the answer in one word.
type Health string

const (
	HealthOK       Health = "ok"       // nothing to do
	HealthDegraded Health = "degraded" // writes work; protection is less than was asked for
	HealthDown     Health = "down"     // no primary acknowledges writes
)

// Role is what the term record and the configuration make of a node, whether
// it can be reached or not. Only Status.Primary says that a primary is there.
type Role string

const (
	RolePrimary Role = "primary" // the leader of an open epoch
	RoleStandby Role = "standby" // any other node with a database
	RoleWitness Role = "witness" // a voter without a database
	RoleOfProxy Role = "proxy"   // an SQL entry point
)

// NodeState is what is observed of a node.
type NodeState string

const (
	StateRunning      NodeState = "running"      // a primary or a host without a database, as it should be
	StateStreaming    NodeState = "streaming"    // a standby that receives WAL
	StateNotStreaming NodeState = "no stream"    // a standby that answers and receives nothing
	StateStarting     NodeState = "starting"     // PostgreSQL starts or recovers
	StateStopping     NodeState = "stopping"     // PostgreSQL shuts down
	StateDown         NodeState = "down"         // the host answers, PostgreSQL does not run
	StateHung         NodeState = "hung"         // PostgreSQL runs and does not answer
	StateFrozen       NodeState = "frozen"       // has promised the end of the current epoch
	StatePromoting    NodeState = "promoting"    // won an epoch that is not open yet
	StateOldPrimary   NodeState = "old primary"  // runs as primary of an epoch that is over
	StateRewinding    NodeState = "rewinding"    // must be, or is being, set back to the primary's history
	StateCloning      NodeState = "cloning"      // must be, or is being, made anew from the primary
	StateQuarantined  NodeState = "quarantined"  // holds WAL whose loss an operator accepted
	StateAgentDown    NodeState = "agent down"   // only the guardian beats
	StateStopped      NodeState = "stopped"      // its host was stopped in order
	StateUnreachable  NodeState = "unreachable"  // nothing heard for longer than the threshold
	StateCannotCommit NodeState = "cannot write" // leads and cannot commit
)

// Values of NodeStatus.Sync.
const (
	SyncMember = "sync"  // its directory is a member of the term's sync
	AsyncNode  = "async" // a standby that no commit waits for
)

// Status is the state of a herd as users read it: `manada status -o json`,
// GET /v1/status. It is built by package health from what one host has heard,
// so it is that host's view. In Go the zero value means unknown; in JSON
// unknown is null.
type Status struct {
	Cluster    string
	At         time.Time // when it was built, by the clock of SeenFrom
	SeenFrom   string    // the node whose view it is
	Health     Health
	Conditions []Condition // gravest first, then by code and node
	Epoch      uint64      // of the newest term record known
	// Primary is the node that leads the current, open epoch and was heard
	// leading it within the threshold; empty when there is none.
	Primary    string
	Durability Durability
	Sync       []string // names of the members of sync, sorted
	K          int      // how many of Sync a commit waits for; meaningful when Epoch is not 0
	Paused     bool     // no automatic failover
	Nodes      []NodeStatus
	Store      *StoreStatus  // nil: unknown
	Backup     *BackupStatus // nil: unknown, or no repository configured
}

// NodeStatus is one row of the table. What was read from a beat older than the
// threshold is unknown.
type NodeStatus struct {
	Name     string    `json:"name"`
	Role     Role      `json:"role"`
	State    NodeState `json:"state"`
	Timeline Timeline  `json:"timeline"`
	LSN      LSN       `json:"lsn"` // where its WAL ends
	// LagBytes is how far its replay is behind the end of the primary's WAL.
	LagBytes *int64 `json:"lag_bytes"`
	// LagMS is the age of the last commit it replayed while it is behind.
	LagMS  *int64 `json:"lag_ms"`
	Sync   string `json:"sync"`    // SyncMember, AsyncNode, or empty: the question does not arise
	SeenMS *int64 `json:"seen_ms"` // age of its newest beat (agent's or guardian's)
	Op     string `json:"op"`      // long work under way, for people

	// ID is the node's number, Address where its PostgreSQL listens, Failover
	// "automatic" or "manual": as it registered, for nodes with a database.
	ID       int    `json:"id"`
	Location string `json:"location"`
	Address  string `json:"address"`
	Failover string `json:"failover"`
	Priority *int   `json:"priority"`
	// Postgres is what its PostgreSQL does.
	Postgres PostgresState `json:"postgres"`
	// Former: it led before the present primary and has not followed since.
	Former bool `json:"former_primary"`
}

// Conninfo is how to reach the node's PostgreSQL, without a password; "" while
// its address is not known.
func (n NodeStatus) Conninfo() string {
	i := strings.LastIndexByte(n.Address, ':')
	if i < 0 {
		return ""
	}
	host := strings.Trim(n.Address[:i], "[]")
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s connect_timeout=2", host, n.Address[i+1:], RoleSuperuser, Database)
}

// StoreStatus counts the voters of the store.
type StoreStatus struct {
	Voters int    `json:"voters"`
	Up     int    `json:"up"`
	Leader string `json:"leader,omitempty"`
	// Voting are the hosts that vote, Down those of them that do not answer.
	Voting []string `json:"voting"`
	Down   []string `json:"down"`
	// UnknownSince is since when the store could not be asked; all else is the
	// last known then. null: it was asked just now.
	UnknownSince *time.Time `json:"unknown_since"`
}

// HasQuorum says whether a majority of the voters is known to answer.
func (s StoreStatus) HasQuorum() bool { return s.UnknownSince == nil && s.Up > s.Voters/2 }

// QuorumWithout says whether a majority would still answer without that host.
func (s StoreStatus) QuorumWithout(host string) bool {
	if slices.Contains(s.Voting, host) && !slices.Contains(s.Down, host) {
		s.Up--
	}
	return s.HasQuorum()
}

// BackupStatus says what can be restored.
type BackupStatus struct {
	Last            *BackupLabel `json:"last"`
	RestorableFrom  *time.Time   `json:"restorable_from"`
	RestorableTo    *time.Time   `json:"restorable_to"`
	WaitingSegments *int64       `json:"waiting_segments"` // complete WAL segments not yet archived
	RestoreTested   *time.Time   `json:"restore_tested"`   // end of the last restore test that passed
	Next            *NextBackup  `json:"next"`             // the next scheduled one; null without a schedule
	// UnknownSince is since when the repository could not be asked; what is said of
	// it is the last known then. null: it was asked just now.
	UnknownSince *time.Time `json:"unknown_since"`
}

// NextBackup is a backup that is planned.
type NextBackup struct {
	Type string    `json:"type"` // "full", "diff" or "incr"
	At   time.Time `json:"at"`
}

// BackupLabel names a backup in the repository.
type BackupLabel struct {
	Label string    `json:"label"` // "20261122-030000F"
	Type  string    `json:"type"`  // "full", "diff" or "incr"
	Stop  time.Time `json:"stop"`
}

// Node finds the row of a node.
func (s Status) Node(name string) (NodeStatus, bool) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return NodeStatus{}, false
}

// statusJSON is Status on the wire, in the order in which a person reads it.
type statusJSON struct {
	Schema     int           `json:"schema"`
	Cluster    string        `json:"cluster"`
	At         *time.Time    `json:"at"`
	SeenFrom   *string       `json:"seen_from"`
	Health     Health        `json:"health"`
	Conditions []Condition   `json:"conditions"`
	Epoch      *uint64       `json:"epoch"`
	Primary    *string       `json:"primary"`
	Durability *Durability   `json:"durability"`
	Sync       []string      `json:"sync"`
	K          *int          `json:"k"`
	Paused     bool          `json:"paused"`
	Nodes      []NodeStatus  `json:"nodes"`
	Store      *StoreStatus  `json:"store"`
	Backup     *BackupStatus `json:"backup"`
}

// MarshalJSON writes the fixed form: unknown is null, lists are never null.
func (s Status) MarshalJSON() ([]byte, error) {
	w := statusJSON{
		Schema: StatusSchema, Cluster: s.Cluster, At: orNull(s.At.UTC()), SeenFrom: orNull(s.SeenFrom),
		Health: s.Health, Conditions: orEmpty(s.Conditions), Epoch: orNull(s.Epoch),
		Primary: orNull(s.Primary), Durability: orNull(s.Durability), Sync: orEmpty(s.Sync),
		Paused: s.Paused, Nodes: orEmpty(s.Nodes), Store: s.Store, Backup: s.Backup,
	}
	if s.Epoch != 0 {
		w.K = &s.K
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Status) UnmarshalJSON(b []byte) error {
	var w statusJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*s = Status{
		Cluster: w.Cluster, At: orZero(w.At), SeenFrom: orZero(w.SeenFrom), Health: w.Health,
		Conditions: w.Conditions, Epoch: orZero(w.Epoch), Primary: orZero(w.Primary),
		Durability: orZero(w.Durability), Sync: w.Sync, K: orZero(w.K), Paused: w.Paused,
		Nodes: w.Nodes, Store: w.Store, Backup: w.Backup,
	}
	return nil
}

// MarshalJSON writes the unknown as null.
func (n NodeStatus) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name     string    `json:"name"`
		Role     *Role     `json:"role"`
		State    NodeState `json:"state"`
		Timeline *Timeline `json:"timeline"`
		LSN      LSN       `json:"lsn"`
		LagBytes *int64    `json:"lag_bytes"`
		LagMS    *int64    `json:"lag_ms"`
		Sync     *string   `json:"sync"`
		SeenMS   *int64    `json:"seen_ms"`
		Op       *string   `json:"op"`

		ID       *int           `json:"id"`
		Location *string        `json:"location"`
		Address  *string        `json:"address"`
		Failover *string        `json:"failover"`
		Priority *int           `json:"priority"`
		Postgres *PostgresState `json:"postgres"`
		Former   bool           `json:"former_primary"`
	}{n.Name, orNull(n.Role), n.State, orNull(n.Timeline), n.LSN, n.LagBytes, n.LagMS, orNull(n.Sync), n.SeenMS, orNull(n.Op),
		orNull(n.ID), orNull(n.Location), orNull(n.Address), orNull(n.Failover), n.Priority, orNull(n.Postgres), n.Former})
}

func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
