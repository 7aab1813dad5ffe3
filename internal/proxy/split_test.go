package proxy_test

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const simple = pgx.QueryExecModeSimpleProtocol

// reader connects a session whose home is the standby: homes are given in turn.
func (f *fixture) reader(t testing.TB, role, more string) *pgx.Conn {
	t.Helper()
	for range 2 {
		c := connect(t, f.dsn(session.ReadWrite, role, "pw", cmp.Or(more, "sslmode=disable")))
		onStandby(t, c)
		if poolNodes(t, c, simple)[1]["load_balance_node"] == "true" {
			eventually(t, "the standby to be fresh", func() bool { return onStandby(t, c) })
			return c
		}
	}
	t.Fatal("no session reads from the standby")
	return nil
}

func onStandby(t testing.TB, c *pgx.Conn) bool {
	t.Helper()
	return query[bool](t, c, "select standby from public.node", simple)
}

// table makes a table that the role owns.
func (f *fixture) table(t testing.TB, role, name, columns string) {
	t.Helper()
	f.admin(t, fmt.Sprintf("create table %s (%s); alter table %s owner to %s", name, columns, name, role))
	t.Cleanup(func() {
		ctx := context.Background()
		c, err := pgx.Connect(ctx, superuser(f.primary.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(ctx)
		if _, err := c.Exec(ctx, "drop table if exists "+name+" cascade"); err != nil {
			t.Error(err)
		}
	})
}

// Ten connections with 50 reads each: both nodes get their share, and every
// connection reads what it has just written.
func TestSplitSpreads(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.table(t, role, "spread", "c int, i int")
	var wg sync.WaitGroup
	for n := range 10 {
		c := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
		wg.Go(func() {
			for i := range 50 {
				if i%5 == 0 {
					if _, err := c.Exec(t.Context(), "insert into spread values ($1, $2)", n, i); err != nil {
						t.Error(err)
					}
				}
				var got int
				if err := c.QueryRow(t.Context(), "select count(*) from spread where c = $1", n).Scan(&got); err != nil || got != i/5+1 {
					t.Errorf("connection %d reads %d of %d rows, %v", n, got, i/5+1, err)
				}
			}
		})
	}
	wg.Wait()
	nodes := poolNodes(t, connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")), simple)
	total := 0
	for _, n := range nodes {
		count, _ := strconv.Atoi(n["select_cnt"])
		total += count
		if count < 500/3 {
			t.Errorf("%s answered %d of 500", n["hostname"]+":"+n["port"], count)
		}
	}
	if total != 500 {
		t.Errorf("%d reads counted", total)
	}
}

// Every way in which drivers send statements is split.
func TestSplitModes(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	c := f.reader(t, role, "")
	for _, mode := range []pgx.QueryExecMode{simple, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe} {
		for range 3 {
			if !query[bool](t, c, "select standby and $1::int = 7 from node", mode, 7) {
				t.Errorf("%s: not on the standby", mode)
			}
		}
	}
	b := &pgx.Batch{}
	for i := range 20 {
		b.Queue("select standby, $1::int from node", i)
	}
	results := c.SendBatch(t.Context(), b)
	for i := range 20 {
		var standby bool
		var got int
		if err := results.QueryRow().Scan(&standby, &got); err != nil || !standby || got != i {
			t.Errorf("batch item %d: %v %d %v", i, standby, got, err)
		}
	}
	results.Close()
	for _, n := range []int{100 << 10, 900 << 10} { // longer than a buffer
		if !query[bool](t, c, "select standby and length('"+strings.Repeat("x", n)+"') = "+strconv.Itoa(n)+" from node", simple) {
			t.Errorf("a text of %d bytes: not on the standby", n)
		}
	}
	big := query[string](t, c, "select repeat('y', 5000000) || standby from node")
	if len(big) != 5000004 {
		t.Errorf("%d bytes, ends with %q", len(big), big[max(0, len(big)-5):])
	}
	if _, err := c.Exec(t.Context(), "select 1/0"); code(err) != "22012" {
		t.Errorf("an error of the standby: %v", err)
	}
	if _, err := c.Exec(t.Context(), "select nonsense from nowhere"); code(err) != "42P01" {
		t.Errorf("an error of both: %v", err)
	}
	c.Close(t.Context())
	eventually(t, "nobody is connected", func() bool { return f.Status().Ports["read_write"].Clients == 0 })
	seen := map[string]bool{}
	eventually(t, "psql on both nodes", func() bool {
		out, err := f.psql(t, session.ReadWrite, role, "pw", "sslmode=disable", "select standby from node")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		seen[out] = true
		return seen["t\n"] && seen["f\n"]
	})
}

// A pipeline of reads and writes keeps its order, over TLS too.
func TestSplitPipeline(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.table(t, role, "piped", "i int")
	for _, mode := range []string{"disable", "require"} {
		c := f.reader(t, role, "sslmode="+mode)
		first := query[int](t, c, "select count(*) from piped")
		p := c.PgConn().StartPipeline(t.Context())
		for i := range 100 {
			if i%2 == 0 {
				p.SendQueryParams("insert into piped values (1)", nil, nil, nil, nil)
			} else {
				p.SendQueryParams("select count(*) from piped", nil, nil, nil, nil)
			}
			if err := p.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < 100; {
			r, err := p.GetResults()
			if err != nil {
				t.Fatal(err)
			}
			res, ok := r.(*pgconn.ResultReader)
			if !ok {
				continue // a Sync
			}
			got := res.Read()
			if i%2 == 1 && (got.Err != nil || string(got.Rows[0][0]) != strconv.Itoa(first+i/2+1)) {
				t.Errorf("item %d: %s, %v", i, got.Rows, got.Err)
			}
			i++
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is no certain read, or not autocommit, is the primary's; and so is a
// session whose state only the primary has.
func TestSplitStaysOnThePrimary(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.admin(t, "grant create, usage on schema public to "+role)
	c := f.reader(t, role, "")
	do := func(sql string) {
		t.Helper()
		if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	do("begin")
	if onStandby(t, c) {
		t.Error("left the transaction")
	}
	do("commit")
	if query[bool](t, c, "select standby from node, (select pg_backend_pid()) x") {
		t.Error("not a certain read, and yet on the standby")
	}
	// Settings follow the session.
	do("set application_name = 'new name'")
	do("set my.setting = 'x'")
	do("set search_path = pg_catalog")
	if _, err := c.Exec(t.Context(), "set timezone = 'Asia/Tokyo'"); err != nil { // a prepared one
		t.Error(err)
	}
	const state = "select app||current_setting('my.setting')||path||zone||standby from public.node"
	fresh := func() { t.Helper(); eventually(t, "the standby is fresh", func() bool { return onStandby(t, c) }) }
	fresh()
	if got := query[string](t, c, state); got != "new namexpg_catalogAsia/Tokyotrue" {
		t.Errorf("settings on the standby: %s", got)
	}
	do("reset all")
	fresh()
	if got := query[string](t, c, "select path||standby from public.node"); got != `"$user", publictrue` {
		t.Errorf("after reset: %s", got)
	}
	// A temporary table does not; DISCARD ALL drops it.
	do("create temp table only_here as select 1 as i")
	if onStandby(t, c) || query[int](t, c, "select i from only_here") != 1 {
		t.Error("the temporary table is out of sight")
	}
	do("discard all")
	fresh()
	do("set role " + role)
	if onStandby(t, c) {
		t.Error("another role, on a connection that does not have it")
	}
}

// A standby that has not replayed what the session wrote does not answer it.
func TestSplitReadsItsWrites(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.table(t, role, "mine", "i int")
	c := f.reader(t, role, "")
	standby := connect(t, superuser(f.standby.addr()))
	resume := func() { standby.Exec(context.Background(), "select pg_wal_replay_resume()") }
	t.Cleanup(resume)
	if _, err := standby.Exec(t.Context(), "select pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "replay paused", func() bool {
		return query[string](t, standby, "select pg_get_wal_replay_pause_state()") == "paused"
	})
	if !onStandby(t, c) {
		t.Error("nothing was written, and the standby is not used")
	}
	if _, err := c.Exec(t.Context(), "insert into mine values (1)"); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, c, "select count(*) from mine"); n != 1 || onStandby(t, c) {
		t.Errorf("reads %d rows of its own", n)
	}
	// Who connects now sees it too.
	for range 2 {
		if n := query[int](t, connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable")), "select count(*) from mine"); n != 1 {
			t.Errorf("a newcomer reads %d rows", n)
		}
	}
	resume()
	eventually(t, "back on the standby", func() bool { return onStandby(t, c) })
	if n := query[int](t, c, "select count(*) from mine"); n != 1 {
		t.Errorf("reads %d rows on the standby", n)
	}
}

// A function that only bears a harmless name cannot write on the standby, and
// the primary executes it, once.
func TestSplitHiddenWrite(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	f.table(t, role, "hidden", "i int")
	f.admin(t, "create function public.lower(i int) returns text language sql as 'insert into hidden values (i) returning i::text'")
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), superuser(f.primary.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background())
		c.Exec(context.Background(), "drop function public.lower(int)")
	})
	c := f.reader(t, role, "")
	for i, mode := range []pgx.QueryExecMode{simple, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		if got := query[string](t, c, "select lower(5)", mode); got != "5" {
			t.Errorf("%s: %q", mode, got)
		}
		if n := query[int](t, c, "select count(*) from hidden"); n != i+1 {
			t.Errorf("%s: written %d times, want %d", mode, n, i+1)
		}
	}
}

// A standby that goes away costs a session nothing but time.
func TestSplitStandbyLost(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	c := f.reader(t, role, "")
	admin := connect(t, superuser(f.standby.addr()))
	kill := func() {
		t.Helper()
		if query[int](t, admin, "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where usename=$1", role) == 0 {
			t.Error("nobody to kill")
		}
	}
	kill() // while idle
	if n := query[int](t, c, "select 1"); n != 1 {
		t.Error("the session is disturbed")
	}
	eventually(t, "back on the standby", func() bool { return onStandby(t, c) })
	// In the middle of a read of which nothing has arrived yet: repeated.
	cable := newStall(t, f.standby.addr())
	v := f.view(7)
	v.Standbys[0].Addr = cable.addr
	f.top.Set(v)
	c = f.reader(t, role, "")
	done := make(chan error, 1)
	go func() {
		var n int
		done <- c.QueryRow(t.Context(), "select count(*) from generate_series(1, 3000000) cut_here", simple).Scan(&n)
	}()
	eventually(t, "reading", func() bool { return cable.saw("cut_here") > 0 })
	cable.closeAll()
	if err := <-done; err != nil {
		t.Errorf("not repeated on the primary: %v", err)
	}
	eventually(t, "back on the standby", func() bool { return onStandby(t, c) })
	// When rows have arrived: an error that says so, and the session goes on.
	rows, err := c.Query(t.Context(), "select i, repeat('x', 500) from generate_series(1, 300000) i")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; rows.Next(); i++ {
		if i == 100 {
			cable.closeAll()
		}
	}
	if err := rows.Err(); code(err) != "40001" || !strings.Contains(err.Error(), "standby slave was lost") {
		t.Errorf("%v", err)
	}
	if n := query[int](t, c, "select 2"); n != 2 {
		t.Error("the session is disturbed")
	}
}

// A standby whose host swallows everything holds a read up for a moment only.
func TestSplitBlackHole(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	hole := newStall(t, f.standby.addr())
	hole.swallow()
	v := f.view(7)
	v.Standbys[0].Addr = hole.addr
	f.top.Set(v)
	for range 2 {
		c := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
		begin := time.Now()
		if onStandby(t, c) || time.Since(begin) > 5*time.Second {
			t.Errorf("after %s", time.Since(begin))
		}
	}
}

// A cancel request reaches the standby that reads, and is no reason to repeat.
func TestSplitCancel(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	c := f.reader(t, role, "")
	admin := connect(t, superuser(f.standby.addr()))
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "select count(*) from generate_series(1, 1000000000)")
		done <- err
	}()
	eventually(t, "reading", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename=$1 and state='active'", role) == 1
	})
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Errorf("%v", err)
	}
	if !onStandby(t, c) {
		t.Error("the session did not survive the cancel")
	}
}

