package conv

import (
	"strings"
	"time"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// Mode says for how long a client keeps its Main server.
type Mode uint8

const (
	Session     Mode = iota // as long as it is connected
	Transaction             // to the end of a transaction, whatever that leaves behind
	Statement               // the same, and transactions of several statements are refused
	Auto                    // to the end of a transaction, unless it leaves something behind that cannot be carried
)

// Config is what a conversation is begun with. Clients may share one.
type Config struct {
	Mode Mode
	// Shared says in mode Session that Main is wanted with the first message, and that
	// others have it before and after.
	Shared bool
	// Welcome is what the client is told once it has its first server, after Enter.
	Welcome func(l *Link) []byte
	// Split lets standbys answer what certainly only reads. The caller has made
	// sure that the client's texts can be classified (classify.Encoding, and
	// standard_conforming_strings is on).
	Split bool
	// ReadOnly is a client of the read-only port: Main is a standby, or the primary
	// where there is none.
	ReadOnly bool
	// Walsender is a replication session. It is always of mode Session.
	Walsender bool
	// HidesWarnings says that the client began with client_min_messages above
	// warning, which its servers do not have (see wire.ForServer).
	HidesWarnings bool
	// Temporary says that the client's servers begin with pg_temp in their search_path: what
	// it creates may be temporary without a word for it.
	Temporary bool
	// Startup are the settings of the client's start-up packet that its servers were
	// not given at log-in; nil: none.
	Startup *Startup
	// Plans is shared by all clients of a database; nil: there are no others.
	Plans *Plans
	// PID is the process id that the client was told; 0: that of its server.
	PID uint32
	// PoolNodes is what SHOW POOL_NODES answers; nil: PostgreSQL answers.
	PoolNodes func() Table
	// Dangerous names may leave something behind in a session; nil: see package classify.
	Dangerous Names

	Limits *Limits // nil: none
}

// Limits are how long a client may take, each 0 for as long as it likes: for a query,
// for a transaction, idle in one, idle outside of one.
type Limits struct{ Query, Tx, IdleTx, Idle time.Duration }

// Startup are settings with which clients begin. It does not change: where clients
// share it, a server that goes from one to the other is seen at once to have them.
type Startup struct {
	vars vars
	pin  string // why its clients keep their servers from the beginning
}

const temporaryObjects = "temporary objects"

// NewStartup takes them as wire.ForServer has them, one by one.
func NewStartup(settings []wire.Param) *Startup {
	s := &Startup{}
	for _, p := range settings {
		name := strings.ToLower(p.Name)
		s.vars = s.vars.with(name, giving(name, p.Value))
		if name == "search_path" && strings.Contains(strings.ToLower(p.Value), "pg_temp") {
			s.pin = temporaryObjects
		}
	}
	return s
}

// Names is what is known of names of functions, operators, relations and types. It
// may change: then Version is another one.
type Names interface {
	classify.Names
	Version() uint64
}

// Table is what SHOW POOL_NODES shows. Every column is a text.
type Table struct {
	Columns []string
	Rows    [][]string
}
