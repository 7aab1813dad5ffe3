package console

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy/wire"
	"manada/internal/verb"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// orders is a source with one of everything, that notes what it was told.
type orders struct {
	Source
	mu   sync.Mutex
	told []string
	wait chan struct{} // PAUSE waits for it
}

func (o *orders) note(what string) Order {
	return func(ctx context.Context, arg string) (string, *wire.Error) {
		o.mu.Lock()
		o.told = append(o.told, strings.TrimSpace(what+" "+arg))
		o.mu.Unlock()
		if arg == "nosuch" {
			return "", &wire.Error{Severity: "ERROR", Code: "3D000", Message: "no such database: nosuch"}
		}
		if what == "pause" && o.wait != nil {
			select {
			case <-o.wait:
			case <-ctx.Done():
				o.mu.Lock()
				o.told = append(o.told, "gone")
				o.mu.Unlock()
				return "", &wire.Error{Severity: "ERROR", Code: "57014", Message: "canceling statement due to user request"}
			}
		}
		if what == "reload" {
			return "restart something", nil
		}
		return "", nil
	}
}

func newOrders() *orders {
	o := &orders{}
	at := time.Date(2026, 11, 29, 4, 22, 50, 0, time.UTC)
	o.Source = Source{
		Version: "1.2",
		Clients: func() []Client {
			return []Client{{ID: 7, User: "app", Database: "orders", Replication: "none", State: "waiting", Addr: "10.0.0.1:51566", Local: "10.0.0.9:5431",
				Connected: at, Requested: at, Wait: 1500*time.Millisecond + 20*time.Microsecond, ApplicationName: "psql"}}
		},
		Servers: func() []Server {
			return []Server{{ID: 3, User: "app", Database: "orders", Replication: "none", State: "active", Addr: "/run/.s.PGSQL.5432", Connected: at, Requested: at, CloseNeeded: true, Client: 7, PID: 4242}}
		},
		Pools: func() []Pool {
			return []Pool{{Database: "orders", User: "app", Active: 3, Waiting: 1, Servers: 2, Idle: 1, MaxWait: 1500 * time.Millisecond, Mode: "transaction"}}
		},
		Databases: func() []Database {
			return []Database{{Name: "orders", Host: "db1", Port: 5432, Size: 20, Lifetime: time.Hour, Servers: 3, Clients: 4, Paused: true}}
		},
		Users: func() []User { return []User{{Name: "app", Clients: 4, Servers: 3}} },
		Stats: func() []Stats {
			return []Stats{{"orders", Counts{Queries: 123456789012, Wait: 10000}, Counts{Queries: 5}}}
		},
		Sum:    func() Stats { return Stats{"", Counts{Queries: 123456789012, Wait: 10000}, Counts{Queries: 5}} },
		Paused: func() bool { return false },
		Pins:   func() []Pin { return []Pin{{7, "app", "orders", "psql", "LISTEN"}} },
		Config: func() []Setting { return []Setting{{Key: "proxy.max_clients", Value: "1000", Default: "1000"}} },
		Orders: map[string]Order{},
	}
	for _, v := range verb.Orders {
		o.Orders[v.Word()] = o.note(strings.ToLower(v.Word()))
	}
	return o
}

// serve lets consoles in on a port of their own, which log in everybody.
func serve(t *testing.T, s *Source, right Right) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if st, err := wire.ReadStartup(conn); err != nil || st.Kind != wire.KindStartup {
					return
				}
				b := wire.AppendAuth(nil, wire.AuthOK, nil)
				for _, p := range Parameters {
					b = wire.AppendParameterStatus(b, p[0], p[1])
				}
				conn.Write(b)
				Serve(ctx, conn, s, right, &Interrupt{})
			})
		}
	})
	stop = func() { l.Close(); cancel(); wg.Wait() }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t *testing.T, addr, more string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), "postgres://app@"+addr+"/manada?sslmode=disable"+more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	})
	return c
}

func TestRows(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Read)
	c := dial(t, addr, "").PgConn()
	for sql, want := range map[string]string{
		"show clients":   "C|app|orders|none|waiting|10.0.0.1|51566|10.0.0.9|5431|2026-11-29 04:22:50 UTC|2026-11-29 04:22:50 UTC|1|500020|0|0x7||0||psql|0|7",
		"show servers":   "S|app|orders|none|active|/run/.s.PGSQL.5432|0||0|2026-11-29 04:22:50 UTC|2026-11-29 04:22:50 UTC|0|0|1|0x3|0x7|4242|||0|3",
		"show pools":     "orders|app|3|1|0|0|2|0|0|1|0|0|0|1|500000|transaction|NULL",
		"show databases": "orders|db1|5432|orders|NULL|20|0|0|3600|NULL|NULL|0|3|0|4|1|0",
		"show users":     "app|||NULL|0|3|0|4",
		"show version":   "Manada 1.2",
	} {
		r, err := c.Exec(t.Context(), sql).ReadAll()
		if err != nil || len(r) != 1 || len(r[0].Rows) != 1 || r[0].CommandTag.String() != "SHOW" {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		var cells []string
		for _, v := range r[0].Rows[0] {
			if v == nil {
				cells = append(cells, "NULL")
				continue
			}
			cells = append(cells, string(v))
		}
		if got := strings.Join(cells, "|"); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", sql, got, want)
		}
	}
}

