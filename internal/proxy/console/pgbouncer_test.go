package console

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"manada/internal/verb"

	"github.com/jackc/pgx/v5/pgconn"
)

//go:embed testdata/pgbouncer-1.26.txt
var pgbouncerText string

// pgbouncer is what PgBouncer answers, by what is in front of the colon.
func pgbouncer(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(pgbouncerText) {
		if name, what, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			out[name] = what
		}
	}
	if len(out) < 25 {
		t.Fatalf("the fixture has %d lines", len(out))
	}
	return out
}

// shown are the columns that a SHOW of ours has, and the first cell of each row.
func shown(t *testing.T, c *pgconn.PgConn, sql string) (columns string, first []string, err error) {
	t.Helper()
	r := c.Exec(t.Context(), sql)
	var cols []string
	for r.NextResult() {
		for _, f := range r.ResultReader().FieldDescriptions() {
			cols = append(cols, fmt.Sprintf("%s/%d", f.Name, f.DataTypeOID))
		}
		for r.ResultReader().NextRow() {
			first = append(first, string(r.ResultReader().Values()[0]))
		}
	}
	return strings.Join(cols, " "), first, r.Close()
}

// Whatever PgBouncer's console shows has the same columns here, by both protocols, or an
// error that says what to use instead.
func TestColumnsArePgBouncers(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Read)
	simple, extended := dial(t, addr, "").PgConn(), dial(t, addr, "").PgConn()
	ours := map[string]bool{"PINS": true}
	for name, want := range pgbouncer(t) {
		if strings.ContainsAny(name, " ") || name == "orders" || name == "settings" {
			continue
		}
		for _, sql := range []string{"show " + name, "SHOW " + strings.ToUpper(name) + ";"} {
			got, _, err := shown(t, simple, sql)
			if e, ok := errors.AsType[*pgconn.PgError](err); ok {
				if e.Code != "0A000" || e.Hint == "" || !strings.Contains(e.Message, strings.ToUpper(name)) {
					t.Errorf("%s: %v, hint %q", sql, err, e.Hint)
				}
				continue
			}
			if err != nil || got != want {
				t.Errorf("%s: %v\ngot  %s\nwant %s", sql, err, got, want)
			}
			var cols []string
			d, err := extended.Prepare(t.Context(), "", sql, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range d.Fields {
				cols = append(cols, fmt.Sprintf("%s/%d", f.Name, f.DataTypeOID))
			}
			if got := strings.Join(cols, " "); got != want {
				t.Errorf("%s by the extended protocol:\ngot  %s\nwant %s", sql, got, want)
			}
			ours[strings.ToUpper(name)] = true
		}
	}
	for _, s := range shows {
		if !ours[strings.ToUpper(s.name)] {
			t.Errorf("SHOW %s is compared with nothing", s.name)
		}
	}
}

// Rows that monitoring finds by their name are there under it, and in that order.
func TestFirstColumnIsPgBouncers(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Read)
	c := dial(t, addr, "").PgConn()
	for what, want := range pgbouncer(t) {
		name, ok := strings.CutPrefix(what, "first ")
		if !ok {
			continue
		}
		if _, got, err := shown(t, c, "show "+name); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, strings.Join(got, " "), want)
		}
	}
}

// Every command of PgBouncer's is one here, or its error says what to do instead.
func TestOrdersArePgBouncers(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Admin)
	c := dial(t, addr, "").PgConn()
	for _, word := range strings.Fields(pgbouncer(t)["orders"]) {
		if _, ok := verb.Order(word); ok {
			continue
		}
		for _, more := range []string{"", " max_client_conn = 5", " WAIT_FOR_CLIENTS"} {
			_, err := c.Exec(t.Context(), word+more).ReadAll()
			if word == "SET" && !strings.Contains(more, "=") {
				continue
			}
			e, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || e.Code != "0A000" || e.Hint == "" {
				t.Errorf("%s%s: %v", word, more, err)
			}
			if word == "SET" && e.Hint != "Change proxy.max_clients in the host's file; RELOAD has it read again." {
				t.Errorf("%s%s: hint %q", word, more, e.Hint)
			}
		}
	}
}

// The exporter of Prometheus and Datadog look for settings by PgBouncer's names.
func TestConfig(t *testing.T) {
	o := newOrders()
	o.Config = func() []Setting {
		return []Setting{{Key: "listen", Value: "0.0.0.0", Default: "127.0.0.1", AtStart: true}, {Key: "proxy.max_clients", Value: "1000", Default: "10000"},
			{Key: "proxy.pool.mode", Value: "auto", Default: "auto"}, {Key: "proxy.pool.lifetime", Value: "1h0m0s", Default: "30m0s"}}
	}
	addr, _ := serve(t, &o.Source, Read)
	r, err := dial(t, addr, "").PgConn().Exec(t.Context(), "show config").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range r[0].Rows {
		got = append(got, fmt.Sprintf("%s", row))
	}
	want := []string{"[listen 0.0.0.0 127.0.0.1 no]", "[proxy.max_clients 1000 10000 yes]", "[proxy.pool.mode auto auto yes]", "[proxy.pool.lifetime 1h0m0s 30m0s yes]",
		"[listen_addr 0.0.0.0 127.0.0.1 no]", "[max_client_conn 1000 10000 yes]", "[pool_mode auto auto yes]", "[server_lifetime 3600 1800 yes]"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
