package rules

import (
	"time"

	"manada/internal/proxy/wire"
)

// Moment is a time, as the driver's monotonic clock gives it.
type Moment = time.Duration

// Kind of a decision.
type Kind uint8

const (
	// Open a connection for Server: its Account at its Node. Opened or Failed
	// answers, and Closed instead of either when a Close came meanwhile.
	Open Kind = iota
	// Hand Server, which is on loop From, to Claim, which is on the claim's loop.
	Hand
	// Close Server, whoever has it. Closed answers.
	Close
	// Deny Claim a server: Err says why, or is nil, see Look.
	Deny
	// Settled: what Await with this ID waits for has come about, or cannot any more.
	Settled
)

// Decision is one thing that the driver does.
type Decision struct {
	Kind   Kind
	Server *Server
	Claim  *Claim
	From   int
	Err    *wire.Error
	ID     uint64
}

// Book is all that is known of clients, pools and servers of one proxy. It is not
// safe for concurrent use.
type Book struct {
	cfg       Config
	loops     int
	nodes     []*Node
	primary   *Node // who leads; nowhere while nobody does
	nowhere   *Node // where those wait who want the primary while there is none, or any other
	why       string
	accounts  map[key]*Account
	databases map[string]*Database
	users     map[string]*tally
	clients   int
	lastClaim uint64
	lastID    uint64
	pausedAll bool
	holding   *Node // nothing is handed out or opened there; nil: nowhere
	awaits    []await
	next      Moment // when Tick has something to do, as far as is known
	ticked    Moment
	spread    int
	without   mutation
}

type key struct{ database, user string }

// Account is a (database, user). It lives while it has clients or servers.
type Account struct {
	Database *Database
	User     string
	Settings Settings
	// Data is the driver's own: how to log in.
	Data any

	clients    int // that share connections
	own        int // that have one of their own
	tally      *tally
	generation uint64
	stamp      string // of what its settings and rights are in PostgreSQL
	pools      []*Pool
}

// Database is what is known of a database, and what the console has ordered for it.
type Database struct {
	Name string

	accounts []*Account
	clients  int
	paused   bool
	disabled bool
}

// tally counts the clients of a user over all databases.
type tally struct{ clients, accounts int }

// Node is a PostgreSQL. One that left the herd has limit 0 and no servers.
type Node struct {
	Name string
	// Data is the driver's own: how to get there.
	Data any

	limit   int
	epoch   uint64
	count   int // connections that may exist
	opening int
	closing int
	idle    list[Server] // of all its pools, the longest unused first
	// Pools that want a connection and may not open one because of the node: those
	// without any before the others, each in the order in which they came.
	starved, hungry list[Pool]
	pools           []*Pool
	retry           backoff
}

// Pool is an account's at a node.
type Pool struct {
	Account *Account
	Node    *Node

	waiting list[Claim]
	idle    []list[Server] // by loop, the last used last
	servers []*Server
	opening int
	closing int
	due     int // servers of others that are being closed for this pool
	retry   backoff
	in      *list[Pool] // where it is listed as wanting
	links[Pool]
}

// Server is a connection to PostgreSQL, from the decision to open it to Closed.
type Server struct {
	Pool *Pool
	Loop int
	// Data is the driver's own.
	Data any

	state         state
	holder        *Claim // while used
	generation    uint64
	epoch         uint64
	opened        Moment
	since         Moment // of its state
	expires       Moment // 0: never
	closeFor      *Pool  // who wants its place
	at            int    // in Pool.servers
	links[Server]        // of its pool's idle ones on its loop
	all           links[Server]
}

type state uint8

const (
	opening state = iota
	idle
	used
	closing
)

var states = []string{"login", "idle", "active", "closing"}

// Claim is one side of a client that wants a server. The driver keeps it for as
// long as it likes and uses it again.
type Claim struct {
	// Data is the driver's own: whose it is.
	Data any

	account *Account
	pool    *Pool // where it waits; nil while it does not
	loop    int
	order   uint64
	since   Moment
	anyNode bool // it wants the primary, whichever node that is
	links[Claim]
}

// Waiting says whether the claim is in a queue.
func (c *Claim) Waiting() bool { return c.pool != nil }

// New makes an empty book for a driver of so many loops.
func New(cfg Config, loops int) *Book {
	b := &Book{cfg: cfg, loops: loops, accounts: map[key]*Account{}, databases: map[string]*Database{}, users: map[string]*tally{},
		nowhere: &Node{}, next: never}
	b.primary = b.nowhere
	return b
}

const never Moment = 1<<63 - 1

// Configure takes other settings for everything that is there. Servers beyond a
// limit that was lowered are closed when they are given back, idle ones at once.
func (b *Book) Configure(now Moment, cfg Config, out []Decision) []Decision {
	b.cfg = cfg
	for _, a := range b.sortedAccounts() {
		a.Settings = cfg.For(a.Database.Name, a.User)
		for _, p := range a.pools {
			for _, s := range p.servers {
				s.expires = b.expiry(s)
			}
			out = b.trim(p, out)
			out = b.serve(now, p, out)
		}
	}
	b.next = now // so that the time-outs are looked at anew
	return out
}
