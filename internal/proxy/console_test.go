package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"manada/internal/pgconnect"
	"manada/internal/proxy"
	"manada/internal/proxy/console"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func withSettings(c *proxy.Config) {
	c.Version = "1.2.3"
	c.Settings = func() []console.Setting {
		return []console.Setting{{Key: "proxy.max_clients", Value: "7", Default: "1000"}}
	}
}

// table runs a SHOW and gives its rows by column.
func table(t *testing.T, c *pgx.Conn, sql string) []map[string]any {
	t.Helper()
	rows, err := c.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Where a pool was given no size, what it may have is shown.
func TestConsoleShowsComputedPoolSize(t *testing.T) {
	f := pooled(t, rules.Auto, 0, func(c *proxy.Config) {
		c.NodeLimit = 37
		c.Settings = func() []console.Setting { return []console.Setting{{Key: "proxy.pool.size", Value: "0", Default: "0"}} }
	})
	role := f.role(t, "login password 'x'")
	query[int](t, connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable")), "select 1")
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	if got := table(t, c, "show databases")[0]["pool_size"]; got != int32(37) {
		t.Errorf("SHOW DATABASES has %v", got)
	}
	got := map[any]any{}
	for _, one := range table(t, c, "show config") {
		got[one["key"]] = one["value"]
	}
	if got["default_pool_size"] != "37" || got["proxy.pool.size"] != "0" {
		t.Errorf("SHOW CONFIG has %v", got)
	}
}

// The console is reached by its database's name, and shows the clients and servers
// that there are.
func TestConsoleShowsWhatIsThere(t *testing.T) {
	f := start(t, withSettings)
	role := f.role(t, "login password 'x'")
	app := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=require&application_name=shop"))
	pid := query[uint32](t, app, "select pg_backend_pid()")
	for _, name := range console.Databases {
		for _, port := range []session.Port{session.ReadWrite, session.ReadOnly} {
			c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/%s?sslmode=require", f.Addr(port), name))
			if got := table(t, c, "show version"); got[0]["version"] != "Manada 1.2.3" {
				t.Error(got)
			}
		}
	}
	uri := fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite))
	own, err := pgconnect.Open(t.Context(), pgconnect.Session{Conninfo: uri, Name: "manada uri"}) // as `manada uri` tries it
	if err != nil {
		t.Fatal(err)
	}
	own.Close(t.Context())
	c := connect(t, uri)
	clients := table(t, c, "show clients")
	if len(clients) != 1 {
		t.Fatalf("%v: the console's own are none", clients)
	}
	one := clients[0]
	if one["user"] != role || one["database"] != "postgres" || one["application_name"] != "shop" || !strings.HasPrefix(one["tls"].(string), "TLS 1.3/TLS_") || one["addr"] != "127.0.0.1" {
		t.Errorf("%v", one)
	}
	servers := table(t, c, "show servers")
	main := servers[0]
	if main["remote_pid"] != int32(pid) || main["link"] != one["ptr"] || one["link"] != main["ptr"] || main["port"] != int32(f.primary.port) {
		t.Errorf("%v\n%v, backend %d", one, main, pid)
	}
	query[int](t, app, "select count(*) from pg_class") // which a standby may answer
	pools := table(t, c, "show pools")
	if len(pools) != 1 || pools[0]["user"] != role || pools[0]["cl_active"] != int32(1) || pools[0]["sv_active"].(int32) < 1 || pools[0]["pool_mode"] != "session" {
		t.Errorf("%v", pools)
	}
	if d := table(t, c, "show databases"); len(d) != 1 || d[0]["name"] != "postgres" || d[0]["current_client_connections"] != int32(1) || d[0]["port"] != int32(f.primary.port) {
		t.Errorf("%v", d)
	}
	if u := table(t, c, "show users"); len(u) != 1 || u[0]["name"] != role {
		t.Errorf("%v", u)
	}
	for _, l := range table(t, c, "show lists") {
		if l["list"] == "used_clients" && l["items"] != int32(1) {
			t.Errorf("%v", l)
		}
	}
	if got := table(t, c, "show config"); len(got) != 2 || got[0]["value"] != "7" || got[1]["key"] != "max_client_conn" || got[1]["value"] != "7" {
		t.Errorf("%v", got)
	}
	if _, err := c.Exec(t.Context(), fmt.Sprintf("kill_client %d", one["id"])); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Exec(t.Context(), "select 1"); code(err) != "57P01" && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the client that was ended: %v", err)
	}
	eventually(t, "the client has left the list", func() bool { return len(table(t, c, "show clients")) == 0 })
	if _, err := c.Exec(t.Context(), "kill_client 999999"); code(err) != "42704" {
		t.Errorf("%v", err)
	}
}

