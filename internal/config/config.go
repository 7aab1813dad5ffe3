package config

import (
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"manada/internal/cluster"
)

// Role is a part that a host plays.
type Role string

const (
	Database   Role = "database"   // a PostgreSQL, with its agent
	Store      Role = "store"      // a voter of the embedded etcd
	ProxyRole  Role = "proxy"      // the SQL entry point
	Repository Role = "repository" // the backup repository, with backupd
)

// Config is what one host is told. The tag `key` names the YAML key; `enum`,
// `min` and `max` bound values; `required` wants one. See schema.go for how the
// tags are read and defaults.go for the defaults.
type Config struct {
	Cluster    string             `key:"cluster" required:"yes"`
	Node       string             `key:"node" required:"yes"`
	NodeID     int                `key:"node_id" min:"0" max:"1000000000"` // 0: given when the host registers
	Location   string             `key:"location"`
	Failover   string             `key:"failover" enum:"automatic,manual"`
	Priority   int                `key:"priority" min:"0" max:"1000000"`
	Roles      []string           `key:"roles" enum:"database,store,proxy,repository"`
	User       string             `key:"user"`
	DataDir    string             `key:"data_dir" path:"yes"`
	RunDir     string             `key:"run_dir" path:"yes"`
	Listen     string             `key:"listen"`
	Advertise  string             `key:"advertise"`
	Ports      Ports              `key:"ports"`
	Durability cluster.Durability `key:"durability" enum:"quorum,strict,async"`
	WantK      int                `key:"want_k" min:"1" max:"8"`
	Timing     Timing             `key:"timing"`
	Switchover Switchover         `key:"switchover"`
	PostgreSQL PostgreSQL         `key:"postgresql"`
	Proxy      Proxy              `key:"proxy"`
	Backup     Backup             `key:"backup"`
	Events     Events             `key:"events"`
	HTTP       HTTP               `key:"http"`
	Join       Join               `key:"join"`
	Log        Log                `key:"log"`

	// File is the path that was read, Origins where each leaf came from and
	// Warnings what is odd but no error (an environment variable that names no
	// key).
	File     string            `key:"-"`
	Origins  map[string]Origin `key:"-"`
	Warnings []Problem         `key:"-"`
}

// Ports of this host's services; fixed defaults (design, section 9).
type Ports struct {
	PostgreSQL int `key:"postgresql" min:"1" max:"65535"`
	SQL        int `key:"sql" min:"1" max:"65535"`
	ReadOnly   int `key:"read_only" min:"1" max:"65535"`
	StoreCli   int `key:"store_client" min:"1" max:"65535"`
	StorePeer  int `key:"store_peer" min:"1" max:"65535"`
	Peer       int `key:"peer" min:"1" max:"65535"`
	HTTP       int `key:"http" min:"1" max:"65535"`
	ProxyHTTP  int `key:"proxy_http" min:"1" max:"65535"`
	Backup     int `key:"backup" min:"1" max:"65535"`
}

// Timing of detection. Safety never depends on it: a wrong suspicion costs a
// pause, never a commit.
type Timing struct {
	Beat         time.Duration `key:"beat" min:"20ms" max:"10s"`
	SuspectAfter time.Duration `key:"suspect_after" min:"100ms" max:"5m"`
	DegradeAfter time.Duration `key:"degrade_after" min:"100ms" max:"10m"`
	OpenAfter    time.Duration `key:"open_after" min:"100ms" max:"10m"`
}

// Switchover is how long a planned one waits for clients: that of the primary
// which hands over counts.
type Switchover struct {
	// Soft: an older transaction is waited for while all goes on.
	Soft time.Duration `key:"soft" min:"0s" max:"1m"`
	// Hold is the most that proxies hold what is new before transactions that are
	// still open are given up; For is both together.
	Hold time.Duration `key:"hold" min:"0s" max:"1m"`
	For  time.Duration `key:"for" min:"0s" max:"10m"`
}

// PostgreSQL says which one runs and with what.
type PostgreSQL struct {
	BinDir     string            `key:"bin_dir" path:"yes"`
	Parameters map[string]string `key:"parameters"`
	HBA        []string          `key:"hba"`
	// Replication are the roles that may have the attribute REPLICATION beside
	// our own; they are trusted with durability.
	Replication []cluster.Replicator `key:"replication"`
	// MembersFrom are networks from which members may stream, beside the
	// addresses that their names stand for: where NAT hides these.
	MembersFrom []string `key:"members_from"`
	// MaxSlotWALKeep bounds the WAL that is kept for a standby that stays away;
	// beyond it that standby comes back from the archive.
	MaxSlotWALKeep Size `key:"max_slot_wal_keep" min:"32MB" max:"1TB"`
}

