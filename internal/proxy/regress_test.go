package proxy_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"
)

// postgresTests is where scripts/postgres-tests.sh puts PostgreSQL's own tests.
const postgresTests = "../../bin/postgres-tests"

// ownTests copies a folder of PostgreSQL's tests to where its user may write.
func (h *herd) ownTests(t *testing.T, name string) string {
	t.Helper()
	if os.Getenv("MANADA_POSTGRES_TESTS") == "" {
		t.Skip("make test and make regress set MANADA_POSTGRES_TESTS; scripts/postgres-tests.sh brings them")
	}
	if _, err := os.Stat(postgresTests + "/VERSION"); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(h.dir, strings.ReplaceAll(t.Name(), "/", "-"))
	if out, err := exec.Command("cp", "-r", filepath.Join(postgresTests, name), to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, _, ok := postgresUser(); ok {
		if out, err := exec.Command("chown", "-R", "postgres:postgres", to).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Cleanup(func() { os.RemoveAll(to) })
	return to
}

// suite runs pg_regress, or the isolation tester's twin, against an address and
// returns the names of the tests that failed, and what differs.
func (h *herd) suite(t *testing.T, program, dir, addr string, args ...string) (failed []string, diffs string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	cmd := h.command("../lib/pgxs/src/test/"+program, append([]string{"--host=" + host, "--port=" + port, "--user=postgres", "--bindir=" + pgBin,
		"--inputdir=" + dir, "--outputdir=" + dir, "--dlpath=" + dir, "--max-concurrent-tests=20"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PGPASSWORD=postgres", "PGSSLMODE=disable", "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if !bytes.Contains(out, []byte("tests passed")) && !bytes.Contains(out, []byte("tests failed")) {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:test)?\s*(\S+)\s+\.\.\. .*FAILED`).FindAllSubmatch(out, -1) {
		failed = append(failed, string(m[1]))
	}
	if err != nil && len(failed) == 0 {
		t.Errorf("%s: %v\n%s", program, err, out)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "regression.diffs"))
	t.Logf("%s through %s: %s", program, addr, time.Since(began).Round(time.Second))
	return failed, string(b)
}

// PostgreSQL's own regression suite passes through the proxy as it does without.
func TestPostgresRegressionSuite(t *testing.T) {
	for _, mode := range likeOwn {
		t.Run(mode.String(), func(t *testing.T) {
			f := own(t, mode)
			dir := f.ownTests(t, "regress")
			f.afterwards(t, "drop database if exists regression with (force)")
			failed, diffs := f.suite(t, "regress/pg_regress", dir, f.Addr(session.ReadWrite).String(), "--schedule="+dir+"/parallel_schedule")
			failed = slices.DeleteFunc(failed, func(test string) bool { return excused(t, mode, test, diffs) })
			if len(failed) > 0 {
				t.Errorf("%d fail: %s\n%.20000s", len(failed), strings.Join(failed, ", "), diffs)
			}
		})
	}
}

// excused says whether all in which a test's answers differ is in unlike.txt.
func excused(t *testing.T, mode rules.Mode, test, diffs string) bool {
	list, err := os.ReadFile("testdata/unlike.txt")
	if err != nil {
		t.Fatal(err)
	}
	var statements []string
	for line := range strings.Lines(string(list)) {
		if f := strings.Split(line, " | "); len(f) == 4 && slices.Contains(strings.Fields(f[0]), mode.String()) && f[1] == test {
			statements = append(statements, f[2])
		}
	}
	if slices.Contains(statements, "*") {
		return true
	}
	_, own, _ := strings.Cut(diffs, "/results/"+test+".out\n") // the command that compares
	own, _, _ = strings.Cut(own, "\ndiff -U3 ")
	hunks := strings.Split(own, "\n@@ ")[1:]
	for _, h := range hunks {
		known := false
		for line := range strings.Lines(h) {
			known = known || slices.ContainsFunc(statements, func(s string) bool { return strings.HasPrefix(strings.TrimSpace(line), s) })
		}
		if !known {
			return false
		}
	}
	return len(hunks) > 0 && len(hunks) <= len(statements)
}

// likeOwn are the modes in which a client finds a session of its own.
var likeOwn = []rules.Mode{rules.Session, rules.Auto}

// own is a proxy for one of them. In mode Auto few connections serve all, so that
// they change hands.
func own(t *testing.T, mode rules.Mode) *fixture {
	return pooled(t, mode, 30, nil)
}

// The tester of concurrent sessions passes through the proxy, where every client
// has a server of its own.
func TestPostgresIsolation(t *testing.T) {
	f := own(t, rules.Session)
	dir := f.ownTests(t, "isolation")
	f.afterwards(t, "drop database if exists isolation_regression with (force)")
	failed, diffs := f.suite(t, "isolation/pg_isolation_regress", dir, f.Addr(session.ReadWrite).String(),
		"--dbname=isolation_regression", "--schedule="+dir+"/isolation_schedule")
	if len(failed) > 0 {
		t.Errorf("%d fail: %s\n%.20000s", len(failed), strings.Join(failed, ", "), diffs)
	}
}

// traced are the tests of libpq_pipeline whose messages are compared with those
// that PostgreSQL's authors expect.
var traced = []string{"simple_pipeline", "nosync", "multi_pipelines", "prepared", "singlerow", "pipeline_abort", "pipeline_idle", "transaction", "disallowed_in_pipeline"}

// libpq's pipelines, message by message.
func TestPostgresPipelines(t *testing.T) {
	for _, mode := range likeOwn {
		t.Run(mode.String(), func(t *testing.T) { own(t, mode).pipelines(t) })
	}
}

func (f *fixture) pipelines(t *testing.T) {
	dir := f.ownTests(t, "libpq_pipeline")
	f.afterwards(t, "drop table if exists pq_pipeline_demo, pq_pipeline_tst, ppln_uniqviol")
	host, port, _ := net.SplitHostPort(f.Addr(session.ReadWrite).String())
	dsn := "host=" + host + " port=" + port + " user=postgres password=postgres dbname=postgres sslmode=disable"
	run := func(args ...string) []byte {
		cmd := f.command("", args...)
		cmd.Path, cmd.Dir = filepath.Join(dir, "libpq_pipeline"), dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
		return out
	}
	names := strings.Fields(string(run("tests")))
	if len(names) < 10 {
		t.Fatalf("tests: %v", names)
	}
	for _, name := range names {
		trace := filepath.Join(dir, name+".trace")
		run("-r", "700", "-t", trace, name, dsn)
		if !slices.Contains(traced, name) {
			continue
		}
		want, err := os.ReadFile(filepath.Join(dir, "traces", name+".trace"))
		got, err2 := os.ReadFile(trace)
		if err != nil || err2 != nil || !bytes.Equal(want, got) {
			t.Errorf("%s: %v %v: other messages:\n%s\nwant\n%s", name, err, err2, got, want)
		}
	}
}