// Who may what: superusers and members of manada_admin everything, members of
// pg_monitor SHOW, everybody else nothing. A wrong password is one here too.
func TestConsoleRights(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'x'")
	url := func(password string) string {
		return fmt.Sprintf("postgres://%s:%s@%s/manada?sslmode=disable", role, password, f.Addr(session.ReadWrite))
	}
	if _, err := pgx.Connect(t.Context(), url("x")); code(err) != "42501" || !strings.Contains(err.Error(), `permission denied for database "manada"`) {
		t.Errorf("%v", err)
	}
	f.admin(t, "grant pg_monitor to "+role)
	c := connect(t, url("x"))
	table(t, c, "show clients")
	if _, err := c.Exec(t.Context(), "disable x"); code(err) != "42501" {
		t.Errorf("%v", err)
	}
	f.admin(t, "create role manada_admin; grant manada_admin to "+role)
	f.afterwards(t, "drop role manada_admin")
	c = connect(t, url("x"))
	if _, err := c.Exec(t.Context(), "disable template1"); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := pgx.Connect(t.Context(), url("wrong")); code(err) != "28P01" {
		t.Errorf("%v", err)
	}
	f.admin(t, "alter role "+role+" nologin")
	if _, err := pgx.Connect(t.Context(), url("x")); code(err) != "28000" {
		t.Errorf("%v", err)
	}
}

func TestConsoleDisables(t *testing.T) {
	f := start(t, nil)
	db := f.freshDatabase(t)
	role := f.role(t, "login password 'x'")
	url := fmt.Sprintf("postgres://%s:x@%s/%s?sslmode=disable", role, f.Addr(session.ReadWrite), db)
	there := connect(t, url)
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/pgbouncer?sslmode=disable", f.Addr(session.ReadWrite)))
	if _, err := c.Exec(t.Context(), "disable "+db); err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(t.Context(), url); code(err) != "55000" || !strings.Contains(err.Error(), "is not currently accepting connections") {
		t.Errorf("%v", err)
	}
	query[int](t, there, "select 1") // who is in stays in
	if d := table(t, c, "show databases"); d[0]["name"] != db || d[0]["disabled"] != int32(1) {
		t.Errorf("%v", d)
	}
	if _, err := c.Exec(t.Context(), "enable "+db); err != nil {
		t.Fatal(err)
	}
	connect(t, url)
}

// A database of PostgreSQL's that has such a name is not hidden.
func TestConsoleHidesNoDatabase(t *testing.T) {
	f := start(t, nil)
	f.admin(t, "create database pgbouncer")
	f.afterwards(t, "drop database pgbouncer with (force)")
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/pgbouncer?sslmode=disable", f.Addr(session.ReadWrite)))
	if got := query[string](t, c, "select current_database()"); got != "pgbouncer" {
		t.Error(got)
	}
}

// When the proxy is full, there is a way in for those who look after it; and when it
// stops, they are told.
func TestConsoleOfAFullProxy(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.MaxClientConn = 1 })
	role := f.role(t, "login password 'x'")
	connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "x", "sslmode=disable")); code(err) != "53300" {
		t.Fatal(err)
	}
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	if len(table(t, c, "show clients")) != 1 {
		t.Error("the one client is not there")
	}
	go f.stop()
	if _, err := c.PgConn().ReceiveMessage(t.Context()); code(err) != "57P01" {
		t.Errorf("%v", err)
	}
}

// What waits at the console can be cancelled, by whichever protocol, and the client
// goes on.
func TestConsoleCancel(t *testing.T) {
	f := pooled(t, rules.Transaction, 2, nil)
	role := f.role(t, "login password 'x'")
	app := connect(t, f.dsn(session.ReadWrite, role, "x", "sslmode=disable"))
	tx, err := app.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	if _, err := c.Exec(t.Context(), "reconnect"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"wait_close", "pause"} {
		ended := make(chan error, 1)
		go func() {
			_, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
			ended <- err
		}()
		for done := false; !done; { // a request that comes too early cancels nothing
			if err := c.PgConn().CancelRequest(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if done = true; code(err) != "57014" {
					t.Errorf("%s: %v", sql, err)
				}
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	if len(table(t, c, "show version")) != 1 {
		t.Error("the console is gone")
	}
	if _, err := c.Exec(t.Context(), "resume"); code(err) != "55000" { // a PAUSE that was cancelled holds nothing
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
}

// RELOAD is the process's business: it is told what needs a restart.
func TestConsoleReload(t *testing.T) {
	fail := false
	f := start(t, func(c *proxy.Config) {
		c.ReadAgain = func(context.Context) ([]string, error) {
			if fail {
				return nil, errors.New("manada.yaml:3: nonsense")
			}
			return []string{"ports.sql"}, nil
		}
	})
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { said = n.Message }
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "reload"); err != nil || !strings.Contains(said, "ports.sql") {
		t.Errorf("%v, %q", err, said)
	}
	fail = true
	if _, err := c.Exec(t.Context(), "reload"); code(err) != "F0000" || !strings.Contains(err.Error(), "manada.yaml:3") {
		t.Errorf("%v", err)
	}
}
