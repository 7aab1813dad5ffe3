package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/test/herdtest"
	"manada/test/measure"
)

// hosts of a herd that `manada up` makes.
var hosts = []string{"master", "slave", "backup", "proxy"}

// env is a test with its herd.
type env struct {
	*testing.T
	*herdtest.Herd
	ctx context.Context
}

// keeper knows the herds of this run.
type keeper struct {
	shared *herdtest.Herd // nil: none is well
	all    []*herdtest.Herd
	made   int
}

var herds keeper

// dropAll removes every herd.
func (k *keeper) dropAll() {
	for _, h := range k.all {
		h.Remove()
	}
	k.all, k.shared = nil, nil
}

// folder is one for a new herd.
func (k *keeper) folder() string {
	k.made++
	return filepath.Join(base, fmt.Sprintf("herd%d", k.made))
}

// adopt takes a herd that runs as the shared one.
func (k *keeper) adopt(ctx context.Context, dir string) error {
	h, err := herdtest.Start(ctx, bin, dir)
	if h != nil {
		k.all = append(k.all, h)
	}
	if err == nil {
		k.shared = h
	}
	return err
}

// within gives a test its deadline.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// shared is the herd of the run, well and synchronous. It is made when there is
// none; a test that fails spoils it for the next ones.
func shared(t *testing.T, d time.Duration) *env {
	t.Helper()
	if herds.shared == nil {
		newHerd(t, within(t, 2*time.Minute))
	}
	ctx := within(t, d)
	e := &env{t, herds.shared, ctx}
	t.Cleanup(func() {
		if t.Failed() {
			e.dump()
			if !e.stillWell() {
				e.Remove()
				herds.shared = nil
			}
		}
	})
	e.healthy()
	return e
}

// newHerd makes the shared one.
func newHerd(t *testing.T, ctx context.Context) {
	t.Helper()
	dir := herds.folder()
	e := &env{t, &herdtest.Herd{Dir: dir, Data: dir}, ctx}
	ports, err := herdtest.OwnPorts()
	if err != nil {
		t.Fatal(err)
	}
	r := e.bare(append([]string{"up", "--dir", dir, "--timeout", "90s"}, ports...)...)
	if r.code == 0 {
		if err := herds.adopt(ctx, dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	e.dump()
	e.bare("down", "--wipe", "--yes", "--dir", dir)
	e.ok(r)
}

// stillWell says whether the next test can use the herd of one that failed.
func (e *env) stillWell() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second) // detached: the test's own may have ended
	defer cancel()
	_, err := e.WaitSync(ctx)
	return err == nil
}

// healthy waits for a primary with a synchronous standby and all voters.
func (e *env) healthy() cluster.Status {
	e.Helper()
	return e.await("a herd that is well", func(s cluster.Status) bool {
		return s.Primary != "" && s.K >= 1 && len(s.Sync) >= 1 && s.Store != nil && s.Store.Up == 3
	})
}

// await asks for the status until ok says so.
func (e *env) await(what string, ok func(cluster.Status) bool) cluster.Status {
	e.Helper()
	var s cluster.Status
	var err error
	e.eventually(time.Minute, what, func() string {
		if s, err = e.Status(e.ctx); err != nil {
			return err.Error()
		}
		if !ok(s) {
			return fmt.Sprintf("primary %q epoch %d k %d sync %v store %+v nodes %+v conditions %+v", s.Primary, s.Epoch, s.K, s.Sync, s.Store, s.Nodes, s.Conditions)
		}
		return ""
	})
	return s
}

