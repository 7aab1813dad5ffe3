package console

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// show is one of the tables. There is one row per element; wired says whether the
// source has it.
type show struct {
	name  string
	cols  []column
	wired func(*Source) bool
	rows  func(*Source) []row
	// hidden: it is for drivers, and no table of the proxy's.
	hidden bool
}

var socketColumns = columns("type", "user", "database", "replication", "state", "addr", "port:i", "local_addr", "local_port:i",
	"connect_time", "request_time", "wait:i", "wait_us:i", "close_needed:i", "ptr", "link", "remote_pid:i", "tls", "application_name",
	"prepared_statements:i", "id:i")

// shows are the tables, and the settings that drivers ask for.
var shows = slices.Concat([]show{
	table("CLIENTS", func(s *Source) bool { return s.Clients != nil }, clients, socketColumns),
	table("SERVERS", func(s *Source) bool { return s.Servers != nil }, servers, socketColumns),
	table("POOLS", func(s *Source) bool { return s.Pools != nil }, pools, columns("database", "user", "cl_active:i", "cl_waiting:i", "cl_active_cancel_req:i",
		"cl_waiting_cancel_req:i", "sv_active:i", "sv_active_cancel:i", "sv_being_canceled:i", "sv_idle:i", "sv_used:i", "sv_tested:i", "sv_login:i",
		"maxwait:i", "maxwait_us:i", "pool_mode", "load_balance_hosts")),
	table("DATABASES", func(s *Source) bool { return s.Databases != nil }, databases, columns("name", "host", "port:i", "database", "force_user", "pool_size:i",
		"min_pool_size:i", "reserve_pool_size:i", "server_lifetime:i", "pool_mode", "load_balance_hosts", "max_connections:i", "current_connections:i",
		"max_client_connections:i", "current_client_connections:i", "paused:i", "disabled:i")),
	table("USERS", func(s *Source) bool { return s.Users != nil }, users, columns("name", "pool_size", "reserve_pool_size", "pool_mode",
		"max_user_connections:i", "current_connections:i", "max_user_client_connections:i", "current_client_connections:i")),
	table("STATS", hasStats, func(s *Source) []row { return stats(s, true, true) }, statColumns("total_", "avg_")),
	table("STATS_TOTALS", hasStats, func(s *Source) []row { return stats(s, true, false) }, statColumns("", "-")),
	table("STATS_AVERAGES", hasStats, func(s *Source) []row { return stats(s, false, true) }, statColumns("-", "averages")),
	table("TOTALS", func(s *Source) bool { return s.Sum != nil }, totals, columns("name", "value:n")),
	table("PINS", func(s *Source) bool { return s.Pins != nil }, pins, columns("id:i", "user", "database", "application_name", "reason")),
	table("LISTS", func(s *Source) bool {
		return s.Databases != nil && s.Users != nil && s.Pools != nil && s.Clients != nil && s.Servers != nil
	}, lists, columns("list", "items:i")),
	table("STATE", func(s *Source) bool { return s.Paused != nil }, state, columns("key", "value")),
	table("CONFIG", func(s *Source) bool { return s.Config != nil }, config, columns("key", "value", "default", "changeable")),
	table("VERSION", func(*Source) bool { return true }, func(s *Source) []row { return []row{{"Manada " + s.Version}} }, columns("version")),
}, driverSettings())

func table(name string, wired func(*Source) bool, rows func(*Source) []row, cols []column) show {
	return show{name: name, cols: cols, wired: wired, rows: rows}
}

// driverSettings are those that PgBouncer shows to drivers, too.
func driverSettings() (out []show) {
	for _, name := range []string{"client_encoding", "datestyle", "timezone", "standard_conforming_strings", "default_transaction_isolation"} {
		value := "read committed"
		for _, p := range Parameters {
			if strings.EqualFold(p[0], name) {
				value = p[1]
			}
		}
		one := table(name, func(*Source) bool { return true }, func(*Source) []row { return []row{{value}} }, columns(name))
		one.hidden = true
		out = append(out, one)
	}
	return out
}

// statColumns are the columns of the statistics with prefixes for totals and
// averages; "-" leaves them out. PgBouncer's names are not of one piece, and
// monitoring reads them as they are.
func statColumns(total, average string) []column {
	names := []string{"server_assignment_count", "xact_count", "query_count", "received", "sent", "xact_time", "query_time", "wait_time",
		"client_parse_count", "server_parse_count", "bind_count", "client_login_count"}
	list := []string{"database"}
	for _, n := range names {
		switch {
		case total == "" && (n == "received" || n == "sent"):
			list = append(list, "bytes_"+n+":n")
		case total != "-":
			list = append(list, total+n+":n")
		}
	}
	for i, n := range names {
		switch {
		case average == "avg_" && n == "received":
			list = append(list, "avg_recv:n")
		case average == "avg_", average == "averages" && i >= 8:
			list = append(list, "avg_"+n+":n")
		case average == "averages" && (n == "received" || n == "sent"):
			list = append(list, "bytes_"+n+":n")
		case average == "averages":
			list = append(list, n+":n")
		}
	}
	return columns(list...)
}

