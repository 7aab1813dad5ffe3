package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"manada/internal/cluster"
	"manada/internal/durable"
	"manada/internal/guardian"
)

// Files in the run directory.
const (
	confFile     = "postgresql.conf"
	hbaFile      = "pg_hba.conf"
	identFile    = "pg_ident.conf"
	syncFile     = "sync.conf"     // synchronous_standby_names, and nothing else
	upstreamFile = "upstream.conf" // primary_conninfo, primary_slot_name, restore_command
)

// socketMode lets nobody but our user (and root) open the socket: whoever is that is
// the superuser anyway, so that passwords alone admit nobody there.
const socketMode = "0700"

func (i *Instance) run(name string) string { return filepath.Join(i.cfg.RunDir, name) }

// quote makes a value for postgresql.conf.
func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
}

type setting struct{ name, value string }

// defaults may be overridden by the user's parameters.
func (i *Instance) defaults() []setting {
	return append(i.reserved(), []setting{
		{"max_connections", "200"},
		{"superuser_reserved_connections", "5"},
		{"max_wal_senders", "20"},
		{"max_replication_slots", "20"},
		{"shared_buffers", "128MB"},
		{"max_wal_size", "2GB"},
		{"min_wal_size", "128MB"},
		{"wal_keep_size", "256MB"},
		{"wal_compression", "on"},
		{"checkpoint_timeout", "5min"},
		// Detection in a second needs answers more often than that.
		{"wal_sender_timeout", "5s"},
		{"wal_receiver_timeout", "5s"},
		{"wal_receiver_status_interval", "1s"},
		{"wal_retrieve_retry_interval", "200ms"},
		{"hot_standby_feedback", "on"},
		{"max_standby_streaming_delay", "5s"},
		{"max_standby_archive_delay", "5s"},
		{"tcp_keepalives_idle", "5"},
		{"tcp_keepalives_interval", "2"},
		{"tcp_keepalives_count", "3"},
		{"tcp_user_timeout", "10s"},
		{"synchronous_commit", "on"},
		{"wal_level", "replica"},
		{"log_line_prefix", "%m [%p] %b %q%u@%d %a "},
		{"log_replication_commands", "on"}, // see senderLog
		{"log_checkpoints", "on"},
		{"log_lock_waits", "on"},
		{"datestyle", "iso, ymd"},
		{"timezone", "UTC"},
		{"log_timezone", "UTC"},
		{"default_text_search_config", "pg_catalog.simple"},
	}...)
}

// reserved keeps connections for the herd's own roles, where PostgreSQL can; see
// MakeRoom for where it cannot.
func (i *Instance) reserved() []setting {
	if i.major() < 16 {
		return nil
	}
	return []setting{{"reserved_connections", fmt.Sprint(room)}}
}

// fixed settings come behind the user's, so that they win in the file as well.
func (i *Instance) fixed() []setting {
	archive := i.cfg.ArchiveCommand
	if archive == "" {
		archive = "/bin/true" // empty would keep every segment for ever
	}
	s := []setting{
		{"listen_addresses", strings.Join(i.cfg.Listen, ",")},
		{"port", fmt.Sprint(i.cfg.Port)},
		{"unix_socket_directories", i.socketDir},
		{"unix_socket_permissions", socketMode}, // pg_hba.conf knows no users of this host but ours
		{"cluster_name", i.cfg.Node},
		{"password_encryption", "scram-sha-256"},
		{"archive_mode", "on"},
		{"archive_command", archive},
		{"max_slot_wal_keep_size", i.cfg.MaxSlotWALKeep},
		{"recovery_target_timeline", "latest"},
		{"logging_collector", "off"},
		{"log_destination", "stderr"},
		{"lc_messages", "C"},
		{"update_process_title", "on"},
	}
	if t := i.cfg.TLS; t.Cert != "" {
		s = append(s, setting{"ssl", "on"}, setting{"ssl_cert_file", t.Cert}, setting{"ssl_key_file", t.Key},
			setting{"ssl_min_protocol_version", "TLSv1.2"})
		if t.CA != "" {
			s = append(s, setting{"ssl_ca_file", t.CA})
		}
	}
	return s
}

// unshakeable settings are given on the command line, where no ALTER SYSTEM
// can beat them.
var unshakeable = []string{"fsync=on", "full_page_writes=on", "wal_log_hints=on", "restart_after_crash=off", "hot_standby=on"}