// A new primary ends a session that reads from a standby too.
func TestSplitDeposed(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	idle, busy := f.reader(t, role, ""), f.reader(t, role, "")
	admin := connect(t, superuser(f.standby.addr()))
	done := make(chan error, 1)
	go func() {
		_, err := busy.Exec(t.Context(), "select count(*) from generate_series(1, 1000000000)")
		done <- err
	}()
	eventually(t, "reading", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename=$1 and state='active'", role) == 1
	})
	f.top.Set(gap())
	if err := <-done; code(err) != "57P01" || !strings.Contains(err.Error(), "the primary changed") {
		t.Errorf("%v", err)
	}
	if _, err := idle.Exec(t.Context(), "select 1"); err == nil {
		t.Error("the idle session goes on")
	}
	eventually(t, "no connection is left over", func() bool {
		return query[int](t, admin, "select count(*) from pg_stat_activity where usename=$1", role) <= 1 // the cut-off query's, until it notices
	})
	admin.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_activity where usename=$1", role)
}

func TestSplitOff(t *testing.T) {
	f := start(t, unsplit)
	role := f.role(t, "login password 'pw'")
	for range 4 {
		c := connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
		if onStandby(t, c) {
			t.Error("on the standby")
		}
		if n := poolNodes(t, c, simple); n[0]["lb_weight"] != "1.000000" || n[1]["lb_weight"] != "0.000000" {
			t.Errorf("%v", n)
		}
	}
}

