package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5/pgtype"
)

// What monitoring tools read, as they do: the exporter of Prometheus (lib/pq: settings
// in its start-up message, a ping of one semicolon, simple queries), Telegraf and Datadog
// (simple, and prepared), each of its tables and columns.
func TestMonitoringTools(t *testing.T) {
	f := start(t, withSettings)
	role := f.role(t, "login password 'x'")
	f.admin(t, "grant pg_monitor to "+role)
	app := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	query[int](t, app, "select 1")
	want := map[string][]string{
		"SHOW STATS": {"database", "total_query_count", "total_query_time", "total_received", "total_sent", "total_wait_time", "total_xact_count", "total_xact_time",
			"avg_query_count", "avg_query_time", "avg_recv", "avg_sent", "avg_wait_time", "avg_xact_count", "avg_xact_time", "total_server_assignment_count", "total_bind_count"},
		"SHOW STATS_TOTALS": {"database", "query_count", "bytes_received", "bytes_sent", "wait_time", "xact_count"},
		"SHOW POOLS": {"database", "user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us",
			"cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_being_canceled", "pool_mode"},
		"SHOW DATABASES": {"name", "host", "port", "database", "force_user", "pool_size", "reserve_pool_size", "pool_mode", "max_connections", "current_connections",
			"paused", "disabled", "min_pool_size", "max_client_connections", "current_client_connections"},
		"SHOW LISTS":   {"list", "items"},
		"SHOW CONFIG":  {"key", "value", "default", "changeable"},
		"SHOW VERSION": {"version"},
		"SHOW CLIENTS": {"user", "database", "state", "connect_time", "wait", "wait_us", "application_name"},
		"SHOW SERVERS": {"user", "database", "state", "connect_time", "remote_pid"},
		"SHOW TOTALS":  {"name", "value"},
		"SHOW STATE":   {"key", "value"},
	}
	more := map[string]string{
		"exporter":   "default_query_exec_mode=simple_protocol&extra_float_digits=2&client_encoding=UTF8&datestyle=ISO,%20MDY&application_name=pgbouncer_exporter",
		"telegraf":   "default_query_exec_mode=simple_protocol&application_name=telegraf",
		"prepared":   "default_query_exec_mode=cache_statement&extra_float_digits=3",
		"described":  "default_query_exec_mode=cache_describe",
		"unprepared": "default_query_exec_mode=exec",
	}
	for tool, params := range more {
		c := connect(t, fmt.Sprintf("postgres://%s:x@%s/pgbouncer?sslmode=disable&%s", role, f.Addr(session.ReadWrite), params))
		for _, sql := range []string{";", "SET extra_float_digits = 3", "set client_encoding to 'UTF8'", "SET datestyle TO 'ISO'"} {
			if _, err := c.Exec(t.Context(), sql); err != nil {
				t.Errorf("%s: %s: %v", tool, sql, err)
			}
		}
		for sql, columns := range want {
			for _, text := range []string{sql, sql + ";"} {
				rows := table(t, c, text)
				if len(rows) == 0 {
					t.Errorf("%s: %s has no row", tool, text)
					continue
				}
				for _, name := range columns {
					if _, ok := rows[0][name]; !ok {
						t.Errorf("%s: %s has no column %s", tool, text, name)
					}
				}
			}
		}
		for _, r := range table(t, c, "SHOW STATS") {
			if n, ok := r["total_query_count"].(pgtype.Numeric); r["database"] == "postgres" && (!ok || n.Int.Int64() < 1) {
				t.Errorf("%s: %v", tool, r["total_query_count"])
			}
		}
		if got := table(t, c, "show standard_conforming_strings")[0]["standard_conforming_strings"]; got != "on" {
			t.Errorf("%s: %v", tool, got)
		}
	}
}

// Mistakes at the console, each with a code and a sentence that says which it was.
func TestConsoleMistakes(t *testing.T) {
	f := start(t, nil)
	db := f.freshDatabase(t)
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	for _, s := range []struct{ sql, code, says string }{
		{"pause nosuch", "3D000", "no such database: nosuch"}, {"kill nosuch", "3D000", "nosuch"}, {"disable nosuch", "3D000", "nosuch"},
		{"reconnect nosuch", "3D000", "nosuch"}, {"wait_close nosuch", "3D000", "nosuch"},
		{"resume nosuch", "55000", "database nosuch is not paused"}, {"resume", "55000", "nothing is paused"}, {"enable " + db, "55000", "is not disabled"},
		{"pause " + db, "", ""}, {"pause " + db, "55000", "database " + db + " is already paused"}, {"resume " + db, "", ""}, {"resume " + db, "55000", "is not paused"},
		{"pause", "", ""}, {"pause", "55000", "already paused"}, {"resume", "", ""},
		{"kill_client 99999", "42704", "there is no client 99999"}, {"kill_client abc", "22023", "a client's id is a number, not abc"},
		{"shutdown", "0A000", "stopped with its host"}, {"show mem", "0A000", "no caches"},
	} {
		_, err := c.Exec(t.Context(), s.sql)
		if s.code == "" && err != nil || s.code != "" && (code(err) != s.code || !strings.Contains(err.Error(), s.says)) {
			t.Errorf("%s: %v, want %s %s", s.sql, err, s.code, s.says)
		}
	}
}

// Without PostgreSQL nobody knows which databases there are: orders are taken.
func TestConsoleOrdersWithoutPostgres(t *testing.T) {
	f := start(t, nil)
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	f.top.Set(gap())
	if _, err := c.Exec(t.Context(), "pause nosuch"); err != nil {
		t.Error(err)
	}
	if _, err := c.Exec(t.Context(), "resume nosuch"); err != nil {
		t.Error(err)
	}
}