// Proxy bounds the SQL entry point.
type Proxy struct {
	MaxClients     int           `key:"max_clients" min:"1" max:"1000000"`
	WaitForPrimary time.Duration `key:"wait_for_primary" min:"0s" max:"1h"`
	ConnectTimeout time.Duration `key:"connect_timeout" min:"10ms" max:"5m"`
	LoginTimeout   time.Duration `key:"login_timeout" min:"100ms" max:"1h"` // for each thing that a client has to send before it is in
	// What a client may take, 0 for as long as it likes: for a query, a transaction, to
	// be idle in one, or outside of one. Beyond it the client is ended, a query cancelled.
	QueryTimeout           time.Duration `key:"query_timeout" min:"0s" max:"168h"`
	TransactionTimeout     time.Duration `key:"transaction_timeout" min:"0s" max:"168h"`
	IdleTransactionTimeout time.Duration `key:"idle_transaction_timeout" min:"0s" max:"168h"`
	ClientIdleTimeout      time.Duration `key:"client_idle_timeout" min:"0s" max:"168h"`
	// Split lets standbys answer reads that came to ports.sql.
	Split string `key:"split" enum:"on,off"`
	Pool  Pool   `key:"pool"`
}

// Pool says how clients share connections to PostgreSQL.
type Pool struct {
	Mode           string            `key:"mode" enum:"session,transaction,statement,auto"`
	Size           int               `key:"size" min:"0" max:"1000000"` // of each pool; 0: as many as the node may have
	Reserve        int               `key:"reserve" min:"0" max:"1000000"`
	ReserveTimeout time.Duration     `key:"reserve_timeout" min:"0s" max:"24h"`
	Min            int               `key:"min" min:"0" max:"1000000"`
	QueueTimeout   time.Duration     `key:"queue_timeout" min:"0s" max:"24h"`
	Lifetime       time.Duration     `key:"lifetime" min:"0s" max:"8760h"`
	IdleTimeout    time.Duration     `key:"idle_timeout" min:"0s" max:"8760h"`
	NodeLimit      int               `key:"node_limit" min:"0" max:"1000000"` // over all pools; 0: what max_connections leaves
	Overrides      map[string]string `key:"overrides"`
}

// Backup says how the repository is written; used on every host of the herd.
type Backup struct {
	// Enabled is auto, on or off. auto: as soon as a host has the role repository;
	// until one ever had it no WAL is kept for it. on: WAL is kept until there is
	// one. off: nothing is archived.
	Enabled       string `key:"enabled" enum:"auto,on,off"`
	Stanza        string `key:"stanza"`
	RepoPath      string `key:"repo_path" path:"yes"`
	RetentionFull int    `key:"retention_full" min:"1" max:"9999"`
	RetentionDiff int    `key:"retention_diff" min:"0" max:"9999"` // 0 keeps all
	// RetentionMinAge is how old a backup is before it takes the place of an
	// older one.
	RetentionMinAge time.Duration `key:"retention_min_age" min:"0s" max:"8760h"`
	// RepoReserve is how much of the repository's volume new WAL and backups
	// leave free, of the repository host; 0: nothing.
	RepoReserve Size   `key:"repo_reserve" min:"0B" max:"1024TB"`
	Compress    string `key:"compress" enum:"zst,lz4,gz,none"`
	Processes   int    `key:"processes" min:"1" max:"64"`

	CompressLevel    int  `key:"compress_level" min:"-7" max:"22"`     // 0: the compression's default
	RetentionArchive int  `key:"retention_archive" min:"0" max:"9999"` // full backups whose WAL is kept whole; 0: all that are kept
	StartFast        bool `key:"start_fast"`                           // do not wait for the next checkpoint
	// ChecksumPageError makes damaged pages in a backup an error: its command
	// fails, and a condition stays until there is a clean one.
	ChecksumPageError bool `key:"checksum_page_error"`

	Schedule map[string]string `key:"schedule"` // type of backup to cron
}

// HTTP says who may read what ports.http, ports.proxy_http and ports.backup
// serve beside health checks.
type HTTP struct {
	Access string `key:"access" enum:"open,members,off"`
}

// Events says which command is told of the herd's events on this node. Only are
// the kinds that are told; empty: all.
type Events struct {
	Command string   `key:"command"`
	Only    []string `key:"only"`
}

// Values of Config.Failover.
const (
	FailoverAutomatic = "automatic"
	FailoverManual    = "manual"
)

