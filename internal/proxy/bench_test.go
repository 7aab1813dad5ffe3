package proxy_test

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"
)

// BenchmarkRoundTrip is one small query after the other on one session, with
// and without the proxy. The allocations are the test client's.
func BenchmarkRoundTrip(b *testing.B) {
	f := start(b, nil)
	role := f.role(b, "login password 'pw'")
	for name, dsn := range map[string]string{
		"direct": fmt.Sprintf("postgres://%s:pw@%s/postgres?sslmode=disable", role, f.primary.addr()),
		"proxy":  f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"),
	} {
		b.Run(name, func(b *testing.B) {
			c := connect(b, dsn)
			for b.Loop() {
				if query[int](b, c, "select 1") != 1 {
					b.Fatal("wrong answer")
				}
			}
		})
	}
}

// BenchmarkLogIn is a whole connection: SCRAM twice and a backend's fork; "shared" does
// without the second and the fork.
func BenchmarkLogIn(b *testing.B) {
	f, pooled := start(b, nil), start(b, func(cfg *proxy.Config) { cfg.Pool.Default.Mode = rules.Transaction })
	role := f.role(b, "login password 'pw'")
	for name, dsn := range map[string]string{
		"direct": fmt.Sprintf("postgres://%s:pw@%s/postgres?sslmode=disable", role, f.primary.addr()),
		"proxy":  f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"),
		"shared": pooled.dsn(session.ReadWrite, role, "pw", "sslmode=disable"),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := connect(b, dsn).Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBulk is the server-to-client direction: a result of 64 MB.
func BenchmarkBulk(b *testing.B) {
	f := start(b, nil)
	role := f.role(b, "login password 'pw'")
	for name, dsn := range map[string]string{
		"direct": fmt.Sprintf("postgres://%s:pw@%s/postgres?sslmode=disable", role, f.primary.addr()),
		"proxy":  f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"),
	} {
		b.Run(name, func(b *testing.B) {
			c := connect(b, dsn)
			b.SetBytes(64000 * 1000)
			for b.Loop() {
				r := c.PgConn().Exec(b.Context(), "select repeat('z', 1000) from generate_series(1, 64000)")
				for r.NextResult() {
					for r.ResultReader().NextRow() {
					}
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPgbench is pgbench -S on 16 connections. cpu-µs/tx is what this
// process, which holds the proxy and nothing else, spends on a transaction. "copy"
// is the least that a goroutine-per-direction proxy can do: io.Copy both ways.
//
//	go test ./internal/proxy -run xxx -bench Pgbench -benchtime 50000x
func BenchmarkPgbench(b *testing.B) {
	f, whole := start(b, nil), start(b, unsplit)
	env := func(addr string) []string {
		host, port, _ := net.SplitHostPort(addr)
		return []string{"PGHOST=" + host, "PGPORT=" + port, "PGUSER=postgres", "PGPASSWORD=postgres", "PGDATABASE=postgres", "PGSSLMODE=disable"}
	}
	initialise := f.command("pgbench", "-i", "-q", "-s", "2")
	initialise.Env = env(f.primary.addr())
	if out, err := initialise.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	defer f.admin(b, "drop table if exists pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers")
	tps := regexp.MustCompile(`tps = ([0-9.]+) \(without`)
	for _, mode := range []string{"simple", "prepared"} {
		for _, clients := range []int{1, 16} {
			for name, addr := range map[string]string{
				"direct": f.primary.addr(), "proxy": f.Addr(session.ReadWrite).String(), "unsplit": whole.Addr(session.ReadWrite).String(), "copy": copier(b, f.primary.addr()),
			} {
				b.Run(fmt.Sprintf("%s-%d-%s", mode, clients, name), func(b *testing.B) {
					n := max(1, b.N/clients)
					cmd := f.command("pgbench", "-n", "-S", "-M", mode, "-c", strconv.Itoa(clients), "-t", strconv.Itoa(n))
					cmd.Env = env(addr)
					before := cpu()
					out, err := cmd.CombinedOutput()
					spent := cpu() - before
					m := tps.FindSubmatch(out)
					if err != nil || m == nil {
						b.Fatalf("%v\n%s", err, out)
					}
					v, _ := strconv.ParseFloat(string(m[1]), 64)
					b.ReportMetric(v, "tps")
					b.ReportMetric(float64(spent.Nanoseconds())/1000/float64(n*clients), "cpu-µs/tx")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}

// copier forwards connections without looking at them.
func copier(b *testing.B, to string) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			go func() { io.Copy(d, c); d.Close() }()
			go func() { io.Copy(c, d); c.Close() }()
		}
	}()
	return l.Addr().String()
}

// cpu is what this process has used, in user and system mode.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