func poolNodes(t testing.TB, c *pgx.Conn, mode pgx.QueryExecMode) (out []map[string]string) {
	t.Helper()
	rows, err := c.Query(t.Context(), "SHOW pool_nodes;", mode)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		v, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for i, f := range rows.FieldDescriptions() {
			m[f.Name] = v[i].(string)
		}
		out = append(out, m)
	}
	if rows.Err() != nil || len(out) != 2 {
		t.Fatalf("%d nodes, %v", len(out), rows.Err())
	}
	return out
}

// SHOW POOL_NODES is pgpool's, for every client.
func TestPoolNodes(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	c := f.reader(t, role, "")
	for _, mode := range []pgx.QueryExecMode{simple, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement,
		pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec} {
		n := poolNodes(t, c, mode)
		if m := n[0]; m["node_id"] != "0" || m["hostname"] != "127.0.0.1" || m["port"] != strconv.Itoa(f.primary.port) || m["status"] != "up" ||
			m["role"] != "primary" || m["pg_role"] != "primary" || m["lb_weight"] != "0.500000" || m["load_balance_node"] != "false" {
			t.Errorf("%s: %v", mode, m)
		}
		if m := n[1]; m["node_id"] != "1" || m["role"] != "standby" || m["replication_state"] != "streaming" || m["replication_sync_state"] != "quorum" ||
			m["replication_delay"] != "0" || m["load_balance_node"] != "true" || m["select_cnt"] == "0" {
			t.Errorf("%s: %v", mode, m)
		}
		if _, err := time.ParseInLocation(time.DateTime, n[0]["last_status_change"], time.Local); err != nil {
			t.Error(err)
		}
		if !onStandby(t, c) {
			t.Error("the session was disturbed")
		}
	}
	out, err := f.psql(t, session.ReadWrite, role, "pw", "sslmode=disable", "show POOL_NODES")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); err != nil || len(lines) != 2 || strings.Count(lines[0], "|") != 13 {
		t.Errorf("psql: %v\n%s", err, out)
	}
	if _, err := c.Exec(t.Context(), "show pool_version"); code(err) != "42704" {
		t.Errorf("show pool_version: %v", err)
	}
}

