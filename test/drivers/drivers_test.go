package drivers

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"manada/test/herdtest"
)

// programs by driver; each is tried on PostgreSQL's port and on the proxy's.
var programs = map[string][]string{
	"node-postgres": {"node", "check.js"},
	"psycopg 2":     {"/usr/bin/python3", "check_psycopg2.py"},
	"psycopg 3":     {"/usr/bin/python3", "check_psycopg.py"},
	"pgjdbc":        {"java", "-cp", "/usr/share/java/postgresql.jar", "Check.java"},
}

func TestDrivers(t *testing.T) {
	if os.Getenv("MANADA_DRIVERS") == "" {
		t.Skip("make drivers installs the drivers and runs this")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
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
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			want := run(ctx, t, h, h.Port(s.Primary, "postgresql"), program)
			got := run(ctx, t, h, h.Port("proxy", "sql"), program)
			if len(want) < 10 {
				t.Errorf("it tried only %d things:\n%s", len(want), strings.Join(want, "\n"))
			}
			for i := range max(len(want), len(got)) {
				w, g := at(want, i), at(got, i)
				if w != g || strings.Contains(g, "FAILED") {
					t.Errorf("PostgreSQL %s\nproxy      %s", w, g)
				}
			}
		})
	}
}

func at(l []string, i int) string {
	if i < len(l) {
		return l[i]
	}
	return "(nothing)"
}

// run gives the lines that a driver's program prints.
func run(ctx context.Context, t *testing.T, h *herdtest.Herd, port int, program []string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	if program[0] == "node" {
		cmd.Dir = "../../bin/drivers/node"
	}
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(port), "PGUSER=postgres", "PGDATABASE=postgres", "PGPASSWORD="+h.Password(),
		"PGSSLMODE=disable", "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s on port %d: %v\n%s%s", program, port, err, out, errs.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