func hasStats(s *Source) bool { return s.Stats != nil }

func stats(s *Source, total, average bool) []row {
	var out []row
	for _, st := range s.Stats() {
		r := row{st.Database}
		if total {
			r = append(r, st.Total.row()...)
		}
		if average {
			r = append(r, st.Average.row()...)
		}
		out = append(out, r)
	}
	return out
}

func (c Counts) row() row {
	return row{c.Assignments, c.Transactions, c.Queries, c.Received, c.Sent, c.TransactionTime, c.QueryTime, c.Wait,
		c.ClientParses, c.ServerParses, c.Binds, c.Logins}
}

// totals are of all databases together. PgBouncer's names differ from those of its other tables.
func totals(s *Source) (out []row) {
	names := []string{"server_assignment_count", "xact_count", "query_count", "client_bytes", "server_bytes", "xact_time", "query_time", "wait_time",
		"ps_client_parse_count", "ps_server_parse_count", "ps_bind_count", "client_login_count"}
	st := s.Sum()
	for i, v := range st.Total.row() {
		out = append(out, row{"total_" + names[i], v})
	}
	for i, v := range st.Average.row() {
		out = append(out, row{"avg_" + names[i], v})
	}
	return out
}

func state(s *Source) []row {
	yes := map[bool]string{true: "yes", false: "no"}
	return []row{{"active", yes[!s.Paused()]}, {"paused", yes[s.Paused()]}}
}

func clients(s *Source) []row {
	var out []row
	for _, c := range s.Clients() {
		wait, us := seconds(c.Wait)
		host, port := split(c.Addr)
		local, localPort := split(c.Local)
		out = append(out, row{"C", c.User, c.Database, c.Replication, c.State, host, port, local, localPort, moment(c.Connected), moment(c.Requested),
			wait, us, 0, pointer(c.ID), pointer(c.Server), 0, c.TLS, c.ApplicationName, c.Prepared, int64(c.ID)})
	}
	return out
}

func servers(s *Source) []row {
	var out []row
	for _, c := range s.Servers() {
		host, port := split(c.Addr)
		local, localPort := split(c.Local)
		out = append(out, row{"S", c.User, c.Database, c.Replication, c.State, host, port, local, localPort, moment(c.Connected), moment(c.Requested),
			0, 0, c.CloseNeeded, pointer(c.ID), pointer(c.Client), int64(c.PID), c.TLS, c.ApplicationName, c.Prepared, int64(c.ID)})
	}
	return out
}

// pointer is an ID where PgBouncer shows an address.
func pointer(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("0x%x", id)
}

func split(addr string) (host string, port int) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, 0 // a unix socket
	}
	port, _ = strconv.Atoi(p)
	return host, port
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 MST")
}

// seconds takes a duration apart into seconds and microseconds.
func seconds(d time.Duration) (s, us int64) {
	return int64(d / time.Second), int64(d % time.Second / time.Microsecond)
}

func pools(s *Source) []row {
	var out []row
	for _, p := range s.Pools() {
		wait, us := seconds(p.MaxWait)
		out = append(out, row{p.Database, p.User, p.Active, p.Waiting, 0, 0, p.Servers, 0, p.Cancelled, p.Idle, 0, p.Reset, p.Login, wait, us, p.Mode, nil})
	}
	return out
}

func databases(s *Source) []row {
	var out []row
	for _, d := range s.Databases() {
		out = append(out, row{d.Name, or(d.Host), d.Port, d.Name, nil, d.Size, d.Min, d.Reserve, int64(d.Lifetime / time.Second), or(d.Mode), nil,
			d.MaxServers, d.Servers, d.MaxClients, d.Clients, d.Paused, d.Disabled})
	}
	return out
}

// or is a text, or NULL when it is empty.
func or(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func users(s *Source) []row {
	var out []row
	for _, u := range s.Users() {
		out = append(out, row{u.Name, u.Size, u.Reserve, or(u.Mode), 0, u.Servers, u.MaxClients, u.Clients})
	}
	return out
}

func pins(s *Source) []row {
	var out []row
	for _, p := range s.Pins() {
		out = append(out, row{int64(p.ID), p.User, p.Database, p.ApplicationName, p.Reason})
	}
	return out
}

func lists(s *Source) []row {
	waiting := 0
	for _, p := range s.Pools() {
		waiting += p.Login
	}
	return []row{{"databases", len(s.Databases())}, {"users", len(s.Users())}, {"peers", 0}, {"pools", len(s.Pools())}, {"peer_pools", 0},
		{"free_clients", 0}, {"used_clients", len(s.Clients())}, {"login_clients", 0}, {"free_servers", 0}, {"used_servers", len(s.Servers())},
		{"dns_names", 0}, {"dns_zones", 0}, {"dns_queries", 0}, {"dns_pending", 0}}
}

// find finds a table that the source has.
func find(s *Source, name string) *show {
	for i := range shows {
		if strings.EqualFold(shows[i].name, name) && shows[i].wired(s) {
			return &shows[i]
		}
	}
	return nil
}
