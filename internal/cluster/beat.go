package cluster

// PostgresState is what a node's PostgreSQL is doing.
type PostgresState string

const (
	PostgresNone     PostgresState = "none"     // a host without a database
	PostgresDown     PostgresState = "down"     // no process of it lives
	PostgresDying    PostgresState = "dying"    // the postmaster is gone, its processes are not
	PostgresStarting PostgresState = "starting" // not yet accepting connections
	PostgresStandby  PostgresState = "standby"  // in recovery, answering
	PostgresPrimary  PostgresState = "primary"  // not in recovery, answering
	PostgresStopping PostgresState = "stopping"
	PostgresHung     PostgresState = "hung" // runs but does not answer within the deadline
)

// Up says whether a postmaster runs.
func (s PostgresState) Up() bool {
	switch s {
	case PostgresStarting, PostgresStandby, PostgresPrimary, PostgresStopping, PostgresHung:
		return true
	}
	return false
}

// Beat is what a node says of itself several times a second. It is a hint to
// everybody who hears it and never a proof: what must hold is compared in the
// store.
type Beat struct {
	Schema   int    `json:"schema"` // 1
	Cluster  string `json:"cluster"`
	Node     string `json:"node"`
	Instance string `json:"instance,omitempty"`
	Kind     string `json:"kind"` // "data", "witness" or "proxy"
	From     string `json:"from"` // "agent" or "guardian"
	Boot     string `json:"boot"` // random id of the process that beats
	Seq      uint64 `json:"seq"`
	Version  string `json:"version,omitempty"` // of the binary

	Postgres PostgresState `json:"postgres"`
	Timeline Timeline      `json:"timeline"`
	// WAL is where the node's WAL ends, as far as the node knows while it runs.
	WAL    Position `json:"wal"`
	Replay LSN      `json:"replay_lsn"`
	// LagMS is the age of the last replayed commit while the node is behind, else 0; null when unknown.
	LagMS *int64 `json:"lag_ms"`
	// Leads is the epoch in which this node's PostgreSQL runs as primary, else 0.
	Leads uint64 `json:"leads"`
	// Upstream is the application_name under which it streams, and Streaming
	// whether WAL or keepalives arrive.
	Upstream  string `json:"upstream,omitempty"`
	Streaming bool   `json:"streaming"`
	// ReceiverError is why it does not stream, in its walreceiver's words.
	ReceiverError string `json:"receiver_error,omitempty"`
	// Certified is the epoch for which the node presents its certificate and
	// ControlNonce the nonce of the newest control row it has replayed.
	Certified    uint64 `json:"certified"`
	ControlNonce string `json:"control_nonce,omitempty"`
	// Frozen is the epoch whose end it has promised, 0 if none.
	Frozen  uint64 `json:"frozen"`
	MayLead bool   `json:"may_lead"`
	// Leaving: its host is being stopped in order; silence after that is no accident.
	Leaving bool `json:"leaving,omitempty"`
	// Manual: it leads only when an operator orders it. Among equals the one
	// with the higher Priority leads.
	Manual   bool   `json:"manual,omitempty"`
	Priority int    `json:"priority,omitempty"`
	Rejoin   string `json:"rejoin,omitempty"` // "rewind" or "clone" when it must be made anew first
	Suspects string `json:"suspects,omitempty"`
	// CannotCommit is why a leader's agent believes that nothing can be
	// committed (dead postmaster, probe past its deadline); empty when it can.
	CannotCommit string `json:"cannot_commit,omitempty"`
	// WritesWait is why commits wait on this leader for something outside of it;
	// Unconfirmed why it does not vouch for being the primary at this moment, that
	// included. Both are empty where all is well and on other nodes.
	WritesWait  string `json:"writes_wait,omitempty"`
	Unconfirmed string `json:"unconfirmed,omitempty"`
	// Answers names the newest beat of the leader that had been heard when this
	// one was said: by the leader's own clock it tells how old this one is at most.
	Answers *BeatID `json:"answers,omitempty"`
	// Waiting is the WAL that waits to be archived and Backup the newest backup
	// that is known, both of a leader; null when unknown.
	Waiting *Waiting     `json:"waiting,omitempty"`
	Backup  *BackupLabel `json:"backup,omitempty"`
	// WaitingMS is the age of the oldest commit that waits for a standby.
	WaitingMS int64 `json:"waiting_ms"`
	StoreOK   bool  `json:"store_ok"`
	// ShowsCert: its receivers show the host's certificate to the primary.
	ShowsCert bool `json:"shows_cert,omitempty"`

	// Run is the id of the `manada run` that the node's processes are children of, once
	// PostgreSQL's unix socket is open to the proxy among them.
	Run string `json:"run,omitempty"`

	Op      string    `json:"op,omitempty"`     // long work under way, for people: "pg_rewind from slave"
	Reason  string    `json:"reason,omitempty"` // of the last decision
	Senders []Sender  `json:"senders,omitempty"`
	Addrs   Addresses `json:"addrs"`

	// Term is the newest record the node has read and TermRev its modification
	// revision. Listeners without access to the store (proxies, a command line
	// that asks any host) follow the highest revision they hear.
	Term    *Term `json:"term,omitempty"`
	TermRev int64 `json:"term_rev"`

	Paused     bool        `json:"paused,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// BeatID names a beat of a node's agent.
type BeatID struct {
	Node string `json:"node"`
	Boot string `json:"boot"`
	Seq  uint64 `json:"seq"`
}

// Waiting is WAL that is complete and not archived yet.
type Waiting struct {
	Segments int64 `json:"segments"`
	OldestMS int64 `json:"oldest_ms"` // how long the oldest of them has waited
}

// Sender is a walsender as the primary sees it (pg_stat_replication).
type Sender struct {
	Name     string `json:"name"` // application_name
	State    string `json:"state"`
	Sync     string `json:"sync_state"`
	Flush    LSN    `json:"flush_lsn"`
	Replay   LSN    `json:"replay_lsn"`
	LagBytes int64  `json:"lag_bytes"`
	PID      int    `json:"pid"`
	Start    int64  `json:"-"` // when it began, in microseconds since 1970; 0: not known
	// Stranger says whose it is when it is not a member's under our own role:
	// "role reppy from 10.0.0.14".
	Stranger string `json:"stranger,omitempty"`
}

// Impostor: the name is a member's, whoever has it is not.
func (s Sender) Impostor() bool { return s.Stranger != "" && IsMemberName(s.Name) }

// Addresses says where a node's services listen, "host:port".
type Addresses struct {
	SQL   string `json:"sql,omitempty"`
	Peer  string `json:"peer,omitempty"`
	HTTP  string `json:"http,omitempty"`
	Store string `json:"store,omitempty"` // client URL of its store voter
	Repo  string `json:"repo,omitempty"`  // backupd, on the repository host
	Proxy string `json:"proxy,omitempty"` // splitting SQL port, of a proxy
}

// Severity of a condition.
type Severity string

const (
	Info    Severity = "info"
	Warning Severity = "warning" // degraded
	Fatal   Severity = "fatal"   // down
)

// Condition is something about the herd that a person should know, one row of
// the catalogue in package health.
type Condition struct {
	Code     string   `json:"code"` // "M-R12"
	Severity Severity `json:"severity"`
	Node     string   `json:"node,omitempty"`
	Text     string   `json:"text"`
	Hint     string   `json:"hint,omitempty"`
}
