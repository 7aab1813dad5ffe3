package proxy_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/proxy"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"
)

// Whoever replicates through the proxy may not bear a standby's name, however
// he comes by it, also when he does not wait for answers.
func TestReplicationBearsNoStandbysName(t *testing.T) {
	f := start(t, unsplit)
	role := f.role(t, "login replication password 'pw'")
	named := f.twin(t, role)
	admin := connect(t, superuser(f.primary.addr()))
	if _, err := admin.Exec(t.Context(), "alter role "+named+" set application_name = 'db2@e1'"); err != nil {
		t.Fatal(err)
	}
	dial := func(role string, params map[string]string) (*pgconn.PgConn, error) {
		c, err := pgconn.ParseConfig(f.dsn(session.ReadWrite, role, "pw", "sslmode=require"))
		if err != nil {
			t.Fatal(err)
		}
		delete(c.RuntimeParams, "application_name")
		for k, v := range params {
			c.RuntimeParams[k] = v
		}
		conn, err := pgconn.ConnectConfig(t.Context(), c)
		if err == nil {
			t.Cleanup(func() { conn.Conn().Close() })
		}
		return conn, err
	}
	refused := func(what string, err error) {
		t.Helper()
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "42501" || !strings.Contains(e.Message, "application_name") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, kind := range []string{"true", "database", "tru"} {
		_, err := dial(role, map[string]string{"replication": kind, "application_name": "db2@e1"})
		refused("replication="+kind, err)
		_, err = dial(role, map[string]string{"replication": kind, "options": "-c application_name=db2~1"})
		refused("in the options, replication="+kind, err)
	}
	const ask = "IDENTIFY_SYSTEM"
	c, err := dial(named, map[string]string{"replication": "database"}) // without a database settings of roles do not apply
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Exec(t.Context(), ask).ReadAll()
	refused("by the role's settings", err)

	for _, how := range []string{"set application_name = 'db2@e1'", "select set_config('application' || '_name', 'db2' || chr(126) || '1', false)",
		`do $$ begin execute 'set application' || '_name = ''db2@e1'''; end $$`} {
		c, err := dial(role, map[string]string{"replication": "database", "application_name": "honest"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "select 1; select 2").ReadAll(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), how).ReadAll(); err != nil {
			t.Fatal(how, err)
		}
		_, err = c.Exec(t.Context(), "START_REPLICATION PHYSICAL 0/1000000").ReadAll()
		refused(how, err)

		// Both in one packet: the second is not passed on before the first is answered.
		c, err = dial(role, map[string]string{"replication": "database"})
		if err != nil {
			t.Fatal(err)
		}
		hijacked, err := c.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		both := message(message(nil, how), "START_REPLICATION PHYSICAL 0/1000000")
		if _, err := hijacked.Conn.Write(both); err != nil {
			t.Fatal(err)
		}
		_ = hijacked.Conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		b, _ := io.ReadAll(hijacked.Conn)
		said := string(b)
		if !strings.Contains(said, "42501") || strings.Contains(said, "W\x00\x00\x00") {
			t.Errorf("%s, in one packet: %q", how, said)
		}
	}
	eventually(t, "no walsender bears a standby's name", func() bool {
		return query[int64](t, admin, "select count(*) from pg_stat_replication where application_name ~ '[@~]' and usename <> 'postgres'") == 0
	})
	// An honest one streams; an ordinary session may be called as it likes.
	c, err = dial(role, map[string]string{"replication": "true", "application_name": "honest"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), ask).ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(role, map[string]string{"application_name": "me@home"}); err != nil {
		t.Fatal(err)
	}
}

// The roles of the list come from where the list says; those that only members
// have do not come through the proxy at all.
func TestReplicationFromWhereTheListSays(t *testing.T) {
	var near, far string
	f := start(t, unsplit)
	near = f.role(t, "login replication password 'pw'")
	far = f.twin(t, near)
	f = start(t, func(c *proxy.Config) {
		c.Replication = []cluster.Replicator{{Role: near, From: []string{"127.0.0.0/8"}}, {Role: far, From: []string{"192.0.2.1"}, Databases: []string{"postgres"}}}
	})
	try := func(role, kind string) error {
		c, err := pgconn.ParseConfig(f.dsn(session.ReadWrite, role, "pw", "sslmode=require"))
		if err != nil {
			t.Fatal(err)
		}
		if kind != "" {
			c.RuntimeParams["replication"] = kind
		}
		conn, err := pgconn.ConnectConfig(t.Context(), c)
		if err == nil {
			conn.Conn().Close()
		}
		return err
	}
	if err := try(near, "true"); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{"far": try(far, "true"), "far, database": try(far, "database"), "far, plain": try(far, ""),
		"near, a database that it has not": try(near, "database"),
		cluster.RoleReplication:            try(cluster.RoleReplication, "true"), cluster.RoleRewind: try(cluster.RoleRewind, "")} {
		if code(err) != "28000" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// message appends a simple query.
func message(b []byte, sql string) []byte {
	return wire.AppendMessage(b, wire.TypeQuery, append([]byte(sql), 0))
}

// twin makes a second role for replication.
func (f *fixture) twin(t *testing.T, role string) string {
	t.Helper()
	f.admin(t, "set password_encryption='scram-sha-256'; create role "+role+"_b login replication password 'pw'")
	t.Cleanup(func() {
		c, err := pgconn.Connect(context.Background(), superuser(f.primary.addr()))
		if err == nil {
			_, err = c.Exec(context.Background(), "select pg_terminate_backend(pid) from pg_stat_activity where usename = '"+role+"_b'; drop role "+role+"_b").ReadAll()
			c.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return role + "_b"
}