// Join says how a new host becomes a member: the address of any member and a
// one-time token or a long-lived shared secret, each in a file.
type Join struct {
	Addresses  []string `key:"addresses"`
	TokenFile  string   `key:"token_file" path:"yes"`
	SecretFile string   `key:"secret_file" path:"yes"`
}

// Log of every process of the host; each writes its own file in
// <data_dir>/log, cut at MaxSize with Keep older ones kept.
type Log struct {
	Level   string `key:"level" enum:"debug,info,warn,error"`
	Format  string `key:"format" enum:"text,json"`
	MaxSize Size   `key:"max_size" min:"1MB" max:"1TB"`
	Keep    int    `key:"keep" min:"0" max:"1000"`
}

// Has says whether the host plays a role.
func (c *Config) Has(r Role) bool { return slices.Contains(c.Roles, string(r)) }

// HasAgent says whether an agent runs here: on every host but a pure proxy.
func (c *Config) HasAgent() bool { return c.Has(Database) || c.Has(Store) || c.Has(Repository) }

// AnswersPeers says whether other hosts of the herd reach this one: its agent, else its
// proxy. Where hosts share a machine the default port is another's, so that a proxy
// alone must have been given one.
func (c *Config) AnswersPeers() bool {
	return c.HasAgent() || !c.Loopback() || c.Origins["ports.peer"].Source != "default"
}

// Kind is the host's kind as its beats say it.
func (c *Config) Kind() string {
	switch {
	case c.Has(Database):
		return "data"
	case c.HasAgent():
		return "witness"
	}
	return "proxy"
}

// Folders of a host, all below DataDir.

func (c *Config) PGData() string      { return filepath.Join(c.DataDir, "pgdata") }
func (c *Config) StateDir() string    { return filepath.Join(c.DataDir, "state") }
func (c *Config) StoreDir() string    { return filepath.Join(c.DataDir, "store") }
func (c *Config) IdentityDir() string { return filepath.Join(c.DataDir, "identity") }
func (c *Config) LogDir() string      { return filepath.Join(c.DataDir, "log") }

// LockFile is held by the supervisor of the data directory.
func (c *Config) LockFile() string { return filepath.Join(c.DataDir, "supervisor.pid") }

// ListenOn is the address on which a service with this port listens.
func (c *Config) ListenOn(port int) string { return net.JoinHostPort(c.Listen, strconv.Itoa(port)) }

// AdvertiseOn is the address under which others reach a service.
func (c *Config) AdvertiseOn(port int) string {
	return net.JoinHostPort(c.Advertise, strconv.Itoa(port))
}

// Loopback says whether nothing of this host is reachable from elsewhere.
func (c *Config) Loopback() bool {
	if c.Listen == "localhost" {
		return true
	}
	ip := net.ParseIP(c.Listen)
	return ip != nil && ip.IsLoopback()
}

// Addresses is what the host tells the others.
func (c *Config) Addresses() cluster.Addresses {
	var a cluster.Addresses
	a.Peer = c.AdvertiseOn(c.Ports.Peer)
	if c.Has(Database) {
		a.SQL = c.AdvertiseOn(c.Ports.PostgreSQL)
	}
	if c.HasAgent() {
		a.HTTP = c.AdvertiseOn(c.Ports.HTTP)
	}
	if c.Has(Store) {
		a.Store = "https://" + c.AdvertiseOn(c.Ports.StoreCli)
	}
	if c.Has(Repository) {
		a.Repo = c.AdvertiseOn(c.Ports.Backup)
	}
	if c.Has(ProxyRole) {
		a.Proxy = c.AdvertiseOn(c.Ports.SQL)
	}
	return a
}

// UsedPort is a port that this host's roles open.
type UsedPort struct {
	Key  string
	Port int
}

// UsedPorts lists the ports that this host's roles open, in the order of the
// file.
func (c *Config) UsedPorts() []UsedPort {
	var u []UsedPort
	add := func(on bool, key string, port int) {
		if on {
			u = append(u, UsedPort{"ports." + key, port})
		}
	}
	add(c.Has(Database), "postgresql", c.Ports.PostgreSQL)
	add(c.Has(ProxyRole), "sql", c.Ports.SQL)
	add(c.Has(ProxyRole), "read_only", c.Ports.ReadOnly)
	add(c.Has(Store), "store_client", c.Ports.StoreCli)
	add(c.Has(Store), "store_peer", c.Ports.StorePeer)
	add(c.AnswersPeers(), "peer", c.Ports.Peer)
	add(c.HasAgent(), "http", c.Ports.HTTP)
	add(c.Has(ProxyRole), "proxy_http", c.Ports.ProxyHTTP)
	add(c.Has(Repository), "backup", c.Ports.Backup)
	return u
}
