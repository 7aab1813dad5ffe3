package proxy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
)

// What clients do is counted by database, in the console under PgBouncer's names and
// in the metrics, whether they share connections or not.
func TestStatistics(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Session, rules.Transaction, rules.Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 2, func(c *proxy.Config) { c.Cluster, c.Node = "orders", "db1" })
			db := f.freshDatabase(t)
			role := f.role(t, "login password 'x'")
			app := connect(t, fmt.Sprintf("postgres://%s:x@%s/%s?sslmode=disable", role, f.Addr(session.ReadWrite), db))
			const n = 5
			for range n {
				query[int](t, app, "select 1 from pg_sleep(0.02)") // prepared once by pgx
			}
			tx, err := app.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tx.Exec(t.Context(), "select 1", pgx.QueryExecModeSimpleProtocol)
			time.Sleep(50 * time.Millisecond)
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			admin := connect(t, fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
			row := func(show string) map[string]any {
				for _, r := range table(t, admin, show) {
					if r["database"] == db {
						return r
					}
				}
				t.Fatalf("%s has no %s", show, db)
				return nil
			}
			number := func(r map[string]any, name string) int {
				v, err := strconv.Atoi(fmt.Sprint(toText(r[name])))
				if err != nil {
					t.Fatalf("%s = %v: %v", name, r[name], err)
				}
				return v
			}
			r := row("show stats_totals")
			want := map[string][2]int{ // at least, at most
				"xact_count": {n + 2, n + 2}, "query_count": {n + 4, n + 5}, "client_login_count": {1, 1}, "server_assignment_count": {1, n + 5},
				"client_parse_count": {1, 2}, "server_parse_count": {1, 4}, "bind_count": {n, n + 1}, "bytes_received": {200, 5000}, "bytes_sent": {200, 5000},
				"query_time": {n * 20000, 10e6}, "xact_time": {n*20000 + 50000, 10e6}, "wait_time": {0, 10e6},
			}
			for name, limits := range want {
				if got := number(r, name); got < limits[0] || got > limits[1] {
					t.Errorf("%s = %d, want %v", name, got, limits)
				}
			}
			both := row("show stats")
			for _, name := range []string{"xact_count", "query_count", "query_time", "client_login_count"} {
				if number(both, "total_"+name) != number(r, name) || number(both, "avg_"+name) != 0 { // no period is over yet
					t.Errorf("%s: %v and %v", name, both, r)
				}
			}
			row("show stats_averages")

			text := scrape(f)
			at := fmt.Sprintf(`{cluster="orders",database="%s",node="db1"`, db)
			for name, value := range map[string]int{"query_seconds_count": number(r, "query_count"), "transaction_seconds_count": n + 2,
				"server_wait_seconds_count": number(r, "server_assignment_count"), "database_logins_total": 1} {
				if line := fmt.Sprintf("manada_proxy_%s%s} %d\n", name, at, value); !strings.Contains(text, line) {
					t.Errorf("metrics lack %s", line)
				}
			}
			for _, line := range []string{`manada_proxy_database_clients` + at + `,state="active"} 1`, `manada_proxy_query_seconds_bucket` + at + `,le="+Inf"}`} {
				if !strings.Contains(text, line) {
					t.Errorf("metrics lack %s", line)
				}
			}
			if mode != rules.Auto {
				return
			}
			query[int](t, app, "select 1 from pg_advisory_lock(1)")
			if p := table(t, admin, "show pins"); len(p) != 1 || p[0]["database"] != db || p[0]["reason"] != "a session's advisory lock" {
				t.Errorf("%v", p)
			}
			if !strings.Contains(scrape(f), `manada_proxy_pins_total{cluster="orders",node="db1",reason="a session's advisory lock"} 1`) {
				t.Error("the metrics do not know the pin")
			}
		})
	}
}

// toText is a number of the console as pgx gives it.
func toText(v any) any {
	if n, ok := v.(interface{ MarshalJSON() ([]byte, error) }); ok {
		b, _ := n.MarshalJSON()
		return string(b)
	}
	return v
}

func scrape(f *fixture) string {
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// However many databases there are, the metrics have a bounded number of lines.
func TestMetricsAreBounded(t *testing.T) {
	f := pooled(t, rules.Transaction, 2, nil)
	role := f.role(t, "login password 'x'")
	db := f.freshDatabase(t)
	for range 3 {
		c := connect(t, fmt.Sprintf("postgres://%s:x@%s/%s?sslmode=disable", role, f.Addr(session.ReadWrite), db))
		query[int](t, c, "select 1")
	}
	names := regexp.MustCompile(`(?m)^manada_proxy_[^ ]*database="([^"]*)"`)
	seen := map[string]bool{}
	lines := names.FindAllStringSubmatch(scrape(f), -1)
	for _, m := range lines {
		seen[m[1]] = true
	}
	if len(seen) != 1 || !seen[db] || len(lines) > 100 {
		t.Errorf("%d lines for %v", len(lines), seen)
	}
	if _, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:x@%s/nowhere?sslmode=disable", role, f.Addr(session.ReadWrite))); code(err) != "3D000" {
		t.Errorf("%v", err)
	}
	if strings.Contains(scrape(f), "nowhere") {
		t.Error("a database that does not exist is in the metrics")
	}
}