// eventually asks until why is empty.
func (e *env) eventually(d time.Duration, what string, ask func() (why string)) {
	e.Helper()
	began := time.Now()
	for {
		why := ask()
		if why == "" {
			return
		}
		if e.ctx.Err() != nil || time.Since(began) > d {
			e.Fatalf("no %s after %s: %s", what, time.Since(began).Round(time.Millisecond), why)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// standby is the data node that does not lead.
func standby(s cluster.Status) string {
	if s.Primary == "master" {
		return "slave"
	}
	return "master"
}

// result of a command.
type result struct {
	line     string
	out, err string
	code     int
	took     time.Duration
}

// manada runs a command on the herd.
func (e *env) manada(args ...string) result {
	e.Helper()
	return e.run(exec.CommandContext(e.ctx, bin, append(args, "--dir", e.Dir)...))
}

// bare runs a command without naming the herd.
func (e *env) bare(args ...string) result {
	e.Helper()
	return e.run(exec.CommandContext(e.ctx, bin, args...))
}

func (e *env) run(cmd *exec.Cmd) result {
	e.Helper()
	began := time.Now()
	out, errw := e.tempFile(), e.tempFile() // no pipes: a daemon would keep them open
	defer out.Close()
	defer errw.Close()
	cmd.Stdout, cmd.Stderr, cmd.Env = out, errw, cleanEnv(cmd.Env)
	err := cmd.Run()
	r := result{line: strings.Join(cmd.Args, " "), out: readBack(out), err: readBack(errw), took: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		e.Fatalf("%s: %v", r.line, err)
	}
	return r
}

func (e *env) tempFile() *os.File {
	f, err := os.CreateTemp(base, "out-")
	if err != nil {
		e.Fatal(err)
	}
	os.Remove(f.Name())
	return f
}

func readBack(f *os.File) string {
	var b bytes.Buffer
	_, _ = f.Seek(0, 0)
	_, _ = b.ReadFrom(f)
	return b.String()
}

// cleanEnv keeps the caller's own settings away from what is tested.
func cleanEnv(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	return slices.DeleteFunc(env, func(s string) bool {
		return strings.HasPrefix(s, "MANADA_") || strings.HasPrefix(s, "PG")
	})
}

// ok wants success.
func (e *env) ok(r result) result {
	e.Helper()
	if r.code != 0 {
		e.Fatalf("%s: exit %d\n%s%s", r.line, r.code, r.out, r.err)
	}
	return r
}

// refused wants a failure that says what, where or why, and what to type next.
func (e *env) refused(r result, code int, says ...string) {
	e.Helper()
	text := r.out + r.err
	if r.code != code {
		e.Errorf("%s: exit %d, not %d\n%s", r.line, r.code, code, text)
	}
	for _, want := range append(says, "hint: ") {
		if !strings.Contains(text, want) {
			e.Errorf("%s: does not say %q:\n%s", r.line, want, text)
		}
	}
	if strings.Contains(text, "goroutine ") || strings.Contains(text, "Usage:") {
		e.Errorf("%s: a stack or the whole help instead of a message:\n%s", r.line, text)
	}
}

// pids are the processes of a host by name: run, store, agent, guardian,
// backupd, proxy.
func (e *env) pids(host, name string) []int {
	var out []int
	dir := filepath.Join(e.Data, host) + "/"
	for _, p := range below(e.Data) {
		if len(p.args) > 1 && p.args[1] == name && strings.Contains(strings.Join(p.args[2:], "\n"), dir) {
			out = append(out, p.pid)
		}
	}
	return out
}

// pid is the one process of that name.
func (e *env) pid(host, name string) int {
	e.Helper()
	p := e.pids(host, name)
	if len(p) != 1 {
		e.Fatalf("%s of %s: processes %v, one expected", name, host, p)
	}
	return p[0]
}

func (e *env) kill(pid int, sig syscall.Signal) {
	e.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		e.Fatalf("signal %s to %d: %v", sig, pid, err)
	}
}

// value is the one value of a query.
func (e *env) value(dsn, sql string) string {
	e.Helper()
	v, err := e.Value(e.ctx, dsn, sql)
	if err != nil {
		e.Fatalf("%s: %v", sql, err)
	}
	return v
}

// load is the writer of a test.
type load struct {
	*measure.Writer
	e     *env
	began time.Time
}

// write begins to commit over four connections.
func (e *env) write() *load {
	e.Helper()
	if err := measure.Prepare(e.ctx, e.DSN()); err != nil {
		e.Fatal(err)
	}
	l := &load{measure.Start(e.ctx, e.DSN(), 0), e, time.Now()}
	e.Cleanup(l.Stop)
	l.more(200)
	l.began = time.Now()
	return l
}

// more waits for that many further commits.
func (l *load) more(n int) {
	l.e.Helper()
	if err := l.WaitAcked(l.e.ctx, n); err != nil {
		l.e.Fatal(err)
	}
}

// end stops the writer, logs the outage and counts what was lost on both nodes.
func (l *load) end(what string, bound time.Duration) {
	l.e.Helper()
	l.more(20)
	l.Stop()
	out := l.Outage(l.began)
	l.e.Logf("%s: longest gap between commits %d ms, %d acknowledged, %d client errors", what, out.Milliseconds(), l.Acked(), l.ErrorCount())
	if out > bound {
		l.e.Errorf("%s: no commit for %s, more than %s", what, out, bound)
	}
	l.none(what)
}

// none of the acknowledged commits may be missing, on either node.
func (l *load) none(what string) {
	l.e.Helper()
	for _, node := range []string{"master", "slave"} {
		if err := l.e.WaitCaughtUp(l.e.ctx, node); err != nil {
			l.e.Fatal(err)
		}
		lost, err := l.Lost(l.e.ctx, l.e.NodeDSN(node))
		if err != nil {
			l.e.Fatal(err)
		}
		if len(lost) > 0 {
			l.e.Errorf("%s: %d of %d acknowledged commits are missing on %s: %v ...", what, len(lost), l.Acked(), node, lost[:min(10, len(lost))])
		}
	}
}

// dump says what is needed to understand a failure.
func (e *env) dump() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // detached: the test's own has ended
	defer cancel()
	out, _ := exec.CommandContext(ctx, bin, "status", "--dir", e.Dir).CombinedOutput()
	e.Logf("status at the end:\n%s", out)
	logs, _ := filepath.Glob(filepath.Join(e.Data, "*", "log", "*.log"))
	for _, f := range logs {
		b, _ := os.ReadFile(f)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		e.Logf("%s:\n%s", f, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}
