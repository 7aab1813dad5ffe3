package drivers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/test/herdtest"
)

// programs by driver; each is tried on PostgreSQL's port and on the proxy's.
var programs = map[string][]string{
	"node-postgres": {"node", "node/check.js"},
	"psycopg 2":     {"/usr/bin/python3", "check_psycopg2.py"},
	"psycopg 3":     {"/usr/bin/python3", "check_psycopg.py"},
	"pgjdbc":        {"java", "-cp", "/usr/share/java/postgresql.jar", "Check.java"},
}

// modes of the pool, each with a database of its own. In mode transaction what needs
// a session is left out.
var modes = []string{"session", "transaction", "auto"}

// copies of a program run at once, so that the connections that they share change
// hands.
const copies = 3

func TestDrivers(t *testing.T) {
	if os.Getenv("MANADA_DRIVERS") == "" {
		t.Skip("make drivers installs the drivers and runs this")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	h, err := herdtest.StartTree(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Remove)
	s, err := h.WaitSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pools := "\nproxy:\n  pool:\n    overrides:\n"
	for _, mode := range modes {
		pools += "      in_" + mode + ": mode=" + mode + " size=8\n"
		if _, err := h.Value(ctx, h.NodeDSN(s.Primary), "create database in_"+mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Configure(ctx, "proxy", pools); err != nil {
		t.Fatal(err)
	}
	for name, program := range programs {
		for _, mode := range modes {
			t.Run(name+"/"+mode, func(t *testing.T) {
				want := run(ctx, t, h, h.Port(s.Primary, "postgresql"), mode, program)[0]
				if len(want) < 10 {
					t.Errorf("it tried only %d things:\n%s", len(want), strings.Join(want, "\n"))
				}
				for _, got := range run(ctx, t, h, h.Port("proxy", "sql"), mode, slices.Repeat([][]string{program}, copies)...) {
					compare(t, mode, want, got)
				}
			})
		}
	}
}

// compare holds what the proxy's port gave against PostgreSQL's. Who shares connections
// may be spared the error of a plan that a change of its table has made useless.
func compare(t *testing.T, mode string, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		w, g := at(want, i), at(got, i)
		if mode != "session" && strings.Contains(w, "cached plan must not change result type") && strings.HasPrefix(g, strings.Split(w, " failed: ")[0]+": ") {
			continue
		}
		if w != g || strings.Contains(g, "FAILED") {
			t.Errorf("PostgreSQL %s\nproxy      %s", w, g)
		}
	}
}

func at(l []string, i int) string {
	if i < len(l) {
		return l[i]
	}
	return "(nothing)"
}

// run gives the lines that drivers' programs print, which run at once, each in a
// schema of its own.
func run(ctx context.Context, t *testing.T, h *herdtest.Herd, port int, mode string, programs ...[]string) [][]string {
	t.Helper()
	out := make([][]string, len(programs))
	dsn := strings.Replace(h.DSN(), "dbname=postgres", "dbname=in_"+mode, 1)
	var all sync.WaitGroup
	for i, program := range programs {
		schema := fmt.Sprintf("s%d", i)
		if _, err := h.Value(ctx, dsn, "drop schema if exists "+schema+" cascade; create schema "+schema); err != nil {
			t.Fatal(err)
		}
		all.Go(func() { out[i] = one(ctx, t, h, port, mode, schema, program) })
	}
	all.Wait()
	return out
}

func one(ctx context.Context, t *testing.T, h *herdtest.Herd, port int, mode, schema string, program []string) []string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(port), "PGUSER=postgres", "PGDATABASE=in_"+mode, "PGPASSWORD="+h.Password(),
		"PGSSLMODE=disable", "PGOPTIONS=-c search_path="+schema, "NODE_PATH=../../bin/drivers/node/node_modules", "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8")
	if mode == "transaction" {
		cmd.Env = append(cmd.Env, "STATELESS=1")
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s on port %d: %v\n%s%s", program, port, err, out, errs.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
