package postgres

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pgconnect"
	"manada/internal/postgres/pgtest"
	"manada/internal/proxy/catalog"
	"manada/internal/proxy/pool"
)

// TestOwnerOfDatabaseHijacksNoSession: whoever owns database postgres may shadow
// every function and operator there and choose the settings of every session.
// Ours go on, run nothing of his, and act as whom they logged in.
func TestOwnerOfDatabaseHijacksNoSession(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	for _, s := range pgtest.Hostile {
		a.sql(s)
	}
	hijacked := func() string {
		var out []string
		for _, n := range []*node{a, b} {
			log, err := os.ReadFile(n.cfg.LogFile)
			must(t, err)
			for _, line := range strings.Split(string(log), "\n") {
				if strings.Contains(line, pgtest.Hijacked+" by") && !strings.Contains(line, "STATEMENT") {
					out = append(out, line)
				}
			}
		}
		return strings.Join(out, "\n")
	}
	// It works against who does not take care, or the test means nothing.
	c, err := pgconn.Connect(ctx, pgconnect.Local(a.socketDir, a.cfg.Port, cluster.RoleSuperuser)+" statement_timeout=0")
	must(t, err)
	_, err = run(ctx, c, "select current_setting('port') where 1::oid = 2::oid or current_user is not null")
	must(t, err)
	must(t, c.Close(ctx))
	before := hijacked()
	if !strings.Contains(before, "by app: current_setting") || !strings.Contains(before, "operator") {
		t.Fatalf("the reproduction does not work: %q", before)
	}
	a.Close() // new sessions
	b.Close()

	for _, n := range []*node{a, b} {
		for range 3 {
			n.observe()
		}
		_, err := n.Enforce(ctx)
		must(t, err)
		must(t, n.EnsureSlots(ctx, []SlotWanted{{Name: "manada_x"}}))
		_, err = n.Facts(ctx)
		must(t, err)
		until(t, "a probe", func() bool { return n.observe().NewConnection == nil })
		for range 2 {
			positions := &pool.Positions{Dialer: ownDialer(), User: cluster.RoleProxy, Passwords: func() []string { return []string{testPasswords.Proxy} }, Database: cluster.Database, Timeout: 5 * time.Second}
			if n == a {
				_, err = positions.Written(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(n.cfg.Port)))
			} else {
				_, err = positions.Replayed(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(n.cfg.Port)))
			}
			must(t, err)
			positions.Close()
		}
		verifiers := &pool.Verifiers{Dialer: ownDialer(), User: cluster.RoleProxy, Passwords: func() []string { return []string{testPasswords.Proxy} }, Database: cluster.Database, Timeout: 5 * time.Second}
		s, err := verifiers.Lookup(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(n.cfg.Port)), "app", cluster.Database)
		must(t, err)
		if !s.Exists || !strings.HasPrefix(s.Password, "SCRAM-SHA-256$") || s.Rights.Refuse("app", cluster.Database, 0, 0) != nil {
			t.Errorf("look-up of app on %s: %+v", n.cfg.Node, s)
		}
		verifiers.Close()
		asker := &pool.Asker{Dialer: ownDialer(), User: cluster.RoleProxy, Passwords: func() []string { return []string{testPasswords.Proxy} }, Timeout: 20 * time.Second}
		names, err := catalog.Read(ctx, cluster.Database, func(ctx context.Context, database, sql string, params []string, columns int, row func([]string) error) error {
			return asker.Ask(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(n.cfg.Port)), database, sql, params, columns, row)
		})
		must(t, err)
		if names.Dangerous([]byte("lower")) { // app's does no more than log
			t.Errorf("%d dangerous names on %s", names.Len(), n.cfg.Node)
		}
		asker.Leave("")
	}
	must(t, a.WriteControl(ctx, 1, "a", "nonce-2"))
	must(t, a.Nudge(ctx))
	must(t, a.Checkpoint(ctx))
	must(t, b.checkSource(ctx, a.source(1), "manada:test:b", ""))
	w, err := pgconnect.Open(ctx, pgconnect.Session{Conninfo: pgconnect.Local(a.socketDir, a.cfg.Port, cluster.RoleBackup), Name: "manada:backup:a"})
	must(t, err)
	defer w.Close(ctx)
	r, err := run(ctx, w, "select current_user, pg_is_in_recovery(), pg_create_restore_point('x'), pg_walfile_name(pg_switch_wal()), current_setting('data_directory')")
	must(t, err)
	if string(r[0][0][0]) != cluster.RoleBackup || boolOf(r[0][0][1]) {
		t.Errorf("the backup's session is of %s", r[0][0][0])
	}
	_, err = run(ctx, w, "select pg_backup_start('x', true); select lsn from pg_backup_stop(false)")
	must(t, err)
	if now := hijacked(); now != before {
		t.Errorf("sessions of ours were hijacked:\n%s", strings.TrimPrefix(now, before))
	}
	if v := a.sql("select rolsuper from pg_roles where rolname = 'app'"); v != "f" {
		t.Error("app has become a superuser")
	}
}

func ownDialer() *pool.Dialer {
	return &pool.Dialer{PlainLocal: true, ConnectTimeout: 5 * time.Second, LoginTimeout: 5 * time.Second}
}
