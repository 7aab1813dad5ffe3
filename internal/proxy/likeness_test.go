package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A client of the read-write port gets what PostgreSQL would answer, whatever
// stands between.

func runSQL(t testing.TB, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// DateStyle is two settings, and a SET may change one of them.
func TestSplitDateStyle(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	direct := connect(t, strings.Replace(superuser(f.primary.addr()), "postgres:postgres@", role+":pw@", 1))
	c := f.reader(t, role, "")
	for _, set := range [][]string{{"dmy", "iso"}, {"german", "ymd"}, {"iso, mdy", "dmy", "sql", "default", "postgres", "dmy"}} {
		for _, v := range set {
			runSQL(t, direct, "set datestyle to "+v)
			runSQL(t, c, "set datestyle to "+v)
		}
		eventually(t, "the standby is fresh", func() bool { return onStandby(t, c) })
		const sql = "select '01/02/03'::date::text || ' ' || '2024-02-01'::date::text || standby from node"
		want := strings.TrimSuffix(query[string](t, direct, sql, simple), "false")
		if got := query[string](t, c, sql, simple); got != want+"true" {
			t.Errorf("%v: %s, want %s", set, got, want)
		}
	}
}

// Sessions keep the settings of their log-in: a second connection that would get
// others is not used.
func TestSplitRoleSettings(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.admin(t, fmt.Sprintf(`create schema t1 authorization %[1]s; create table t1.acc as select 'tenant1' v; grant select on t1.acc to %[1]s;
		create schema t2 authorization %[1]s; create table t2.acc as select 'tenant2' v; grant select on t2.acc to %[1]s;
		alter role %[1]s set search_path = t1, public`, role))
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), superuser(f.primary.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background())
		if _, err := c.Exec(context.Background(), "drop schema t1, t2 cascade"); err != nil {
			t.Error(err)
		}
	})
	before := []*pgx.Conn{connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")), connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))}
	f.admin(t, fmt.Sprintf("alter role %s set search_path = t2, public", role))
	standby := connect(t, superuser(f.standby.addr()))
	eventually(t, "the setting on the standby", func() bool {
		return query[bool](t, standby, "select exists (select from pg_db_role_setting where setconfig::text like '%t2, public%')")
	})
	for i, c := range before {
		for range 3 {
			if got := query[string](t, c, "select v from acc", simple); got != "tenant1" {
				t.Errorf("session %d of before: %s", i, got)
			}
		}
	}
	if got := query[string](t, f.reader(t, role, ""), "select v || standby from acc, public.node", simple); got != "tenant2true" {
		t.Errorf("a session of after: %s", got)
	}
}

// Questions about the node are the primary's: this is the primary's port.
func TestSplitNodeQuestions(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	c := f.reader(t, role, "")
	for sql, want := range map[string]string{
		"select pg_is_in_recovery()::text": "false", "select current_setting('transaction_read_only')": "off",
		"select current_setting('in_hot_standby')": "off", "select current_setting('default_transaction_read_only')": "off",
	} {
		if got := query[string](t, c, sql, simple); got != want {
			t.Errorf("%s: %s", sql, got)
		}
	}
	for range 6 {
		connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable&target_session_attrs=primary"))
	}
}

// raw takes a session over, for what no driver sends.
func (f *fixture) raw(t *testing.T, c *pgx.Conn) *pgproto3.Frontend {
	t.Helper()
	h, err := c.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	h.Conn.SetDeadline(time.Now().Add(10 * time.Second))
	return h.Frontend
}

func receive(t *testing.T, f *pgproto3.Frontend, want ...string) {
	t.Helper()
	for i, w := range want {
		m, err := f.Receive()
		if err != nil {
			t.Fatalf("message %d, want %s: %v", i, w, err)
		}
		got := strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
		if d, ok := m.(*pgproto3.DataRow); ok {
			got += " " + string(d.Values[0])
		}
		if e, ok := m.(*pgproto3.ErrorResponse); ok {
			got += " " + e.Code
		}
		if got != w {
			t.Fatalf("message %d: %s, want %s (%+v)", i, got, w, m)
		}
	}
}

func send(t *testing.T, f *pgproto3.Frontend, msgs ...pgproto3.FrontendMessage) {
	t.Helper()
	for _, m := range msgs {
		f.Send(m)
	}
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
}

