package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/console"
	"manada/internal/proxy/hba"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
)

// Config is everything a proxy needs. Start from DefaultConfig.
type Config struct {
	// ReadWriteAddr and ReadOnlyAddr are where clients connect, "host:port".
	// An empty ReadOnlyAddr means no read-only port.
	ReadWriteAddr string
	ReadOnlyAddr  string

	// Cluster and Node say in metrics whose they are.
	Cluster, Node string

	// Topology says where the primary and the standbys are. Required.
	Topology route.Topology

	// ClientTLS serves clients; nil: no TLS. RequireTLS refuses plain ones.
	ClientTLS  *tls.Config
	RequireTLS bool
	// ServerTLS connects to PostgreSQL. PlainLocal allows connections without
	// TLS to unix sockets and loopback addresses; with ServerTLS == nil these
	// are the only ones possible. On unix sockets TLS is never used.
	ServerTLS  *tls.Config
	PlainLocal bool

	// LookupUser may execute manada.user_lookup(name) in LookupDatabase.
	// LookupPasswords gives its passwords that may be right now, the likeliest
	// first; nil when TLS authenticates it.
	LookupUser      string
	LookupPasswords func() []string
	LookupDatabase  string
	// MockSecret is the same at every proxy of the herd and stays when passwords
	// change: it makes what roles that do not exist are shown.
	MockSecret string
	// AuthCacheTTL is for how long a verifier is used again without asking.
	// With 0 every log-in asks, sharing the query with those that wait at the
	// same time, so that a changed password counts at once. At most a minute.
	AuthCacheTTL time.Duration

	// Loops is how many threads serve the clients that are logged in; 0: one for every
	// four processors. PostgreSQL needs the others: a loop more than has work costs
	// half as much again for each transaction, since it sleeps between two.
	Loops int
	// MaxClientConn bounds the clients of both ports together.
	MaxClientConn int
	// LoginTimeout is how long a client may take for each thing that it has to send.
	LoginTimeout time.Duration
	// Limits end clients that take longer, each 0 for no limit: for a query, for a
	// transaction, idle in one, idle outside of one. A query is cancelled first. Replication is exempt.
	QueryTimeout, TxTimeout, IdleTxTimeout, IdleTimeout time.Duration
	// ConnectWait is how long a new connection waits for a node to talk to. With
	// 0 it fails at once when there is none.
	ConnectWait time.Duration
	// ConnectTimeout bounds one connection to PostgreSQL, ServerLoginTimeout its log-in.
	ConnectTimeout     time.Duration
	ServerLoginTimeout time.Duration
	// MaxServerLogins bounds the log-ins under way at one node; others queue.
	MaxServerLogins int
	// DeadAfter ends sessions whose node has not acknowledged data for so long.
	DeadAfter time.Duration
	// DrainTimeout is how long sessions in a transaction may take to finish
	// when the proxy stops.
	DrainTimeout time.Duration

	// AnswerDrain tells the agent of a drain's leader how far this proxy is, as who and
	// in which process; nil: nobody is told. DrainGrace is for how much longer than it
	// says a drain is obeyed: until somebody else takes over from its leader.
	AnswerDrain func(ctx context.Context, d *route.Drain, a cluster.DrainAnswer) error
	DrainGrace  time.Duration

	// Others are the addresses at which the herd's other proxies serve clients: a request
	// to cancel for a session that is not here is passed on to them. nil: there are none.
	Others func(context.Context) []string

	// Pool says how clients share connections to PostgreSQL, and NodeLimit how many may
	// be held to a node over all pools; 0: what rules.NodeLimit gives.
	Pool      rules.Config
	NodeLimit int

	// Split lets standbys answer what certainly only reads on the read-write port.
	Split bool
	// HBA are lines as in pg_hba.conf that say who may log in from where, behind
	// Manada's own. With none everybody may who has a password; with some,
	// RequireTLS is theirs to say.
	HBA []string
	// Replication are the roles that are trusted with it, and from where.
	Replication []cluster.Replicator

	// ReadOnlyFallback lets the read-only port use the primary when no standby
	// can be read from; otherwise clients are refused.
	ReadOnlyFallback bool
	// MaxReadLagBytes and MaxReadLag keep reads away from standbys that are
	// further behind. 0: any.
	MaxReadLagBytes int64
	MaxReadLag      time.Duration

	// Version is the program's, and Settings the configuration as the file has it: what
	// the console shows. A nil Settings shows none.
	Version  string
	Settings func() []console.Setting
	// ReadAgain has the configuration read again, which ends in Proxy.Reload, and
	// returns the keys that need a restart. nil: the console has no RELOAD.
	ReadAgain func(context.Context) (restart []string, err error)

	Log *slog.Logger
}

