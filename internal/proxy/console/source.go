package console

import (
	"context"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/wire"
)

// Databases are the names under which a console is reached, unless PostgreSQL has a
// database of that name.
var Databases = cluster.ConsoleDatabases

// Right is what somebody may do here.
type Right uint8

const (
	None  Right = iota
	Read        // SHOW: members of pg_monitor
	Admin       // everything: superusers and members of manada_admin
)

// String says who has it.
func (r Right) String() string {
	return [...]string{"nobody", "members of pg_monitor", "superusers and members of manada_admin"}[r]
}

// Client is one of the proxy's.
type Client struct {
	ID                   uint64
	User, Database       string
	Replication          string // none, logical, physical
	State                string // active, idle, waiting
	Addr, Local          string // host:port
	Connected, Requested time.Time
	Wait                 time.Duration
	Server               uint64 // ID of the one it has; 0: none
	TLS, ApplicationName string
	Prepared             int
}

// Server is a connection to PostgreSQL.
type Server struct {
	ID                   uint64
	User, Database       string
	Replication          string
	State                string // active, idle, login, closing
	Addr, Local          string
	Connected, Requested time.Time
	CloseNeeded          bool
	Client               uint64 // ID of the one that has it; 0: nobody
	PID                  uint32
	TLS, ApplicationName string
	Prepared             int
}

// Pool is that of a database and user.
type Pool struct {
	Database, User                         string
	Active, Waiting                        int // clients; those that are idle count as active
	Servers, Idle, Reset, Login, Cancelled int
	MaxWait                                time.Duration
	Mode                                   string
}

// Database is one with its limits; 0 is none.
type Database struct {
	Name, Host          string
	Port                int
	Size, Min, Reserve  int
	Lifetime            time.Duration
	Mode                string
	MaxServers, Servers int
	MaxClients, Clients int
	Paused, Disabled    bool
}

// User is one with its limits; "" is none of its own.
type User struct {
	Name, Size, Reserve, Mode string
	Servers                   int
	MaxClients, Clients       int
}

// Counts are what happened in a database since the proxy began. Times are in
// microseconds, volumes in bytes.
type Counts struct {
	Assignments, Transactions, Queries int64
	Received, Sent                     int64
	TransactionTime, QueryTime, Wait   int64
	ClientParses, ServerParses, Binds  int64
	Logins                             int64
}

// Plus is the sum of two.
func (c Counts) Plus(o Counts) Counts {
	return Counts{c.Assignments + o.Assignments, c.Transactions + o.Transactions, c.Queries + o.Queries, c.Received + o.Received, c.Sent + o.Sent,
		c.TransactionTime + o.TransactionTime, c.QueryTime + o.QueryTime, c.Wait + o.Wait,
		c.ClientParses + o.ClientParses, c.ServerParses + o.ServerParses, c.Binds + o.Binds, c.Logins + o.Logins}
}

// Stats are a database's counts, and their growth in the last whole period: per
// second, and the times for each.
type Stats struct {
	Database       string
	Total, Average Counts
}

// Pin is a client that keeps its server connection between its transactions, and why.
type Pin struct {
	ID                              uint64 // of the client
	User, Database, ApplicationName string
	Reason                          string
}

// Setting is a key of the configuration.
type Setting struct {
	Key, Value, Default string
	AtStart             bool // it counts only from the next start on
}

// Source is what the console shows and who carries out its orders. What is nil is not
// there. Its functions are safe for concurrent use; those with a context may take long.
type Source struct {
	Version   string
	Clients   func() []Client
	Servers   func() []Server
	Pools     func() []Pool
	Databases func() []Database
	Users     func() []User
	Stats     func() []Stats
	Sum       func() Stats // of all databases together
	Pins      func() []Pin
	Paused    func() bool // all databases are
	Config    func() []Setting
	PoolSize  func() int // of a pool that was given none

	// Orders by the name of their verb: what is not there is no command.
	Orders map[string]Order
}

// Order carries a verb out. An empty argument is all databases where the verb allows
// none. The note is for whoever gave the order; it may be empty.
type Order func(ctx context.Context, argument string) (note string, err *wire.Error)
