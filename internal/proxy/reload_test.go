package proxy_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/console"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
)

// reload gives the proxy another configuration.
func (f *fixture) reload(t *testing.T, change func(*proxy.Config)) (restart []string) {
	t.Helper()
	change(&f.cfg)
	restart, err := f.Reload(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return restart
}

// A reload reaches pools, limits and those who come, and disconnects nobody.
func TestReload(t *testing.T) {
	f := pooled(t, rules.Transaction, 1, func(c *proxy.Config) { c.Settings = func() []console.Setting { return nil } })
	role := f.role(t, "login password 'x'")
	dsn := f.dsn(session.ReadWrite, role, "x", "sslmode=disable")
	a, b := connect(t, dsn), connect(t, dsn)

	// The pool grows: who waits for a server has one.
	tx, err := a.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := b.Exec(t.Context(), "select 1")
		answered <- err
	}()
	admin := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	f.reload(t, withSettings)
	if got := table(t, admin, "show config"); len(got) != 2 || got[0]["value"] != "7" {
		t.Errorf("a console that was there before shows %v", got)
	}
	eventually(t, "one waits", func() bool {
		return slices.ContainsFunc(table(t, admin, "show pools"), func(r map[string]any) bool { return r["user"] == role && r["cl_waiting"] == int32(1) })
	})
	if restart := f.reload(t, func(c *proxy.Config) { c.Pool.Default.Size = 2 }); len(restart) != 0 {
		t.Errorf("needs a restart: %v", restart)
	}
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the pool has not grown")
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}

	// Another mode is for those who come.
	f.reload(t, func(c *proxy.Config) { c.Pool.Default.Mode = rules.Statement })
	strict := connect(t, dsn)
	if _, err := strict.Exec(t.Context(), "begin"); code(err) != "08P01" {
		t.Errorf("statement mode: %v", err)
	}
	if tx, err = a.Begin(t.Context()); err != nil {
		t.Errorf("who was there before: %v", err)
	}
	// Time-outs are for everybody.
	f.reload(t, func(c *proxy.Config) { c.IdleTxTimeout = 200 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := a.PgConn().ReceiveMessage(ctx); code(err) != "25P03" {
		t.Errorf("idle in a transaction: %v", err)
	}
	// As is who may log in, and how many.
	f.reload(t, func(c *proxy.Config) {
		c.HBA = []string{"host all " + role + " 127.0.0.1/32 reject", "host all all all scram-sha-256"}
	})
	if _, err := pgx.Connect(t.Context(), dsn); code(err) != "28000" {
		t.Errorf("rejected by pg_hba.conf: %v", err)
	}
	f.reload(t, func(c *proxy.Config) { c.HBA, c.MaxClientConn = nil, 1 })
	if _, err := pgx.Connect(t.Context(), dsn); code(err) != "53300" {
		t.Errorf("one too many: %v", err)
	}
	query[int](t, b, "select 1") // who is in stays in
	restart := f.reload(t, func(c *proxy.Config) {
		_, port, _ := net.SplitHostPort(f.Addr(session.ReadOnly).String())
		c.MaxClientConn, c.ReadOnlyAddr = 100, "127.0.0.2:"+port
	})
	if !slices.Equal(restart, []string{"ports.read_only"}) {
		t.Errorf("needs a restart: %v", restart)
	}
	connect(t, dsn)
	query[int](t, b, "select 1")
}

// What is wrong changes nothing.
func TestReloadOfMistakes(t *testing.T) {
	f := pooled(t, rules.Transaction, 1, nil)
	bad := f.cfg
	bad.MaxClientConn, bad.Pool.Default.Mode = 0, rules.Session
	if _, err := f.Reload(bad); err == nil {
		t.Fatal("was taken")
	}
	if f.Status().MaxClient != f.cfg.MaxClientConn {
		t.Error("a half of it was taken")
	}
}
