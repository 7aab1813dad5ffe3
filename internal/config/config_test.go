package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const minimal = "cluster: orders\nnode: pg1\n"

func TestDefaults(t *testing.T) {
	c, err := Parse("/etc/manada/manada.yaml", []byte(minimal), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.PGData() != "/var/lib/manada/pgdata" || c.RunDir != "/var/lib/manada/run" || c.Backup.Stanza != "orders" {
		t.Errorf("derived values: %+v", c)
	}
	if c.Timing.Beat != 100*time.Millisecond || c.Ports.SQL != 5431 || !c.Has(Database) || !c.HasAgent() || c.Kind() != "data" {
		t.Errorf("defaults: %+v", c)
	}
	if o := c.Origins["node"]; o.Source != "file" || o.Line != 2 {
		t.Errorf("origin of node: %+v", o)
	}
}

// Every section's typos and wrong values: each line of the table is a file and
// what must be said about it, beginning with file and line.
func TestProblems(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want, hint string }{
		{"top key", minimal + "durabilty: quorum", `f:3: durabilty: unknown key, did you mean "durability"?`, ""},
		{"top key, nothing near", minimal + "quux_corge: 1", "f:3: quux_corge: unknown key", "keys here: cluster, node,"},
		{"key of a section", minimal + "beat: 1s", "f:3: beat: unknown key", "indent it below timing:"},
		{"ports", minimal + "ports:\n  postgres: 5432", `f:4: ports.postgres: unknown key, did you mean "postgresql"?`, ""},
		{"timing", minimal + "timing:\n  suspect-after: 2s", `f:4: timing.suspect-after: unknown key, did you mean "suspect_after"?`, ""},
		{"postgresql", minimal + "postgresql:\n  bindir: /x", `f:4: postgresql.bindir: unknown key, did you mean "bin_dir"?`, ""},
		{"proxy", minimal + "proxy:\n  max_client: 5", `f:4: proxy.max_client: unknown key, did you mean "max_clients"?`, ""},
		{"mode of pools", minimal + "proxy:\n  pool:\n    mode: transactions", `f:5: proxy.pool.mode: "transactions" is not allowed, did you mean "transaction"?`, ""},
		{"pool, typo", minimal + "proxy:\n  pool:\n    sise: 5", `f:5: proxy.pool.sise: unknown key, did you mean "size"?`, ""},
		{"override of what", minimal + "proxy:\n  pool:\n    overrides:\n      orders/: size=5", `f:6: proxy.pool.overrides.orders/: "orders/" names no pools: want DATABASE, */USER or DATABASE/USER`, ""},
		{"override of size 0", minimal + "proxy:\n  pool:\n    overrides:\n      orders: size=0", `f:6: proxy.pool.overrides.orders: orders: size=0: want a whole number from 1`, ""},
		{"override, typo", minimal + "proxy:\n  pool:\n    overrides:\n      orders: sice=5", `there is no setting "sice" of a pool`, ""},
		{"override, mode", minimal + "proxy:\n  pool:\n    overrides:\n      orders: mode=pooled", `"pooled" is no mode: want one of session, transaction, statement, auto`, ""},
		{"size of pools, negative", minimal + "proxy:\n  pool:\n    size: -1", `f:5: proxy.pool.size: -1 is out of range (expected`, ""},
		{"size of pools, absurd", minimal + "proxy:\n  pool:\n    size: 99999999999999999999", `f:5: proxy.pool.size: "99999999999999999999" is no whole number`, ""},
		{"no clients", minimal + "proxy:\n  max_clients: 0", `f:4: proxy.max_clients: 0 is out of range (expected`, ""},
		{"negative reserve", minimal + "proxy:\n  pool:\n    reserve: -2", `f:5: proxy.pool.reserve: -2 is out of range`, ""},
		{"negative time-out", minimal + "proxy:\n  query_timeout: -1s", `f:4: proxy.query_timeout: -1s is out of range`, ""},
		{"endless time-out", minimal + "proxy:\n  pool:\n    queue_timeout: 25h", `f:5: proxy.pool.queue_timeout: 25h is out of range`, ""},
		{"override, negative size", minimal + "proxy:\n  pool:\n    overrides:\n      orders: size=-1", `f:6: proxy.pool.overrides.orders: orders: size=-1: want a whole number from 1 to 1000000`, ""},
		{"override, absurd size", minimal + "proxy:\n  pool:\n    overrides:\n      orders: size=2000000", `f:6: proxy.pool.overrides.orders: orders: size=2000000: want a whole number from 1 to 1000000`, ""},
		{"override, negative time-out", minimal + "proxy:\n  pool:\n    overrides:\n      orders: queue_timeout=-1s", `f:6: proxy.pool.overrides.orders: orders: queue_timeout=-1s: want a duration from 0s to 24h0m0s`, ""},
		{"override, endless time-out", minimal + "proxy:\n  pool:\n    overrides:\n      orders: queue_timeout=25h", `f:6: proxy.pool.overrides.orders: orders: queue_timeout=25h: want a duration from 0s to 24h0m0s`, ""},
		{"override, no duration", minimal + "proxy:\n  pool:\n    overrides:\n      orders: lifetime=5", `orders: lifetime=5: want a duration from 0s to 8760h0m0s, such as 30s`, ""},
		{"override, twice", minimal + "proxy:\n  pool:\n    overrides:\n      orders: size=5 size=6", `f:6: proxy.pool.overrides.orders: orders: size is set twice`, ""},
		{"override, min above size", minimal + "proxy:\n  pool:\n    overrides:\n      orders: size=2 min=3", `f:6: proxy.pool.overrides.orders: min 3 is more than size 2`, ""},
		{"override, min above the size of all", minimal + "proxy:\n  pool:\n    size: 2\n    overrides:\n      orders: min=3", `f:7: proxy.pool.overrides.orders: min 3 is more than size 2`, ""},
		{"override, size above the node", minimal + "proxy:\n  pool:\n    node_limit: 10\n    overrides:\n      '*/app': size=11", `f:7: proxy.pool.overrides.*/app: size 11 is more than proxy.pool.node_limit, 10`, ""},
		{"min above size", minimal + "proxy:\n  pool:\n    size: 2\n    min: 3", `f:6: proxy.pool.min: 3 is more than proxy.pool.size, 2`, ""},
		{"size above the node", minimal + "proxy:\n  pool:\n    size: 20\n    node_limit: 10", `f:5: proxy.pool.size: 20 is more than proxy.pool.node_limit, 10`, ""},
		{"backup", minimal + "backup:\n  retention_ful: 5", `f:4: backup.retention_ful: unknown key, did you mean "retention_full"?`, ""},
		{"join", minimal + "join:\n  adresses: [a:1]", `f:4: join.adresses: unknown key, did you mean "addresses"?`, ""},
		{"log", minimal + "log:\n  lvl: info", `f:4: log.lvl: unknown key`, ""},
		{"wrong duration", minimal + "timing:\n  beat: 100", `f:4: timing.beat: "100" is no duration (expected a duration such as 500ms or 2s`, ""},
		{"duration out of range", minimal + "timing:\n  beat: 1ms", "f:4: timing.beat: 1ms is out of range", ""},
		{"wrong number", minimal + "ports:\n  sql: many", `f:4: ports.sql: "many" is no whole number (expected a whole number from 1 to 65535)`, ""},
		{"port out of range", minimal + "ports:\n  sql: 70000", "f:4: ports.sql: 70000 is out of range", ""},
		{"wrong size", minimal + "log:\n  max_size: 12 parsecs", `f:4: log.max_size: "12 parsecs" is no size`, ""},
		{"wrong choice", minimal + "durability: quorm", `f:3: durability: "quorm" is not allowed, did you mean "quorum"?`, ""},
		{"wrong role", minimal + "roles: [database, stor]", `f:3: roles: "stor" is not allowed, did you mean "store"?`, ""},
		{"list for a value", minimal + "location: [a]", "f:3: location: is a list (expected a text)", ""},
		{"value for a section", minimal + "timing: 3s", `f:3: timing: "3s" is a single value (expected a section with keys: beat,`, ""},
		{"value for a mapping", minimal + "postgresql:\n  parameters: on", `f:4: postgresql.parameters: "on" is a single value`, ""},
		{"replication, no list", minimal + "postgresql:\n  replication: debezium", `f:4: postgresql.replication: "debezium" is a single value (expected a list of {role: NAME`, ""},
		{"replication, no mapping", minimal + "postgresql:\n  replication: [debezium]", `f:4: postgresql.replication: "debezium" is a single value`, ""},
		{"replication, typo", minimal + "postgresql:\n  replication:\n    - role: r\n      form: 10.0.0.9", `f:6: postgresql.replication: unknown key "form", did you mean "from"?`, ""},
		{"replication from nowhere", minimal + "postgresql:\n  replication: [{role: r}]", `postgresql.replication: role "r": from is missing`, ""},
		{"replication from a name", minimal + "postgresql:\n  replication: [{role: r, from: db9}]", `role "r": "db9" is neither an IP address nor a network`, ""},
		{"replication of ours", minimal + "postgresql:\n  replication: [{role: manada_proxy, from: 10.0.0.9}]", `Manada's own roles are not listed`, ""},
		{"replication of the superuser", minimal + "postgresql:\n  replication: [{role: postgres, from: 10.0.0.9}]", `a superuser needs no entry`, "hostssl replication postgres"},
		{"replication twice", minimal + "postgresql:\n  replication: [{role: r, from: 10.0.0.9}, {role: r, from: 10.0.0.8}]", `role "r": stands twice`, ""},
		{"replication, a quote", minimal + "postgresql:\n  replication: [{role: 'r\"x', from: 10.0.0.9}]", `is no name of a role`, ""},
		{"members from", minimal + "postgresql:\n  members_from: [10.0.0.1/16]", `postgresql.members_from: "10.0.0.1/16" is neither an IP address nor a network`, ""},
		{"twice", minimal + "node: pg2", "f:3: node: given twice, first in line 2", ""},
		{"not yaml", "cluster: orders\n\tnode: pg1", "f:2: not valid YAML", "never with tabs"},
		{"two documents", minimal + "---\ncluster: b\n", "a second document begins here", ""},
		{"empty", "", "f: cluster: is missing", "cluster: orders"},
		{"bad node name", "cluster: orders\nnode: Pg_1\n", `f:2: node: "Pg_1" cannot be a node's name`, ""},
		{"bad cluster name", "cluster: my orders\nnode: pg1\n", `f:1: cluster: "my orders" cannot be a cluster's name`, ""},
		{"no roles", minimal + "roles: []", "f:3: roles: is empty", ""},
		{"role twice", minimal + "roles: [store, store]", `f:3: roles: "store" stands twice`, ""},
		{"async", minimal + "durability: async", "f:3: durability: async has no automatic failover yet", ""},
		{"port in listen", minimal + "listen: 10.0.0.1:5432", `f:3: listen: "10.0.0.1:5432" is no IP address`, "ports:"},
		{"name in listen", minimal + "listen: db1", `f:3: listen: "db1" is no IP address`, "advertise"},
		{"port in advertise", minimal + "advertise: db1:5432", `f:3: advertise: "db1:5432" is no address`, ""},
		{"wildcard without advertise", minimal + "listen: 0.0.0.0", "advertise: 0.0.0.0 tells the others no address to dial", "advertise: 10.0.0.11"},
		{"port clash", minimal + "ports:\n  peer: 5432", "f:4: ports.peer: 5432 is already taken by ports.postgresql", ""},
		{"impatient", minimal + "timing:\n  suspect_after: 200ms", "f:4: timing.suspect_after: 200ms is less than three beats", ""},
		{"impatient to degrade", minimal + "timing:\n  degrade_after: 200ms", "f:4: timing.degrade_after: 200ms is less than three beats", ""},
		{"owned parameter", minimal + "postgresql:\n  parameters:\n    synchronous_standby_names: ''", "f:5: postgresql.parameters.synchronous_standby_names: cannot be set here", "remove the line"},
		{"owned parameter in capitals", minimal + "postgresql:\n  parameters:\n    FSYNC: off", "f:5: postgresql.parameters.FSYNC: cannot be set here", ""},
		{"recovery target", minimal + "postgresql:\n  parameters:\n    recovery_target_time: now", "cannot be set here: see manada restore", ""},
		{"wal_level", minimal + "postgresql:\n  parameters:\n    wal_level: minimal", `"minimal" does not allow replication`, ""},
		{"parameter without a value", minimal + "postgresql:\n  parameters:\n    work_mem:", "f:5: postgresql.parameters.work_mem: is empty", ""},
		{"hba type", minimal + "postgresql:\n  hba: [hst all all all trust]", "does not begin with a connection type", ""},
		{"hba short", minimal + "postgresql:\n  hba: [host all all]", "too few fields", ""},
		{"hba trust", minimal + "postgresql:\n  hba: [host all all 0.0.0.0/0 trust]", "would let anyone in without a password", ""},
		{"hba that the proxy cannot hold", minimal + "roles: [database, proxy]\npostgresql:\n  hba: [hostssl all +admins all scram-sha-256]",
			`f:5: postgresql.hba: line 1, "hostssl all +admins all scram-sha-256": user +admins: groups are not supported by the proxy`, "without the role proxy"},
		{"split", minimal + "proxy:\n  split: maybe", `f:4: proxy.split: "maybe" is not allowed`, ""},
		{"join without port", minimal + "join:\n  addresses: [pg1]", `f:4: join.addresses: "pg1" has no port`, "pg1:7400"},
		{"token without address", minimal + "join:\n  token_file: /t", "f:4: join.token_file: given without join.addresses", ""},
		{"two secrets", minimal + "join:\n  addresses: ['a:1']\n  token_file: /t\n  secret_file: /s", "f:6: join.secret_file: given beside join.token_file", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", []byte(tt.yaml), nil)
			var ps Problems
			if !errors.As(err, &ps) {
				t.Fatalf("got error %v, want problems", err)
			}
			for _, p := range ps {
				if strings.Contains(p.String(), tt.want) && strings.Contains(p.Hint, tt.hint) {
					return
				}
			}
			t.Errorf("got\n%v\nwant %s\n  hint: %s", err, tt.want, tt.hint)
		})
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	_, err := Parse("f", []byte("nod: a\ntiming:\n  beat: x\n  beet: 1s\nports: 5\n"), nil)
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatal(err)
	}
	for _, want := range []string{"f:1: nod:", "f:3: timing.beat:", "f:4: timing.beet:", "f:5: ports:", "cluster: is missing", "node: is missing"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in\n%v", want, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	env := []string{"MANADA_TIMING_BEAT=200ms", "MANADA_ROLES=store, repository", "MANADA_POSTGRESQL_PARAMETERS_WORK_MEM=8MB",
		"MANADA_POSTGRESQL_BIN_DIR=/opt/pg", "HOME=/root", "MANADA_CONFIG=/x", "MANADA_NODE_NAME=a"}
	c, err := Parse("f", []byte(minimal+"timing:\n  beat: 100ms\npostgresql:\n  parameters:\n    work_mem: 4MB\n    jit: on\n"), env)
	if err != nil {
		t.Fatal(err)
	}
	if c.Timing.Beat != 200*time.Millisecond || c.Kind() != "witness" || c.PostgreSQL.BinDir != "/opt/pg" {
		t.Errorf("overrides: %+v", c)
	}
	if p := c.PostgreSQL.Parameters; p["work_mem"] != "8MB" || p["jit"] != "on" {
		t.Errorf("parameters: %v", p)
	}
	if o := c.Origins["timing.beat"]; o.Env != "MANADA_TIMING_BEAT" {
		t.Errorf("origin: %+v", o)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), "$MANADA_NODE_NAME") {
		t.Errorf("warnings: %v", c.Warnings)
	}
	_, err = Parse("f", []byte(minimal), []string{"MANADA_PORTS_SQL=x"})
	if err == nil || !strings.Contains(err.Error(), `$MANADA_PORTS_SQL: ports.sql: "x" is no whole number`) {
		t.Errorf("wrong override: %v", err)
	}
}