// COPY by the extended protocol, as libpq sends it and as one that waits for the
// server's word before its Sync.
func TestCopyExtended(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.table(t, role, "copied", "i int")
	for name, early := range map[string]bool{"Sync with Execute": true, "Sync at the end": false} {
		c := f.reader(t, role, "")
		fe := f.raw(t, c)
		send(t, fe, &pgproto3.Parse{Query: "copy copied from stdin"}, &pgproto3.Bind{}, &pgproto3.Execute{})
		if early {
			send(t, fe, &pgproto3.Sync{})
		}
		receive(t, fe, "ParseComplete", "BindComplete", "CopyInResponse")
		send(t, fe, &pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
		receive(t, fe, "CommandComplete", "ReadyForQuery")
		eventually(t, name+": reads on the standby again", func() bool {
			send(t, fe, &pgproto3.Query{String: "select standby from node"})
			receive(t, fe, "RowDescription")
			m, err := fe.Receive()
			if err != nil {
				t.Fatal(err)
			}
			on := string(m.(*pgproto3.DataRow).Values[0]) == "t"
			receive(t, fe, "CommandComplete", "ReadyForQuery")
			return on
		})
		// An error while the data come: the first Sync was read with them.
		send(t, fe, &pgproto3.Parse{Query: "copy copied from stdin"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
		receive(t, fe, "ParseComplete", "BindComplete", "CopyInResponse")
		send(t, fe, &pgproto3.CopyData{Data: []byte("no number\n")})
		send(t, fe, &pgproto3.CopyDone{}, &pgproto3.Sync{})
		receive(t, fe, "ErrorResponse 22P02", "ReadyForQuery")
		send(t, fe, &pgproto3.Query{String: "select 7"})
		receive(t, fe, "RowDescription", "DataRow 7", "CommandComplete", "ReadyForQuery")
	}
	stopped := time.Now()
	f.stop() // nobody is owed anything
	if d := time.Since(stopped); d > 900*time.Millisecond {
		t.Errorf("stopping took %s", d)
	}
}

// The unnamed statement of a read that a standby has answered can be used again,
// by the primary, which describes it, and by a read.
func TestSplitUnnamedAgain(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	fe := f.raw(t, f.reader(t, role, ""))
	run := []pgproto3.FrontendMessage{&pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}}
	send(t, fe, append([]pgproto3.FrontendMessage{&pgproto3.Parse{Query: "select standby from node"}}, run...)...)
	receive(t, fe, "ParseComplete", "BindComplete", "DataRow t", "CommandComplete", "ReadyForQuery")
	send(t, fe, run...)
	receive(t, fe, "BindComplete", "DataRow t", "CommandComplete", "ReadyForQuery")
	send(t, fe, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Sync{})
	receive(t, fe, "ParameterDescription", "RowDescription", "ReadyForQuery")
	send(t, fe, run...)
	receive(t, fe, "BindComplete", "DataRow t", "CommandComplete", "ReadyForQuery")
}

// Who hides warnings gets none, through transactions and on a standby, and who
// shows them again gets them, as from PostgreSQL itself.
func TestWarningsAsFromPostgreSQL(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.admin(t, "alter role "+role+" set client_min_messages = error")
	const warn = "commit" // outside a transaction
	for _, options := range []string{"", "&client_min_messages=notice", "&options=-c%20client_min_messages%3Derror"} {
		var notices [2][]string
		for i, dsn := range []string{strings.Replace(superuser(f.primary.addr()), "postgres:postgres@", role+":pw@", 1), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")} {
			cfg, err := pgx.ParseConfig(dsn + options)
			if err != nil {
				t.Fatal(err)
			}
			cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices[i] = append(notices[i], n.Severity+" "+n.Message) }
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.Background())
			for n, sql := range []string{"", "set client_min_messages = warning", "set client_min_messages = error", "begin; set client_min_messages = notice; commit",
				"begin; set client_min_messages = error; rollback", "begin", "set local client_min_messages = error", "savepoint a", "commit", "set client_min_messages to 'nonsense'",
				"reset client_min_messages", "select set_config('client_min_messages', 'error', false)", "reset all", "set client_min_messages = warning", "discard all"} {
				c.PgConn().Exec(t.Context(), sql).ReadAll()
				notices[i] = append(notices[i], fmt.Sprint(n, " ", sql))
				if c.PgConn().TxStatus() == 'I' {
					runSQL(t, c, warn)
				} else {
					runSQL(t, c, "begin") // warns too
				}
				for _, mode := range []pgx.QueryExecMode{simple, pgx.QueryExecModeExec} {
					if _, err := c.Exec(t.Context(), "select 1", mode); err != nil {
						t.Fatal(err)
					}
				}
			}
			c.Close(t.Context())
		}
		if got, want := strings.Join(notices[1], "\n"), strings.Join(notices[0], "\n"); got != want {
			t.Errorf("%q:\n%s\nwant:\n%s", options, got, want)
		}
		if len(notices[0]) == 15 {
			t.Error("nothing warned")
		}
	}
}

// When the server has said good-bye nobody repeats it.
func TestOneFarewell(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	cut := newStall(t, f.primary.addr())
	v := f.view(7)
	v.Primary.Addr = cut.addr
	f.top.Set(v)
	c := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
	fe := f.raw(t, c)
	f.admin(t, "select pg_terminate_backend(pid) from pg_stat_activity where usename = '"+role+"'")
	f.top.Set(gap())
	receive(t, fe, "ErrorResponse 57P01")
	if m, err := fe.Receive(); err == nil {
		t.Errorf("and then %+v", m)
	}
}

// At the limit of PostgreSQL's connections the client gets PostgreSQL's words.
func TestNodeIsFull(t *testing.T) {
	f := start(t, func(c *proxy.Config) { c.ConnectWait = 20 * time.Second })
	role := f.role(t, "login password 'pw'")
	full := refusing(t, "53300", "sorry, too many clients already")
	f.top.Set(route.View{Known: true, Epoch: 7, Open: true, Primary: route.Node{Name: "master", Addr: full}})
	var e *pgconn.PgError
	_, err := pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
	if !errors.As(err, &e) || e.Code != "53300" || e.Message != "sorry, too many clients already" {
		t.Errorf("%v", err)
	}
	// A standby that has room for the look-up does not hide it either.
	v := f.view(7)
	v.Primary.Addr = full
	f.top.Set(v)
	_, err = pgx.Connect(t.Context(), f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
	if !errors.As(err, &e) || e.Code != "53300" || e.Message != "sorry, too many clients already" {
		t.Errorf("looked up on the standby: %v", err)
	}
}

// refusing is a server that answers every client with an error.
func refusing(t *testing.T, code, message string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b := pgproto3.NewBackend(conn, conn)
			if _, err := b.ReceiveStartupMessage(); err == nil {
				b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
				b.Flush()
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}
