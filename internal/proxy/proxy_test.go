package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// fixture is a running proxy in front of the herd.
type fixture struct {
	*herd
	*proxy.Proxy
	cfg  proxy.Config
	top  *route.Holder
	stop func() // ends Run and waits for it
}

// view is the herd in good order.
func (h *herd) view(epoch uint64) route.View {
	return route.View{Known: true, Epoch: epoch, Open: true, Primary: route.Node{Name: "master", Addr: h.primary.addr()},
		Standbys: []route.Standby{{Node: route.Node{Name: "slave", Addr: h.standby.addr()}, Streaming: true}},
		Members: []route.Member{{Node: route.Node{Name: "master", Addr: h.primary.addr()}, Up: true, Primary: true, LagBytes: -1},
			{Node: route.Node{Name: "slave", Addr: h.standby.addr()}, Up: true, State: "streaming", Sync: "quorum"}}}
}

func start(t testing.TB, change func(*proxy.Config)) *fixture {
	t.Helper()
	h := startHerd(t)
	f := &fixture{herd: h, top: &route.Holder{}}
	f.top.Set(h.view(7))
	cfg := proxy.DefaultConfig()
	cfg.ReadWriteAddr, cfg.ReadOnlyAddr = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Topology = f.top
	cfg.LookupPasswords = func() []string { return []string{"former secret", "proxy secret"} }
	cfg.MockSecret = "the same at every proxy"
	cfg.ClientTLS = &tls.Config{Certificates: []tls.Certificate{h.cert}}
	cfg.ConnectWait = 5 * time.Second
	cfg.DrainTimeout = time.Second
	cfg.Split = true
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	if change != nil {
		change(&cfg)
	}
	f.cfg = cfg
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Proxy = p
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	f.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the proxy does not stop")
		}
	}
	t.Cleanup(f.stop)
	return f
}

func (f *fixture) dsn(port session.Port, user, password, more string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/postgres?%s", user, password, f.Addr(port), more)
}

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func query[T any](t testing.TB, c *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// A role made with CREATE ROLE logs in at once, with TLS and without, on both
// ports, with PostgreSQL's own client and another.
func TestLogIn(t *testing.T) {
	f := start(t, unsplit)
	role := f.role(t, "login password 'pw1'")
	for _, mode := range []string{"disable", "require"} {
		for port, standby := range map[session.Port]bool{session.ReadWrite: false, session.ReadOnly: true} {
			c := connect(t, f.dsn(port, role, "pw1", "sslmode="+mode+"&application_name=app"))
			if got := query[bool](t, c, "select pg_is_in_recovery()"); got != standby {
				t.Errorf("%s, %s: in recovery %v", port, mode, got)
			}
			if got := query[string](t, c, "select current_user||' '||current_setting('application_name')"); got != role+" app" {
				t.Errorf("logged in as %q", got)
			}
			if c.PgConn().ParameterStatus("server_version") == "" || c.PgConn().PID() != query[uint32](t, c, "select pg_backend_pid()") {
				t.Error("settings or the process id are missing from the greeting")
			}
			c.Close(t.Context())
		}
		out, err := f.psql(t, session.ReadWrite, role, "pw1", "sslmode="+mode, "select 'hello from '||current_user")
		if err != nil || !strings.Contains(out, "hello from "+role) {
			t.Errorf("psql %s: %v\n%s", mode, err, out)
		}
	}
}

// psql runs a statement through the proxy with PostgreSQL's own client.
func (f *fixture) psql(t testing.TB, port session.Port, user, password, options, sql string) (string, error) {
	t.Helper()
	host, p, _ := strings.Cut(f.Addr(port).String(), ":")
	cmd := f.command("psql", "-XAtq", fmt.Sprintf("host=%s port=%s user=%s dbname=postgres %s", host, p, user, options), "-c", sql)
	cmd.Env = []string{"PGPASSWORD=" + password, "HOME=" + f.dir, "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestLogInRefused(t *testing.T) {
	var log lockedBuffer
	f := start(t, func(c *proxy.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	role := f.role(t, "login password 'right'")
	noLogin := strings.ReplaceAll(role, "refused", "nologin")
	md5 := strings.ReplaceAll(role, "refused", "md5")
	f.admin(t, fmt.Sprintf("create role %s password 'right'; create role %s login", noLogin, noLogin+"_nopw"))
	f.admin(t, fmt.Sprintf("set password_encryption='md5'; create role %s login password 'right'", md5))
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), superuser(f.primary.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background())
		c.Exec(context.Background(), fmt.Sprintf("drop role %s, %s, %s", noLogin, noLogin+"_nopw", md5))
	})
	for _, c := range []struct{ name, user, password, db, code, text string }{
		{"wrong password", role, "wrong", "postgres", "28P01", `password authentication failed for user "` + role + `"`},
		{"unknown role", "nobody_at_all", "right", "postgres", "28P01", `password authentication failed for user "nobody_at_all"`},
		{"no password stored", noLogin + "_nopw", "", "postgres", "28P01", "password authentication failed"},
		{"may not log in", noLogin, "right", "postgres", "28000", "is not permitted to log in"},
		{"no such database", role, "right", "missing", "3D000", `database "missing" does not exist`},
		{"md5", md5, "right", "postgres", "28P01", `password authentication failed for user "` + md5 + `"`},
		{"may not log in, wrong", noLogin, "wrong", "postgres", "28P01", "password authentication failed"},
	} {
		_, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", c.user, c.password, f.Addr(session.ReadWrite), c.db))
		if code(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %s %q", c.name, err, c.code, c.text)
		}
	}
	if out := log.String(); !strings.Contains(out, "user="+md5) || !strings.Contains(out, "password_encryption") {
		t.Errorf("the log does not name the fix: %s", out)
	}
	// A changed password counts at once.
	c := connect(t, f.dsn(session.ReadWrite, role, "right", "sslmode=disable"))
	if _, err := c.Exec(t.Context(), "alter role "+role+" password 'changed'"); err != nil {
		t.Fatal(err)
	}
	connect(t, f.dsn(session.ReadWrite, role, "changed", "sslmode=disable"))
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "right", "sslmode=disable")); code(err) != "28P01" {
		t.Errorf("the old password: %v", err)
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestTLSToServerAndRequired(t *testing.T) {
	f := start(t, func(c *proxy.Config) {
		c.PlainLocal, c.RequireTLS = false, true
		c.ServerTLS = &tls.Config{RootCAs: shared.roots}
	})
	role := f.role(t, "login password 'pw'")
	c := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=require"))
	if !query[bool](t, c, "select ssl from pg_stat_ssl where pid=pg_backend_pid()") {
		t.Error("PostgreSQL was reached without TLS")
	}
	if _, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")); code(err) != "28000" {
		t.Errorf("plain client: %v", err)
	}
	big := query[string](t, c, "select repeat('x', 3000000)")
	if len(big) != 3000000 {
		t.Errorf("%d bytes", len(big))
	}
}

func TestUntrustedServerFailsAtOnce(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.PlainLocal = false; c.ServerTLS = &tls.Config{} })
	begin := time.Now()
	_, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, "postgres", "postgres", "sslmode=disable"))
	if err == nil || time.Since(begin) > 3*time.Second || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

func unsplit(c *proxy.Config) { c.Split = false }
