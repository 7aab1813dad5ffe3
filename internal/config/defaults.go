package config

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"manada/internal/cluster"
)

// defaults are the values before the file is read. Those that follow from other
// keys are filled in by derive.
func defaults() *Config {
	return &Config{
		Roles:   []string{"database", "store"},
		User:    "postgres",
		DataDir: "/var/lib/manada",
		Listen:  "127.0.0.1",
		Ports: Ports{PostgreSQL: 5432, SQL: 5431, ReadOnly: 5430, StoreCli: 2379, StorePeer: 2380,
			Peer: 7400, HTTP: 8008, ProxyHTTP: 8010, Backup: 8432},
		Failover:   FailoverAutomatic,
		Priority:   100,
		Durability: cluster.Quorum,
		WantK:      1,
		Timing: Timing{Beat: 100 * time.Millisecond, SuspectAfter: time.Second,
			DegradeAfter: time.Second, OpenAfter: time.Second},
		Switchover: Switchover{Soft: 300 * time.Millisecond, Hold: time.Second, For: 5 * time.Second},
		PostgreSQL: PostgreSQL{MaxSlotWALKeep: 4 << 30},

		Proxy: Proxy{MaxClients: 10000, WaitForPrimary: 30 * time.Second, ConnectTimeout: 5 * time.Second, LoginTimeout: 15 * time.Second, Split: "off",
			Pool: Pool{Mode: "auto", ReserveTimeout: 5 * time.Second, QueueTimeout: 2 * time.Minute, Lifetime: time.Hour, IdleTimeout: 10 * time.Minute}},
		Backup: Backup{Enabled: "auto", RetentionFull: 2, RetentionMinAge: 24 * time.Hour, RepoReserve: 1 << 30, Compress: "zst", Processes: 2, StartFast: true, ChecksumPageError: true},
		HTTP:   HTTP{Access: "open"},
		Log:    Log{Level: "info", Format: "text", MaxSize: 64 << 20, Keep: 3},
	}
}

// derive fills in what follows from other keys.
func (c *Config) derive() {
	if c.RunDir == "" && c.DataDir != "" {
		c.RunDir = filepath.Join(c.DataDir, "run")
	}
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	if c.Backup.Stanza == "" {
		c.Backup.Stanza = c.Cluster
	}
	if c.Backup.RepoPath == "" && c.DataDir != "" {
		c.Backup.RepoPath = filepath.Join(c.DataDir, "repo")
	}
	if c.PostgreSQL.BinDir == "" {
		c.PostgreSQL.BinDir = FindPostgreSQL(PostgreSQLRoots...)
	}
}

// PostgreSQLRoots are the folders below which distributions keep
// <version>/bin/postgres.
var PostgreSQLRoots = []string{"/usr/lib/postgresql", "/usr/local/pgsql", "/opt/postgresql"}

// FindPostgreSQL finds the folder with the PostgreSQL programs: version 15,
// for which Manada is made, before the newest other one; empty when there is
// none.
func FindPostgreSQL(roots ...string) string {
	best, rank := "", -1
	for _, root := range roots {
		for _, f := range globs(root) {
			v, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(f))))
			if err != nil {
				v = 0 // <root>/bin, without a version in its path
			}
			if v == 15 {
				return filepath.Dir(f)
			}
			if v > rank {
				best, rank = filepath.Dir(f), v
			}
		}
	}
	return best
}

func globs(root string) []string {
	a, _ := filepath.Glob(filepath.Join(root, "*", "bin", "postgres"))
	b, _ := filepath.Glob(filepath.Join(root, "bin", "postgres"))
	all := append(a, b...)
	return slices.DeleteFunc(all, func(f string) bool {
		st, err := os.Stat(f)
		return err != nil || st.Mode()&0o111 == 0
	})
}
