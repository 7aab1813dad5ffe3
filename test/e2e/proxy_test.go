package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"

	"github.com/jackc/pgx/v5"
)

// proxyFromAfar: a host with nothing but a proxy is asked, and given orders, from other
// hosts, each of which knows its own file alone; what is wrong is said with a code.
func proxyFromAfar(t *testing.T) {
	e := shared(t, time.Minute)
	e.healthy()
	of := func(host string, args ...string) result {
		return e.bare(append([]string{"proxy"}, append(args, "-c", filepath.Join(e.Data, host, "manada.yaml"))...)...)
	}
	for _, host := range []string{"slave", "backup", "proxy"} {
		for _, args := range [][]string{{"show", "pools"}, {"show", "databases", "--node", "proxy"}, {"show", "pools", "--herd"}} {
			if r := e.ok(of(host, args...)); !strings.Contains(r.out, "postgres") || strings.HasPrefix(r.out, "proxy ") != (args[len(args)-1] == "--herd") {
				t.Errorf("%s: proxy %v: %+v", host, args, r)
			}
		}
		e.ok(of(host, "disable", "postgres"))
		e.ok(of(host, "enable", "postgres", "--node", "proxy"))
		e.ok(of(host, "reload"))
		for _, wrong := range []struct {
			code int
			says string
			args []string
		}{
			{2, "no such database: nosuch", []string{"pause", "nosuch"}}, {2, "no such database: nosuch", []string{"disable", "nosuch"}},
			{1, "database postgres is not paused", []string{"resume", "postgres"}}, {1, "nothing is paused", []string{"resume"}},
			{1, "postgres is not disabled", []string{"enable", "postgres"}}, {2, "there is no client 99999", []string{"kill-client", "99999"}},
			{2, "not abc", []string{"kill-client", "abc"}}, {2, "ID is missing", []string{"kill-client"}}, {2, "one argument too many", []string{"reload", "x"}},
			{2, "there is no host nosuch", []string{"pause", "--node", "nosuch"}}, {2, "no table nosuch", []string{"show", "nosuch"}},
			{2, "no table nosuch", []string{"show", "nosuch", "--herd"}}, {2, "--herd wants a table", []string{"show", "--herd"}},
			{1, "no proxy of slave is heard", []string{"show", "pools", "--node", "slave"}},
		} {
			e.refused(of(host, wrong.args...), wrong.code, wrong.says)
		}
	}
	e.ok(of("slave", "pause", "template1"))
	e.refused(of("backup", "pause", "template1"), 1, "database template1 is already paused")
	e.ok(of("slave", "resume", "template1"))
	if err := e.StopHost(e.ctx, "proxy"); err != nil {
		t.Fatal(err)
	}
	e.refused(of("slave", "show", "pools", "--node", "proxy"), 1, "no proxy of proxy is heard")
	e.refused(of("proxy", "show", "pools"), 1, "the proxy of proxy does not answer")
	e.refused(of("slave", "show", "pools", "--herd"), 1, "not shown is the proxy of proxy")
	if err := e.StartHost(e.ctx, "proxy"); err != nil {
		t.Fatal(err)
	}
	e.ok(of("slave", "show", "pools"))
}

// proxyOrders: a reload reaches the proxy without ending a client, the same tables and
// orders are there at the console and at the command line, and a database of the
// console's name is told of.
func proxyOrders(t *testing.T) {
	e := shared(t, time.Minute)
	e.healthy()
	uri := strings.TrimSpace(e.ok(e.manada("uri")).out)
	connect := func(database string) *pgx.Conn {
		cfg, err := pgx.ParseConfig(uri)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Database, cfg.DefaultQueryExecMode = database, pgx.QueryExecModeSimpleProtocol
		c, err := pgx.ConnectConfig(e.ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(e.ctx) })
		return c
	}
	app, console := connect("postgres"), connect("manada")
	if _, err := app.Exec(e.ctx, "select 1"); err != nil {
		t.Fatal(err)
	}
	setting := func(key string) (value string) {
		rows, err := console.Query(e.ctx, "show config")
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowToMap)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r["key"] == key {
				return r["value"].(string)
			}
		}
		return ""
	}

	file := filepath.Join(e.Data, "proxy", "manada.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(file, append(good[:len(good):len(good)], text...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		write("")
		e.ok(e.bare("reload", "-c", file))
	}()
	write("proxy: {max_clients: 321}\nlog: {keep: 7}\n")
	r := e.ok(e.bare("reload", "-c", file))
	if !strings.Contains(r.out, "proxy: reloaded, 2 keys changed") || !strings.Contains(r.err, "only after a restart of the host: log.keep") {
		t.Errorf("%+v", r)
	}
	e.eventually(20*time.Second, "the proxy's new limit", func() string {
		if v := setting("proxy.max_clients"); v != "321" {
			return v
		}
		return ""
	})
	write("proxy: {max_clients: nonsense}\n")
	e.refused(e.bare("reload", "-c", file), 2, "max_clients")
	if _, err := console.Exec(e.ctx, "reload"); err == nil || !strings.Contains(err.Error(), "max_clients") {
		t.Errorf("RELOAD of a file with a mistake: %v", err)
	}
	write("")
	if _, err := console.Exec(e.ctx, "reload"); err != nil {
		t.Errorf("RELOAD: %v", err)
	}
	if _, err := app.Exec(e.ctx, "select 1"); err != nil {
		t.Errorf("a reload has ended a client: %v", err)
	}

	var pools struct {
		Proxy string           `json:"proxy"`
		Rows  []map[string]any `json:"rows"`
	}
	if err := json.Unmarshal([]byte(e.ok(e.manada("proxy", "show", "pools", "-o", "json")).out), &pools); err != nil || pools.Proxy != "proxy" || len(pools.Rows) == 0 {
		t.Errorf("%v %+v", err, pools)
	}
	if out := e.ok(e.manada("proxy", "show")).out; !strings.Contains(out, "stats_totals\n") {
		t.Error(out)
	}
	e.refused(e.manada("proxy", "show", "nosuch"), 2, "no table nosuch")
	e.refused(e.manada("proxy", "kill"), 2, "--all")
	e.refused(e.manada("proxy", "disable"), 2, "DATABASE is missing")
	e.refused(e.manada("proxy", "resume", "postgres"), 1, "is not paused")
	e.refused(e.manada("proxy", "show", "pools", "--node", "nosuch"), 2, "no host nosuch")
	e.ok(e.manada("proxy", "disable", "postgres"))
	if out, err := exec.CommandContext(e.ctx, "psql", "-Xc", "select 1", uri).CombinedOutput(); err == nil || !strings.Contains(string(out), "not currently accepting connections") {
		t.Errorf("%v %s", err, out)
	}
	e.ok(e.manada("proxy", "enable", "postgres"))

	if _, err := app.Exec(e.ctx, "create database pgbouncer"); err != nil {
		t.Fatal(err)
	}
	told := func(s cluster.Status) bool {
		for _, c := range s.Conditions {
			if c.Code == "M-X04" {
				return strings.Contains(c.Text, "pgbouncer")
			}
		}
		return false
	}
	e.await("word of the database", told)
	if v := e.value(strings.Replace(uri, "/postgres?", "/pgbouncer?", 1), "select current_database()"); v != "pgbouncer" {
		t.Errorf("it leads to %s", v)
	}
	if _, err := app.Exec(e.ctx, "drop database pgbouncer with (force)"); err != nil {
		t.Fatal(err)
	}
	e.await("that word to be gone", func(s cluster.Status) bool { return !told(s) })
}