// Drivers use the extended protocol, and binary formats.
func TestExtendedProtocol(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Admin)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		c := dial(t, addr, "&default_query_exec_mode="+mode)
		for range 2 {
			rows, err := c.Query(t.Context(), "show stats")
			if err != nil {
				t.Fatal(mode, err)
			}
			for rows.Next() {
				v, err := rows.Values()
				if err != nil || len(v) != 25 {
					t.Fatal(mode, err, v)
				}
				if got := fmt.Sprint(v[0], v[3], v[8]); !strings.HasPrefix(got, "orders{") || !strings.Contains(got, "123456789012 ") {
					t.Errorf("%s: %s", mode, got)
				}
			}
			if rows.Err() != nil {
				t.Error(mode, rows.Err())
			}
			row, _ := c.Query(t.Context(), "show pools")
			pool, err := pgx.CollectExactlyOneRow(row, pgx.RowToMap)
			if err != nil || pool["cl_waiting"] != int32(1) || pool["pool_mode"] != "transaction" {
				t.Error(mode, err, pool)
			}
			if tag, err := c.Exec(t.Context(), "reconnect orders"); err != nil || tag.String() != "RECONNECT" {
				t.Error(mode, tag, err)
			}
			if _, err := c.Exec(t.Context(), "reconnect nosuch"); sqlState(err) != "3D000" {
				t.Error(mode, err)
			}
			if _, err := c.Exec(t.Context(), "nonsense"); sqlState(err) != "42601" {
				t.Error(mode, err)
			}
		}
	}
}

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestNumbers(t *testing.T) {
	addr, _ := serve(t, &Source{Stats: func() []Stats {
		return []Stats{{"d", Counts{0, 1, 9999, 10000, 10001, 99999999, 100000000, 9223372036854775807, -1, -10000, 0, 12}, Counts{}}}
	}}, Read)
	c := dial(t, addr, "")
	rows, err := c.Query(t.Context(), "show stats_totals", pgx.QueryResultFormats{pgx.BinaryFormatCode})
	if err != nil {
		t.Fatal(err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, func(r pgx.CollectableRow) ([]any, error) { return r.Values() })
	if err != nil {
		t.Fatal(err)
	}
	simple, err := c.PgConn().Exec(t.Context(), "show stats_totals").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(v); i++ {
		got, err := v[i].(pgtype.Numeric).Value()
		if want := string(simple[0].Rows[0][i]); err != nil || got != want {
			t.Errorf("%v, want %s, %v", got, want, err)
		}
	}
}

func TestOrders(t *testing.T) {
	o := newOrders()
	addr, _ := serve(t, &o.Source, Admin)
	c := dial(t, addr, "").PgConn()
	for _, sql := range []string{"PAUSE", "pause orders;", `pause "Odd Name"`, "resume", "resume orders", "disable orders", "enable orders", "reconnect", "wait_close orders", "wait_close",
		"kill orders", "kill", "kill_client 7", "reload", "-- by hand\nreload /* now */ ;", ";", "", "set extra_float_digits = 3", "SET client_encoding TO 'UTF8'", "set application_name='x'"} {
		if _, err := c.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	want := "pause, pause orders, pause Odd Name, resume, resume orders, disable orders, enable orders, reconnect, wait_close orders, wait_close, kill orders, kill, kill_client 7, reload, reload"
	if got := strings.Join(o.told, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for sql, want := range map[string]string{
		"foo bar": "42601 invalid command 'foo bar', use SHOW HELP;", "show nosuch": "42601", "select 1": "42601", "begin": "42601", "disable": "42601 a database is required",
		"kill_client": "42601", "reload now": "42601", "pause a b": "42601", "show version; pause": "42601", "pause nosuch": "3D000 no such database: nosuch", "set x = 1": "0A000 settings are changed in the host's file", `pause "x`: "42601", "/* ": "42601", "pause ''": "42601",
	} {
		_, err := c.Exec(t.Context(), sql).ReadAll()
		var e *pgconn.PgError
		if !errors.As(err, &e) || !strings.HasPrefix(e.Code+" "+e.Message, want) {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
}

// Who may only read gives no order, by whichever protocol.
func TestReadersGiveNoOrders(t *testing.T) {
	o := newOrders()
	addr, _ := serve(t, &o.Source, Read)
	c := dial(t, addr, "")
	for _, v := range verb.Orders {
		sql := v.Word() + " orders"
		if len(v.Arguments) == 0 {
			sql = v.Word()
		}
		if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); sqlState(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
		if _, err := c.Exec(t.Context(), sql); sqlState(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if len(o.told) > 0 {
		t.Error(o.told)
	}
}

// What a source does not have is no command, and not in the help.
func TestOnlyWhatIsThere(t *testing.T) {
	s := &Source{Version: "1", Pools: newOrders().Pools, Orders: map[string]Order{"RELOAD": newOrders().Orders["RELOAD"]}}
	addr, _ := serve(t, s, Admin)
	cfg, err := pgconn.ParseConfig("postgres://app@" + addr + "/manada?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { said = n.Detail }
	c, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "show help").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if want := "\n\tSHOW HELP|POOLS|VERSION\n\tRELOAD: has the host's configuration read again; no client is disconnected"; said != want {
		t.Errorf("%q", said)
	}
	for _, sql := range []string{"show clients", "show stats", "show lists", "pause", "kill x"} {
		if _, err := c.Exec(t.Context(), sql).ReadAll(); sqlState(err) != "42601" {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestPsql(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("psql is not installed")
	}
	addr, _ := serve(t, &newOrders().Source, Admin)
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(t.Context(), psql, "-h", host, "-p", port, "-U", "app", "-At", "-v", "ON_ERROR_STOP=1", "manada",
		"-c", "show version", "-c", "pause orders", "-c", "show lists")
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGGSSENCMODE=disable", "PGTARGETSESSIONATTRS=read-write")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "Manada 1.2\n") || !strings.Contains(string(out), "PAUSE\n") || !strings.Contains(string(out), "used_clients|1\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