// The lines of pg_hba.conf hold for the clients of the proxy, by their own address.
func TestHBA(t *testing.T) {
	f := start(t, func(c *proxy.Config) {
		c.HBA = []string{"host all mallory all reject", "hostssl all r_testhba 127.0.0.1/32 md5", "host all r_testhba all reject"}
	})
	role := f.role(t, "login password 'pw'")
	connect(t, f.dsn(session.ReadWrite, role, "pw", "sslmode=require"))
	connect(t, superuser(f.Addr(session.ReadWrite).String()))
	for name, c := range map[string]struct{ dsn, want string }{
		"no TLS":   {f.dsn(session.ReadOnly, role, "pw", "sslmode=disable"), `pg_hba.conf rejects connection for host "127.0.0.1", user "` + role + `", database "postgres", no encryption`},
		"rejected": {f.dsn(session.ReadWrite, "mallory", "pw", "sslmode=require"), `user "mallory", database "postgres", SSL encryption`},
	} {
		if _, err := pgx.Connect(t.Context(), c.dsn); code(err) != "28000" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg := proxy.DefaultConfig()
	cfg.Topology, cfg.HBA = f.top, []string{"host all +admins all md5"}
	if _, err := proxy.New(cfg); err == nil || !strings.Contains(err.Error(), "+admins") {
		t.Errorf("%v", err)
	}
}
