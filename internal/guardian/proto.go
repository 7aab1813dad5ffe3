package guardian

import (
	"time"

	"manada/internal/cluster"
)

// StopMode is how PostgreSQL is asked to end.
type StopMode string

const (
	Smart     StopMode = "smart"     // SIGTERM: waits for every client
	Fast      StopMode = "fast"      // SIGINT: rolls back, checkpoints, waits for every walsender (finding M6)
	Immediate StopMode = "immediate" // SIGQUIT: no checkpoint, crash recovery at the next start
)

// StartSpec is a postmaster to start.
type StartSpec struct {
	Argv []string `json:"argv"` // absolute path of the program first
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	Log  string   `json:"log"` // file to which stdout and stderr are appended, made 0600
}

// Status is what the guardian knows of its postmaster.
type Status struct {
	Running bool `json:"running"`
	PID     int  `json:"pid"` // of the postmaster that runs, or ran last
	// Stopped says that the postmaster runs but was halted (SIGSTOP, ptrace).
	Stopped bool `json:"stopped"`
	// TreeEmpty: verified in /proc that nothing of PostgreSQL lives, neither a
	// descendant nor a PostgreSQL process that stands in PGDATA.
	TreeEmpty bool `json:"tree_empty"`
	// Exit tells how the last postmaster ended ("exit status 0", "signal:
	// killed"); "unknown" for one that was adopted; empty when none has ended.
	Exit      string    `json:"exit,omitempty"`
	Asked     StopMode  `json:"asked,omitempty"` // the stop that was last asked of the running postmaster
	Adopted   bool      `json:"adopted,omitempty"`
	StartedAt time.Time `json:"started_at"`
	Guardian  int       `json:"guardian"` // pid of the guardian
	Boot      string    `json:"boot"`     // random id of the guardian process
	DataDir   string    `json:"data_dir"`
	Version   string    `json:"version,omitempty"`
	Seq       uint64    `json:"seq"` // grows with every change
}

// BeatConfig says to whom and as whom the guardian beats.
type BeatConfig struct {
	Peers       []string `json:"peers"`        // "host:port" of the other agents
	IdentityDir string   `json:"identity_dir"` // certificate, key and CA of this host
	// Template is the agent's last word about itself. The guardian repeats
	// it with its own boot id, sequence and From, corrected by what it knows of
	// the postmaster, so that an agent in the middle of an upgrade is not
	// mistaken for a dead leader (finding M3).
	Template   cluster.Beat `json:"template"`
	IntervalMS int64        `json:"interval_ms"` // default 250
}

type request struct {
	Op    string      `json:"op"` // start, status, stop, kill_tree, watch, beats, quit
	Start *StartSpec  `json:"start,omitempty"`
	Mode  StopMode    `json:"mode,omitempty"`
	Beats *BeatConfig `json:"beats,omitempty"`
}

type response struct {
	Error  string `json:"error,omitempty"`
	Status Status `json:"status"`
}
