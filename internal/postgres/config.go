package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
)

// Supervisor starts and ends the postmaster; *guardian.Client is one.
type Supervisor interface {
	Start(context.Context, guardian.StartSpec) (guardian.Status, error)
	Status(context.Context) (guardian.Status, error)
	Stop(context.Context, guardian.StopMode) error
	KillTree(context.Context) error
	WaitEmpty(context.Context) error
}

// TLSFiles are paths of PEM files that PostgreSQL and libpq read, each time they
// need them, so that a renewed certificate is shown without anything rendered
// anew. Key must be 0600 and belong to the user that runs PostgreSQL. All three
// are set, or none (tests: nothing is encrypted then).
type TLSFiles struct {
	Cert, Key string // of this host, as a server and as a client
	CA        string // of the herd
}

// Passwords of the herd's roles, in clear; they are written only into 0600
// passfiles in the run directory and into programs' standard input.
type Passwords struct {
	Superuser   string // role postgres; needed by Found only
	Replication string // cluster.RoleReplication
	Rewind      string // cluster.RoleRewind
	Monitor     string // cluster.RoleMonitor; empty: no password login
	Proxy       string // cluster.RoleProxy; empty: no password login
}

// Config describes an instance. Paths are made absolute by New.
type Config struct {
	BinDir   string // of PostgreSQL's programs; empty: found by FindBinDir
	DataDir  string // PGDATA
	StateDir string // beside PGDATA; survives, holds marks and promises; default DataDir + ".manada"
	RunDir   string // rendered configuration, passfiles, socket; may be volatile
	LogFile  string // postmaster's stderr; default RunDir/postgresql.log
	Port     int
	Listen   []string // listen_addresses; default 127.0.0.1
	Cluster  string
	Node     string

	Params map[string]string // user's settings; see Protected
	HBA    []string          // user's pg_hba.conf lines, behind ours for our roles
	// Replication are the roles beside ours that may replicate. Members are the
	// hosts that may under ours until SetAccess knows better.
	Replication []cluster.Replicator
	Members     []cluster.MemberAccess

	TLS TLSFiles
	// ClientTLS is for connections of this process to the PostgreSQL of a node:
	// it takes no other host for it. nil: without TLS, as TLS.
	ClientTLS func(node string) *tls.Config
	Passwords Passwords
	// OtherPasswords are those that PostgreSQL may have instead while they are
	// being changed, zero otherwise.
	OtherPasswords Passwords

	ArchiveCommand string // empty: segments are not archived
	RestoreCommand string // for standbys; empty: none
	MaxSlotWALKeep string // max_slot_wal_keep_size; default "4GB" (finding M12)

	// QueryTimeout bounds every query of an observation; default 1 s.
	QueryTimeout time.Duration
	// ProbeEvery is how often an observation tries a new connection; default 1 s.
	ProbeEvery time.Duration
	Logger     *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.DataDir == "" || c.RunDir == "" || c.Port == 0 || c.Node == "" {
		return c, errors.New("postgres: data directory, run directory, port and node are needed")
	}
	if os.Geteuid() == 0 {
		return c, errors.New("postgres: PostgreSQL does not run as root; run manada as the user who owns the data directory, for example with `setpriv --reuid=postgres --regid=postgres --init-groups`")
	}
	if c.StateDir == "" {
		c.StateDir = strings.TrimRight(c.DataDir, "/") + ".manada"
	}
	if c.LogFile == "" {
		c.LogFile = filepath.Join(c.RunDir, "postgresql.log")
	}
	for _, p := range []*string{&c.DataDir, &c.StateDir, &c.RunDir, &c.LogFile} {
		a, err := filepath.Abs(*p)
		if err != nil {
			return c, err
		}
		if strings.ContainsAny(a, "'\\\n") {
			return c, fmt.Errorf("postgres: path %q: quotes, backslashes and line breaks are not supported", a)
		}
		*p = a
	}
	if c.BinDir == "" {
		var err error
		if c.BinDir, err = FindBinDir(); err != nil {
			return c, err
		}
	}
	if len(c.Listen) == 0 {
		c.Listen = []string{"127.0.0.1"}
	}
	if c.MaxSlotWALKeep == "" {
		c.MaxSlotWALKeep = "4GB"
	}
	if c.QueryTimeout <= 0 {
		c.QueryTimeout = time.Second
	}
	if c.ProbeEvery <= 0 {
		c.ProbeEvery = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, CheckParams(c.Params)
}

// MinMajor is the oldest PostgreSQL that is supported.
const MinMajor = 15

// FindBinDir finds the newest supported PostgreSQL: Debian's layout first,
// then Red Hat's, then $PATH.
func FindBinDir() (string, error) {
	type found struct {
		major int
		dir   string
	}
	var all []found
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/bitnami/postgresql/bin"} {
		dirs, _ := filepath.Glob(pattern)
		for _, d := range dirs {
			if m, err := Major(d); err == nil && m >= MinMajor {
				all = append(all, found{m, d})
			}
		}
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if r, err := filepath.EvalSymlinks(p); err == nil {
			p = r
		}
		if m, err := Major(filepath.Dir(p)); err == nil && m >= MinMajor {
			all = append(all, found{m, filepath.Dir(p)})
		}
	}
	if len(all) == 0 {
		return "", fmt.Errorf("find PostgreSQL: none of version %d or newer in /usr/lib/postgresql/*/bin or $PATH; install it, for example `apt-get install postgresql-%d`, or name its programs' folder in postgres.bin_dir", MinMajor, MinMajor)
	}
	slices.SortStableFunc(all, func(a, b found) int { return b.major - a.major })
	return all[0].dir, nil
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// Major asks the server program in binDir for its major version.
func Major(binDir string) (int, error) {
	out, err := exec.Command(filepath.Join(binDir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w", binDir, err)
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return 0, fmt.Errorf("ask %s for its version: unknown answer %q", binDir, out)
	}
	return strconv.Atoi(m[1])
}

// Protected are the settings on which the protocol stands, with the reason for
// which nobody else may set them.
var Protected = map[string]string{
	"synchronous_standby_names":     "it says which commits are acknowledged; the term decides it",
	"fsync":                         "a promise counts only what is on disk",
	"full_page_writes":              "crash recovery and pg_rewind need it",
	"wal_log_hints":                 "pg_rewind needs it",
	"restart_after_crash":           "a leader that crashed never continues its epoch",
	"hot_standby":                   "standbys are observed by queries",
	"wal_level":                     "set wal_level=logical is allowed, nothing below replica",
	"primary_conninfo":              "following is certified per epoch",
	"primary_slot_name":             "slots are kept by the agent",
	"restore_command":               "it is emptied when a node freezes",
	"recovery_target_timeline":      "standbys follow the newest timeline",
	"promote_trigger_file":          "only the agent promotes",
	"recovery_min_apply_delay":      "a delayed standby may not be in sync",
	"archive_mode":                  "a node must be able to archive as soon as it leads",
	"archive_command":               "only the leader of the current epoch archives; set the repository instead",
	"archive_library":               "only the leader of the current epoch archives; set the repository instead",
	"archive_cleanup_command":       "WAL is kept for rewinding",
	"recovery_end_command":          "promotion is the agent's",
	"data_directory":                "set postgres.data_dir instead",
	"config_file":                   "the configuration is rendered",
	"hba_file":                      "set postgres.hba instead",
	"ident_file":                    "the agent logs in through it",
	"port":                          "set the node's port instead",
	"listen_addresses":              "set the node's addresses instead",
	"unix_socket_directories":       "the agent connects through it",
	"unix_socket_permissions":       "the agent connects through it",
	"external_pid_file":             "the guardian keeps the postmaster",
	"logging_collector":             "the log is the guardian's file",
	"log_destination":               "the log is the guardian's file",
	"lc_messages":                   "messages are read by the proxy",
	"password_encryption":           "only SCRAM is used",
	"cluster_name":                  "processes are found by it",
	"ssl":                           "set postgres.tls instead",
	"ssl_cert_file":                 "set postgres.tls instead",
	"ssl_key_file":                  "set postgres.tls instead",
	"ssl_ca_file":                   "set postgres.tls instead",
	"max_slot_wal_keep_size":        "set postgres.max_slot_wal_keep instead",
	"update_process_title":          "processes are found by their titles",
	"default_transaction_read_only": "the agent writes the control row",
	"zero_damaged_pages":            "it destroys data silently",
	"ignore_checksum_failure":       "it spreads damage silently",
	"ignore_invalid_pages":          "it spreads damage silently",
	"allow_in_place_tablespaces":    "it is for PostgreSQL's own tests",
	"recovery_target":               "restores are made by `manada restore`",
	"recovery_target_lsn":           "restores are made by `manada restore`",
	"recovery_target_name":          "restores are made by `manada restore`",
	"recovery_target_time":          "restores are made by `manada restore`",
	"recovery_target_xid":           "restores are made by `manada restore`",
	"recovery_target_action":        "restores are made by `manada restore`",
	"recovery_target_inclusive":     "restores are made by `manada restore`",
	"synchronous_commit":            "only on and remote_apply are allowed",
	"include":                       "settings are given one by one",
	"include_dir":                   "settings are given one by one",
	"include_if_exists":             "settings are given one by one",
	"wal_receiver_create_temp_slot": "slots are kept by the agent",
}

var paramName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$`)

// CheckParams refuses settings that the protocol stands on, by name and with
// the reason.
func CheckParams(params map[string]string) error {
	var errs []error
	for name, value := range params {
		n := strings.ToLower(name)
		if !paramName.MatchString(name) {
			errs = append(errs, fmt.Errorf("postgres parameter %q: not a name of a setting", name))
			continue
		}
		if strings.ContainsAny(value, "\n\r\x00") {
			errs = append(errs, fmt.Errorf("postgres parameter %s: line break in the value", n))
		}
		why, ok := Protected[n]
		if !ok || n == "synchronous_commit" && (value == "on" || value == "remote_apply") ||
			n == "wal_level" && (value == "replica" || value == "logical") {
			continue
		}
		errs = append(errs, fmt.Errorf("postgres parameter %s cannot be set: %s; remove it from postgres.parameters", n, why))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func osUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}