// DefaultConfig is the fixed ports and sensible limits; Topology is left to the caller.
func DefaultConfig() Config {
	return Config{
		ReadWriteAddr:      ":5431",
		ReadOnlyAddr:       ":5430",
		PlainLocal:         true,
		LookupUser:         cluster.RoleProxy,
		LookupDatabase:     cluster.Database,
		MaxClientConn:      10000,
		LoginTimeout:       15 * time.Second,
		ConnectWait:        30 * time.Second,
		ConnectTimeout:     time.Second,
		ServerLoginTimeout: 5 * time.Second,
		MaxServerLogins:    32,
		DeadAfter:          5 * time.Second,
		DrainTimeout:       10 * time.Second,
		DrainGrace:         5 * time.Second,
		ReadOnlyFallback:   true,
		MaxReadLagBytes:    64 << 20,
		MaxReadLag:         10 * time.Second,
		Pool: rules.Config{Default: rules.Settings{ReserveTimeout: 5 * time.Second, QueueTimeout: 2 * time.Minute,
			Lifetime: time.Hour, IdleTimeout: 10 * time.Minute}},
		Log: slog.New(slog.DiscardHandler),
	}
}

const maxLimit = 7 * 24 * time.Hour

// Validate names everything that is wrong, by the names of the configuration file.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if _, _, err := net.SplitHostPort(c.ReadWriteAddr); err != nil {
		bad("read_write_addr %q: want host:port, as in :5431", c.ReadWriteAddr)
	}
	if c.ReadOnlyAddr != "" {
		if _, _, err := net.SplitHostPort(c.ReadOnlyAddr); err != nil {
			bad("read_only_addr %q: want host:port, as in :5430, or nothing", c.ReadOnlyAddr)
		}
	}
	if c.Topology == nil {
		bad("topology: missing")
	}
	if c.Log == nil {
		bad("log: missing")
	}
	if c.RequireTLS && c.ClientTLS == nil {
		bad("require_tls: there is no certificate to serve clients with")
	}
	if c.ServerTLS == nil && !c.PlainLocal {
		bad("server_tls: missing, and plain_local does not allow plain connections either")
	}
	if c.LookupUser == "" || c.LookupDatabase == "" {
		bad("lookup_user and lookup_database: must not be empty")
	}
	if c.MaxClientConn < 1 {
		bad("max_client_conn %d: want at least 1", c.MaxClientConn)
	}
	if c.MaxServerLogins < 1 {
		bad("max_server_logins %d: want at least 1", c.MaxServerLogins)
	}
	for _, d := range []struct {
		name     string
		value    time.Duration
		min, max time.Duration
	}{
		{"auth_cache_ttl", c.AuthCacheTTL, 0, time.Minute},
		{"login_timeout", c.LoginTimeout, 100 * time.Millisecond, time.Hour},
		{"connect_wait", c.ConnectWait, 0, time.Hour},
		{"connect_timeout", c.ConnectTimeout, 10 * time.Millisecond, 5 * time.Minute},
		{"server_login_timeout", c.ServerLoginTimeout, 100 * time.Millisecond, time.Hour},
		{"dead_after", c.DeadAfter, time.Second, time.Hour},
		{"drain_timeout", c.DrainTimeout, 0, time.Hour},
		{"max_read_lag", c.MaxReadLag, 0, 24 * time.Hour},
		{"query_timeout", c.QueryTimeout, 0, maxLimit},
		{"transaction_timeout", c.TxTimeout, 0, maxLimit},
		{"idle_transaction_timeout", c.IdleTxTimeout, 0, maxLimit},
		{"client_idle_timeout", c.IdleTimeout, 0, maxLimit},
	} {
		if d.value < d.min || d.value > d.max {
			bad("%s %s: want %s to %s", d.name, d.value, d.min, d.max)
		}
	}
	if _, err := hba.Parse(c.HBA); err != nil {
		bad("hba: %w", err)
	}
	if c.MaxReadLagBytes < 0 {
		bad("max_read_lag_bytes %d: want 0 or more", c.MaxReadLagBytes)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("proxy configuration: %w", err)
	}
	return nil
}
