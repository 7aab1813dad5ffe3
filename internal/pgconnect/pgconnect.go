package pgconnect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
)

// settings are those by which the owner of a database (ALTER DATABASE ... SET)
// or of a role could change what our statements do, who runs them, or whether
// they run at all. A setting of the start-up packet beats them.
var settings = map[string]string{
	"search_path":                         "pg_catalog, pg_temp",
	"role":                                "none",
	"local_preload_libraries":             "",
	"default_transaction_read_only":       "off",
	"default_transaction_isolation":       "read committed", // serializable fails on a standby
	"default_transaction_deferrable":      "off",
	"default_tablespace":                  "",
	"default_table_access_method":         "heap",
	"standard_conforming_strings":         "on", // how our literals are quoted
	"transform_null_equals":               "off",
	"row_security":                        "on",
	"client_encoding":                     "UTF8",
	"datestyle":                           "ISO",
	"intervalstyle":                       "postgres",
	"bytea_output":                        "hex",
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
	"idle_session_timeout":                "0",
	"synchronous_commit":                  "on",
}

// Settings are the start-up parameters of a session of ours, but for user and
// database: what name (its application_name) and role need. more comes on top.
func Settings(role, name string, more map[string]string) map[string]string {
	m := maps.Clone(settings)
	m["application_name"] = name
	m["session_authorization"] = role // the role that logs in, whatever the database says
	maps.Copy(m, more)
	return m
}

// Local is the connection string of a log-in over the unix socket in dir,
// where the user of the operating system is what counts.
func Local(dir string, port int, role string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", quote(dir), port, quote(role), quote(cluster.Database))
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// Session is a connection to be made.
type Session struct {
	Conninfo string            // complete: what it leaves out comes from the environment
	Password string            // empty: that of Conninfo
	Name     string            // application_name
	TLS      *tls.Config       // in the place of what Conninfo says of it; nil: Conninfo's
	More     map[string]string // start-up parameters on top of Settings
	// Patience is for how long to try again while all connections are taken: the
	// agent beside PostgreSQL makes room.
	Patience time.Duration
}

// Open connects.
func Open(ctx context.Context, s Session) (*pgconn.PgConn, error) {
	c, err := pgconn.ParseConfig(s.Conninfo)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	if s.Password != "" {
		c.Password = s.Password
	}
	if s.TLS != nil {
		c.TLSConfig = s.TLS
		for _, f := range c.Fallbacks {
			f.TLSConfig = s.TLS
		}
	}
	c.RuntimeParams = Settings(c.User, s.Name, s.More)
	for until := time.Now().Add(s.Patience); ; {
		conn, err := pgconn.ConnectConfig(ctx, c)
		if err == nil || !full(err) || time.Now().After(until) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// full: too_many_connections.
func full(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "53300"
}
