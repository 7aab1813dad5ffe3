package e2e

import (
	"bufio"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/test/herdtest"
)

// interruption of a first run, when it prints a line.
type interruption struct {
	at     string
	signal syscall.Signal
}

// firstRunInterrupted: wherever the first `up` ends, the next one goes on, and
// processes that die meanwhile are started again.
func firstRunInterrupted(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	dir := herds.folder()
	e := &env{t, &herdtest.Herd{Dir: dir, Data: dir}, ctx}
	done := false
	t.Cleanup(func() {
		if !done {
			e.dump()
			e.bare("down", "--wipe", "--yes", "--dir", dir)
		}
	})
	for _, port := range []string{"5431", "8432"} {
		// Taken by us, or by somebody else already.
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			defer l.Close()
		}
	}
	usual := herds.folder()
	said, _ := e.upUntil(interruption{"founding", syscall.SIGKILL}, "--dir", usual)
	for _, want := range []string{"port 5431 is taken: the proxy listens on ", "port 8432 is taken: backup's repository listens on "} {
		if !strings.Contains(said, want) && !strings.Contains(said, "of the usual ports are taken here") { // other herds run here
			t.Errorf("up does not say %q:\n%s", want, said)
		}
	}
	e.ok(e.bare("down", "--wipe", "--yes", "--dir", usual))
	ports, err := herdtest.OwnPorts()
	if err != nil {
		t.Fatal(err)
	}
	options := append([]string{"--dir", dir}, ports...)
	for _, x := range []interruption{
		{"founding", syscall.SIGKILL},
		{"host master started", syscall.SIGINT},
		{"host slave started", syscall.SIGKILL},
		{"waiting:", syscall.SIGINT},
	} {
		out, code := e.upUntil(x, options...)
		if x.signal == syscall.SIGINT && (code != 130 || !strings.Contains(out, "hint: manada up")) {
			t.Errorf("SIGINT at %q: exit %d\n%s", x.at, code, out)
		}
	}
	// Nothing is well yet, and everything dies once.
	for _, x := range []struct{ host, name string }{{"master", "store"}, {"master", "agent"}, {"slave", "agent"}, {"backup", "store"}, {"master", "guardian"}} {
		for _, pid := range e.pids(x.host, x.name) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if pid := e.Postmaster("master"); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	r := e.ok(e.bare("up", "--dir", dir))
	if !strings.Contains(r.out, "postgresql://") || !strings.Contains(r.out, "Next:") {
		t.Errorf("up does not say what to do next:\n%s", r.out)
	}
	if err := herds.adopt(ctx, dir); err != nil {
		t.Fatal(err)
	}
	done = true
	e = shared(t, time.Minute)
	if v := e.value(e.DSN(), "select 1"); v != "1" {
		t.Errorf("select 1 = %s", v)
	}
}

// upUntil runs `up` and interrupts it at a line.
func (e *env) upUntil(x interruption, options ...string) (out string, code int) {
	e.Helper()
	cmd := exec.CommandContext(e.ctx, bin, append([]string{"up"}, options...)...)
	cmd.Env = cleanEnv(nil)
	r, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		e.Fatal(err)
	}
	hit := false
	for s := bufio.NewScanner(r); s.Scan(); {
		out += s.Text() + "\n"
		if !hit && strings.HasPrefix(s.Text(), x.at) {
			hit = true
			_ = cmd.Process.Signal(x.signal)
		}
	}
	_ = cmd.Wait()
	if !hit {
		e.Errorf("up never said %q:\n%s", x.at, out)
	}
	return out, cmd.ProcessState.ExitCode()
}
