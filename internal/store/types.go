package store

import (
	"time"

	"manada/internal/cluster"
)

// Snapshot is what one linearizable read saw, decoded for its receiver alone.
type Snapshot struct {
	// Term is the record, nil when there is none; TermRev its modification
	// revision, 0 when there is none.
	Term    *cluster.Term
	TermRev int64
	// Lease is the leader's last renewal, nil before the first.
	Lease *Lease
	// Pause is nil unless the herd is paused.
	Pause *Pause
	// Requests are sorted by time, then id; finished ones are among them.
	Requests []Request
	// StoreRev is the store's revision at the read. It only grows, unless the
	// store was rolled back.
	StoreRev int64
	// StoreID identifies the store; another one means it was founded anew or
	// restored from a backup.
	StoreID uint64
	// Sent is when the read that was answered was sent, on this process's
	// monotonic clock: the snapshot is at least as new as that.
	Sent time.Time
	// Received is when its answer arrived, on the same clock: a read sent later
	// can not know less.
	Received time.Time
}

// Lease is the leader's renewal counter. Observers judge by their own clocks
// whether it moves; it holds no time.
type Lease struct {
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Pause is an operator's word that no automatic role change is wanted.
type Pause struct {
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// Kinds of requests.
const (
	RequestSwitchover = "switchover"
	RequestFailover   = "failover"
	RequestReinit     = "reinit"
	RequestRestart    = "restart"
	// RequestRestore orders a restore of the herd (To: the primary),
	// RequestUndoRestore withdraws the order (To: whoever was asked).
	RequestRestore     = "restore"
	RequestUndoRestore = "undo-restore"
)

// Request is something an operator wants done by whoever can do it.
type Request struct {
	ID      string            `json:"id"`
	Kind    string            `json:"kind"`
	To      string            `json:"to,omitempty"` // node
	By      string            `json:"by,omitempty"`
	At      time.Time         `json:"at"`
	Options map[string]string `json:"options,omitempty"`
	Result  *Result           `json:"result,omitempty"` // nil until finished
}

// Result is how a request ended. Code is the exit code that the command which
// asked should end with (design, section 9).
type Result struct {
	Code int       `json:"code"`
	Text string    `json:"text"`
	Node string    `json:"node,omitempty"` // who says so
	At   time.Time `json:"at"`
}

// Event is something that happened to the herd. Kind is noun_verb in the past
// tense: node_lost, takeover_started, promoted.
type Event struct {
	N       int64             `json:"n"` // set by AppendEvent
	Kind    string            `json:"kind"`
	Node    string            `json:"node,omitempty"`
	Epoch   uint64            `json:"epoch,omitempty"`
	Text    string            `json:"text"`
	Details map[string]string `json:"details,omitempty"`
	At      time.Time         `json:"at"`
}

// Node is a host's registration.
type Node struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`         // "data", "witness" or "proxy"
	ID       int               `json:"id,omitempty"` // number of a node with a database, for tools that want one
	Location string            `json:"location,omitempty"`
	Failover string            `json:"failover,omitempty"` // "automatic" or "manual"
	Priority *int              `json:"priority,omitempty"`
	Addrs    cluster.Addresses `json:"addrs"`
	Version  string            `json:"version,omitempty"`
	Joined   time.Time         `json:"joined"`
	Options  map[string]string `json:"options,omitempty"`
}

// Token lets one newcomer join, once. Data is opaque to the store (a verifier,
// never the token itself).
type Token struct {
	ID      string    `json:"id"`
	Data    []byte    `json:"data,omitempty"`
	By      string    `json:"by,omitempty"`
	Expires time.Time `json:"expires"`
}

// Status is the state of the store itself.
type Status struct {
	Voters  int      `json:"voters"` // members with a vote
	Up      int      `json:"up"`     // those of them that answered
	Quorum  bool     `json:"quorum"` // more than half are up
	Leader  string   `json:"leader"` // name of etcd's leader; empty: none known
	Members []Member `json:"members"`
	// Alarms are etcd's own, "NOSPACE" or "CORRUPT", with the member's name.
	Alarms []string `json:"alarms,omitempty"`
	// DBBytes is the largest database among the members that answered and
	// QuotaBytes its limit, 0 when unknown.
	DBBytes    int64 `json:"db_bytes"`
	QuotaBytes int64 `json:"quota_bytes"`
}

// Member is a member of the store's etcd cluster.
type Member struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"` // empty until it has started once
	PeerURLs   []string `json:"peer_urls"`
	ClientURLs []string `json:"client_urls"`
	Learner    bool     `json:"learner"`
	Up         bool     `json:"up"`
	Leader     bool     `json:"leader"`
	Err        string   `json:"err,omitempty"` // why it is not up
}