// Two keys may not share a variable, and every bound in a tag must be readable.
func TestSchema(t *testing.T) {
	seen := map[string]string{}
	for _, l := range leaves(defaults()) {
		n := EnvName(l.path)
		if seen[n] != "" {
			t.Errorf("%s and %s share %s", seen[n], l.path, n)
		}
		seen[n] = l.path
		if l.tag.Get("min") != "" && l.bound("min") > l.bound("max") {
			t.Errorf("%s: bounds", l.path)
		}
		if err := l.check(); err != nil && l.value.String() != "" {
			t.Errorf("default of %s: %v", l.path, err)
		}
	}
}

func TestExampleLoads(t *testing.T) {
	file := filepath.Join("..", "..", "deploy", "manada.example.yaml")
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cluster != "orders" || c.Loopback() || c.PostgreSQL.Parameters["max_connections"] != "200" {
		t.Errorf("%+v", c)
	}
}

// What stands commented out in the example is known, and says the default.
func TestExampleCommentsAreTrue(t *testing.T) {
	file := filepath.Join("..", "..", "deploy", "manada.example.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	commented := regexp.MustCompile(`(?m)^#((?:  )*[a-z_]+:)`)
	text := commented.ReplaceAllString(string(b), "$1")
	c, err := Parse(file, []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leaves(c) {
		if c.Origins[l.path].Source != "file" && l.path != "join.secret_file" { // excludes token_file
			t.Errorf("the example does not show %s", l.path)
		}
	}
	plain, _ := Parse(file, b, nil)
	for _, k := range []string{"timing.beat", "timing.open_after", "ports.sql", "ports.backup", "backup.retention_full", "backup.compress", "log.max_size", "log.keep", "proxy.wait_for_primary", "data_dir", "user"} {
		if a, b := valueOf(c, k), valueOf(plain, k); a != b {
			t.Errorf("%s: the example says %s, the default is %s", k, a, b)
		}
	}
}

func valueOf(c *Config, key string) string {
	for _, s := range c.Settings() {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func TestRelativePathsFollowTheFile(t *testing.T) {
	c, err := Parse("/srv/herd/master/manada.yaml", []byte(minimal+"data_dir: .\nrun_dir: r"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != "/srv/herd/master" || c.RunDir != "/srv/herd/master/r" {
		t.Errorf("data_dir %s run_dir %s", c.DataDir, c.RunDir)
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]Size{"1kB": 1024, "64MB": 64 << 20, "3 GB": 3 << 30, "10B": 10, "1mb": 1 << 20} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "12", "MB", "-1MB", "1.5GB", "99999999999TB"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
	if s := Size(64 << 20).String(); s != "64MB" {
		t.Error(s)
	}
}

// TestMappingFromEnvironment: one variable is one entry of a mapping.
func TestMappingFromEnvironment(t *testing.T) {
	c, err := Parse("x", []byte("cluster: x\nnode: x\nbackup:\n  schedule:\n    full: 0 1 * * 0\n"), []string{
		"MANADA_BACKUP_SCHEDULE_INCR=0 3 * * *", "MANADA_POSTGRESQL_PARAMETERS_WORK_MEM=8MB"})
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Backup.Schedule; len(s) != 2 || s["incr"] != "0 3 * * *" || s["full"] != "0 1 * * 0" || c.PostgreSQL.Parameters["work_mem"] != "8MB" {
		t.Fatalf("%v %v", s, c.PostgreSQL.Parameters)
	}
	if len(c.Warnings) > 0 {
		t.Fatal(c.Warnings)
	}
	_, err = Parse("x", []byte("cluster: x\nnode: x\n"), []string{"MANADA_BACKUP_SCHEDULE_WEEKLY=0 3 * * *"})
	if err == nil {
		t.Fatal("a type of backup that does not exist was taken")
	}
}

func TestReplicationRoles(t *testing.T) {
	c, err := Parse("f", []byte(minimal+"postgresql:\n  replication:\n    - {role: debezium, from: 10.0.0.9, databases: orders}\n    - role: receivewal\n      from: [10.1.0.0/16, \"fd00::/64\"]\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := c.PostgreSQL.Replication
	if len(l) != 2 || l[0].Role != "debezium" || l[0].From[0] != "10.0.0.9" || l[0].Databases[0] != "orders" || len(l[1].From) != 2 || l[1].Databases != nil {
		t.Errorf("%+v", l)
	}
	if v := valueOf(c, "postgresql.replication"); v != "debezium from 10.0.0.9 in orders; receivewal from 10.1.0.0/16, fd00::/64" {
		t.Error(v)
	}
}
