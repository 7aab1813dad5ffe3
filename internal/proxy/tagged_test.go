package proxy_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"manada/internal/guardian/procfs"
	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
)

// crowds are clients that share so many connections. Something happens to these about as
// often as pause says, and something worse ten times as rarely: where all share one
// they are to have it for a while.
var crowds = []struct {
	name             string
	clients, servers int
	pause, brief     time.Duration // brief: it lasts so long in `make test`
}{
	{"many", 24, 10, 200 * time.Millisecond, 6 * time.Second},
	{"three on one", 3, 1, 10 * time.Second, 3 * time.Second},
}

// Clients of one pool do anything at all, each with its own tag, while their servers
// are killed: nobody ever gets another client's bytes, settings, statements, temporary
// tables, cursors, locks, notifications or last values, and nobody loses its own
// without being told. MANADA_TAGGED=10m makes it longer than in `make test`.
func TestTaggedClients(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for _, crowd := range crowds {
		t.Run(crowd.name, func(t *testing.T) {
			lasts := crowd.brief
			if s := os.Getenv("MANADA_TAGGED"); s != "" {
				var err error
				if lasts, err = time.ParseDuration(s); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("seed %d", seed)
			f := pooled(t, rules.Auto, crowd.servers, func(c *proxy.Config) {
				c.Pool.Default.QueueTimeout, c.ConnectWait = time.Minute, time.Minute
			})
			role, db := f.tagged(t, crowd.clients)
			w := &witness{counts: map[string]int{}}
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			defer cancel()
			var all sync.WaitGroup
			for id := range crowd.clients {
				c := &tagged{witness: w, state: &state{id: id}, r: rand.New(rand.NewPCG(seed, uint64(id))), among: crowd.clients}
				c.begun, c.dsn = f.begins(t, role, db, id)
				all.Go(func() { c.run(ctx) })
			}
			d := &disasters{t: t, fixture: f, witness: w, role: role, db: db, r: rand.New(rand.NewPCG(seed, 100)), epoch: 7, pause: crowd.pause}
			d.run(ctx)
			all.Wait()
			for _, what := range slices.Sorted(maps.Keys(w.counts)) {
				t.Logf("%6d %s", w.counts[what], what)
			}
			for _, what := range w.wrong {
				t.Error(what)
			}
			d.checkRows()
		})
	}
}

// tagged makes the database of the clients: for each a schema and a role.
func (f *fixture) tagged(t *testing.T, clients int) (role, db string) {
	t.Helper()
	role = f.role(t, "superuser login password 'x'")
	var drops []string
	var sql strings.Builder
	for id := range clients {
		f.admin(t, fmt.Sprintf("create role tagged_%d", id))
		drops = append(drops, fmt.Sprintf("drop role tagged_%d", id))
		fmt.Fprintf(&sql, "create schema s%d; create table s%d.own as select 'client %d'::text as who; grant all on schema s%d to public; grant all on all tables in schema s%d to public;", id, id, id, id, id)
	}
	f.afterwards(t, strings.Join(drops, ";"))
	db = f.freshDatabase(t)
	f.script(t, db, sql.String()+`
		create table own as select 'nobody'::text as who;
		create table rows(client int, n int, tenant text default coalesce(current_setting('app.tenant', true), ''), app text default current_setting('application_name'),
			who text default case when current_user like 'tagged%' then current_user else 'pool' end, path text default current_setting('search_path'));
		create sequence sq;
		create function hide(v text) returns void language plpgsql as $$ begin perform set_config('app.hidden', v, false); end $$;
		create function trap() returns trigger language plpgsql as $$ begin perform set_config('app.hidden', new.v, false); return null; end $$;
		create table trapped(v text);
		create trigger trap before insert on trapped for each row execute function trap();
		grant all on all tables in schema public to public; grant all on sequence sq to public`)
	return role, db
}

// begins is what a client begins with: every third brings settings of its own.
func (f *fixture) begins(t *testing.T, role, db string, id int) (begun map[string]string, dsn string) {
	t.Helper()
	dsn = strings.Replace(f.dsn(session.ReadWrite, role, "x", "sslmode=disable"), "/postgres?", "/"+db+"?", 1)
	c := f.superuserIn(t, db)
	defer c.Close(t.Context())
	begun = map[string]string{}
	for _, name := range settings {
		begun[name] = query[string](t, c, "select coalesce(current_setting($1, true), '')", name)
	}
	if id%3 == 0 {
		for name, value := range map[string]string{"app.tenant": fmt.Sprint("begun", id), "application_name": fmt.Sprint("begun", id), "TimeZone": "Asia/Tokyo",
			"DateStyle": "German, DMY", "search_path": fmt.Sprintf("s%d, public", id)} {
			begun[name] = value
			dsn += "&" + name + "=" + strings.NewReplacer(" ", "%20", "/", "%2F", ",", "%2C").Replace(value)
		}
	}
	return begun, dsn
}

// disasters happen to the servers of the clients.
type disasters struct {
	*fixture
	*witness
	t        *testing.T
	role, db string
	r        *rand.Rand
	epoch    uint64
	pause    time.Duration // between two of them, at most
}

func (d *disasters) run(ctx context.Context) {
	next, big := 0, []func(){d.crashBackend, d.crashPostmaster}
	bigAt := time.Now().Add(5 * d.pause)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(d.r.Int64N(int64(d.pause)))):
		}
		if time.Now().After(bigAt) {
			big[next%len(big)]()
			next, bigAt = next+1, time.Now().Add(10*d.pause)
			continue
		}
		switch n := d.r.IntN(12); {
		case n < 8:
			d.count("terminated")
			d.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = '" + d.role + "' order by random() limit 1")
		case n < 9:
			d.count("RECONNECT")
			d.console("reconnect " + d.db)
		case n < 10:
			d.count("PAUSE")
			go d.console("pause " + d.db)
			time.Sleep(50 * time.Millisecond)
			d.console("resume " + d.db)
		case n < 11:
			d.count("ALTER ROLE")
			d.sql(fmt.Sprintf("alter role %s set geqo_seed = 0.%d", d.role, d.r.IntN(9)))
		default:
			d.count("KILL")
			d.killed.Add(1)
			d.console("kill " + d.db)
			d.console("resume " + d.db)
			d.killed.Add(1)
		}
	}
}

