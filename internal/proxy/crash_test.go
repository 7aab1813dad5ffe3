package proxy_test

import (
	"errors"
	"testing"

	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The primary's host dies: its connections break, and after a while another leads.
// Clients that share connections see no more of it than they have to.
func TestCrashOfThePrimary(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Transaction, rules.Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 10, nil)
			role := f.role(t, "login password 'x'")
			f.admin(t, "create table crash(i int); grant all on crash to "+role)
			f.afterwards(t, "drop table crash")
			cable := newStall(t, f.primary.addr())
			v := f.view(7)
			v.Primary.Addr = cable.addr
			f.top.Set(v)
			dsn := f.dsn(session.ReadWrite, role, "x", "sslmode=disable&default_query_exec_mode=simple_protocol")
			idle, open, reads, writes, commits := connect(t, dsn), connect(t, dsn), connect(t, dsn), connect(t, dsn), connect(t, dsn)
			if _, err := idle.Prepare(t.Context(), "st", "select 'prepared ' || $1::text"); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*pgx.Conn{reads, writes, open, commits} { // four servers
				must(t, c, "begin")
			}
			must(t, reads, "rollback")
			must(t, writes, "rollback")
			must(t, open, "insert into crash values (1)")
			must(t, commits, "insert into crash values (2)")

			cable.swallow() // what is sent from here on reaches nobody
			reading, writing, committing := execs(t, reads, "select 42"), execs(t, writes, "insert into crash values (3)"), execs(t, commits, "commit work")
			eventually(t, "all is sent", func() bool { return cable.saw("select 42")+cable.saw("values (3)")+cable.saw("commit work") == 3 })
			cable.closeAll()
			f.top.Set(gap())
			if err := <-writing; code(err) != "08007" {
				t.Errorf("a write outside of a transaction: %v", err)
			}
			if err := <-committing; code(err) != "08007" {
				t.Errorf("a COMMIT: %v", err)
			}
			held(t, "a read", reading)
			late := execs(t, idle, "insert into crash values (4)") // not sent yet: it waits
			held(t, "what was not sent", late)
			f.top.Set(f.view(8))
			if err := <-reading; err != nil {
				t.Errorf("a read of which nobody has seen a row: %v", err)
			}
			if err := <-late; err != nil {
				t.Errorf("what was not sent: %v", err)
			}
			r := idle.PgConn().ExecPrepared(t.Context(), "st", [][]byte{[]byte("before")}, nil, nil).Read()
			if r.Err != nil || string(r.Rows[0][0]) != "prepared before" {
				t.Errorf("an idle session: %v", r.Err)
			}
			var e *pgconn.PgError
			if _, err := open.Exec(t.Context(), "insert into crash values (5)"); !errors.As(err, &e) || e.Code != "40001" || e.Severity != "ERROR" {
				t.Errorf("an open transaction: %v", err)
			}
			must(t, open, "rollback")
			must(t, open, "insert into crash values (6)")
			admin := connect(t, superuser(f.primary.addr()))
			rows, err := admin.Query(t.Context(), "select i from crash order by i")
			if err != nil {
				t.Fatal(err)
			}
			if there, err := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil || len(there) != 2 || there[0] != 4 || there[1] != 6 {
				t.Errorf("there is %v, %v", there, err)
			}
		})
	}
}