func (i *Instance) renderConf() string {
	var b strings.Builder
	b.WriteString("# Rendered by manada; changes are overwritten. Set postgres.parameters instead.\n")
	user := make([]setting, 0, len(i.cfg.Params))
	set := map[string]bool{}
	for n, v := range i.cfg.Params {
		user = append(user, setting{n, v})
		set[strings.ToLower(n)] = true
	}
	slices.SortFunc(user, func(a, c setting) int { return strings.Compare(a.name, c.name) })
	for _, s := range i.defaults() {
		if !set[s.name] {
			fmt.Fprintf(&b, "%s = %s\n", s.name, quote(s.value))
		}
	}
	for _, part := range [][]setting{user, i.fixed()} {
		for _, s := range part {
			fmt.Fprintf(&b, "%s = %s\n", s.name, quote(s.value))
		}
	}
	fmt.Fprintf(&b, "include %s\ninclude %s\n", quote(i.run(upstreamFile)), quote(i.run(syncFile)))
	return b.String()
}

func (i *Instance) renderIdent() string {
	var b strings.Builder
	b.WriteString("# Rendered by manada.\n")
	for _, u := range []string{osUser(), "root"} {
		for _, r := range cluster.PeerRoles {
			fmt.Fprintf(&b, "manada %q %q\n", u, r)
		}
	}
	return b.String()
}

// render writes the configuration. sync.conf and upstream.conf are made only
// when they are missing: they belong to SetSync and Follow, and rewriting them
// under a running PostgreSQL could release waiting commits (trap T5).
// It says whether anything changed.
func (i *Instance) render() (changed bool, err error) {
	if err := os.MkdirAll(i.cfg.RunDir, 0o700); err != nil {
		return false, fmt.Errorf("make run directory: %w", err)
	}
	for _, f := range []struct{ name, text string }{
		{confFile, i.renderConf()}, {hbaFile, i.renderHBA()}, {identFile, i.renderIdent()},
	} {
		old, err := os.ReadFile(i.run(f.name))
		if err == nil && string(old) == f.text {
			continue
		}
		if err := durable.Write(i.run(f.name), []byte(f.text), durable.Options{}); err != nil {
			return changed, err
		}
		changed = true
	}
	for name, text := range map[string]string{syncFile: syncConf(cluster.HoldCommits()), upstreamFile: upstreamConf("", "", "")} {
		if _, err := os.Stat(i.run(name)); err == nil {
			continue
		}
		if err := durable.Write(i.run(name), []byte(text), durable.Options{}); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func syncConf(s cluster.SyncSetting) string {
	return "# Rendered by manada from the term.\nsynchronous_standby_names = " + quote(s.String()) + "\n"
}

func upstreamConf(conninfo, slot, restore string) string {
	return fmt.Sprintf("# Rendered by manada.\nprimary_conninfo = %s\nprimary_slot_name = %s\nrestore_command = %s\n",
		quote(conninfo), quote(slot), quote(restore))
}

// placeholderConf is PGDATA/postgresql.conf: a directory that is started by
// hand acknowledges nothing alone (finding M12).
func placeholderConf() string {
	return "# This directory belongs to a Manada herd; its configuration is rendered elsewhere.\n" +
		"# Started by hand it acknowledges no commit, on purpose: start it with `manada run`.\n" +
		"listen_addresses = ''\n" +
		"restart_after_crash = off\n" +
		"wal_log_hints = on\n" +
		"synchronous_standby_names = " + quote(cluster.HoldCommits().String()) + "\n"
}

// writeDataDirConf puts our files into a data directory (after initdb, clone or
// rewind, which bring somebody else's).
func writeDataDirConf(dir string) error {
	for name, text := range map[string]string{
		"postgresql.conf":      placeholderConf(),
		"postgresql.auto.conf": "# Do not edit this file manually!\n",
		"pg_hba.conf":          "# See the rendered pg_hba.conf in manada's run directory.\nlocal all all peer\n",
		"pg_ident.conf":        "",
	} {
		if err := durable.Write(filepath.Join(dir, name), []byte(text), durable.Options{}); err != nil {
			return err
		}
	}
	return nil
}

func socketName(port int) string { return fmt.Sprintf(".s.PGSQL.%d", port) }

// SocketPath is where PostgreSQL's unix socket is.
func SocketPath(runDir string, port int) (string, error) {
	dir, _, err := guardian.SocketDir(runDir, len(socketName(port)))
	return filepath.Join(dir, socketName(port)), err
}

// socketDirFor chooses where the unix socket goes.
func socketDirFor(cfg Config) (string, error) {
	dir, short, err := guardian.SocketDir(cfg.RunDir, len(socketName(cfg.Port)))
	if short && err == nil {
		cfg.Logger.Info("run directory's path is too long for a socket", "run_dir", cfg.RunDir, "socket_dir", dir)
	}
	return dir, err
}