// sql runs as superuser, past the proxy; who is killed meanwhile did not.
func (d *disasters) sql(sql string) {
	d.tell(superuser(d.primary.addr()), sql)
}

func (d *disasters) console(sql string) {
	d.tell(fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", d.Addr(session.ReadWrite)), sql)
}

func (d *disasters) tell(dsn, sql string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.t.Context()), 20*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err == nil {
		_, err = c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		c.Close(ctx)
	}
	if err != nil {
		d.t.Logf("%s: %v", sql, err)
	}
}

// crashBackend has PostgreSQL start its recovery: for a moment it lets nobody in.
func (d *disasters) crashBackend() {
	d.count("a backend crashed")
	c, err := pgx.Connect(d.t.Context(), superuser(d.primary.addr()))
	if err != nil {
		d.t.Error(err)
		return
	}
	defer c.Close(d.t.Context())
	var pid int
	if err := c.QueryRow(d.t.Context(), "select pid from pg_stat_activity where usename = $1 limit 1", d.role).Scan(&pid); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	eventually(d.t, "PostgreSQL is back", func() bool {
		c, err := pgx.Connect(d.t.Context(), superuser(d.primary.addr()))
		if err == nil {
			c.Close(d.t.Context())
		}
		return err == nil
	})
}

// crashPostmaster kills all of it; what is started again leads another epoch.
func (d *disasters) crashPostmaster() {
	d.count("the postmaster was killed")
	p := &d.primary
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(pid, syscall.SIGSTOP) // no child of its comes or goes unseen
	children, err := procfs.Children(pid)
	if err != nil {
		d.t.Error(err)
	}
	for _, child := range append(children, pid) {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	<-p.done
	d.top.Set(gap())
	eventually(d.t, "all of PostgreSQL is gone", func() bool {
		return !slices.ContainsFunc(children, func(pid int) bool {
			c, err := procfs.Read(pid)
			return err == nil && !c.Dead()
		})
	})
	if err := d.launch(p); err != nil {
		d.t.Error(err)
	}
	d.epoch++
	d.top.Set(d.view(d.epoch))
}

// checkRows holds each row against its writer, also those of which nobody knew.
func (d *disasters) checkRows() {
	c := d.superuserIn(d.t, d.db)
	defer c.Close(d.t.Context())
	if n := query[int](d.t, c, `select count(*) from rows where tenant !~ format('^(|begun%1$s|t%1$s\.\d+)$', client) or app !~ format('^(|begun%1$s|a%1$s\.\d+)$', client)
		or who not in ('pool', format('tagged_%s', client)) or path not in ('"$user", public', format('s%s', client), format('s%s, public', client))`); n > 0 {
		d.t.Errorf("%d rows were written with another client's settings", n)
	}
}
