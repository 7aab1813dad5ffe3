package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// powerLoss: everything everywhere is killed; on the way the herd has no
// primary and then no host at all, which is said.
func powerLoss(t *testing.T) {
	e := shared(t, 3*time.Minute)
	e.healthy()
	l := e.write()
	e.killHosts("master", "slave")
	var r result
	e.eventually(20*time.Second, "word of the lost primary", func() string {
		r = e.manada("status", "--check")
		quickly(e, r)
		if r.code != 4 || !strings.Contains(r.out, "hint: ") {
			return fmt.Sprintf("exit %d\n%s%s", r.code, r.out, r.err)
		}
		return ""
	})
	e.refused(e.manada("switchover", "slave"), 4, "no primary")
	e.refused(e.manada("backup"), 4, "no primary")
	e.killHosts("backup", "proxy")
	l.Stop()
	r = e.manada("status", "--check")
	e.refused(r, 1, "no host of the herd answers", "hint: manada up")
	quickly(e, r)
	e.noProcess()
	r = e.ok(e.manada("up"))
	if !strings.Contains(r.out, "ready again, with its data") {
		t.Errorf("up after a power loss says:\n%s", r.out)
	}
	t.Logf("power loss: up again after %d ms; %d commits were acknowledged\n%s", r.took.Milliseconds(), l.Acked(), r.err)
	e.healthy()
	l.none("power loss")
}

// killHosts kills all processes of hosts at once.
func (e *env) killHosts(names ...string) {
	e.Helper()
	var wg sync.WaitGroup
	for _, host := range names {
		wg.Go(func() {
			if err := e.KillHost(host); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
}

func (e *env) noProcess() {
	e.Helper()
	if left := below(e.Data); len(left) > 0 {
		e.Errorf("processes are left: %v", left)
	}
}

func downAndUp(t *testing.T) {
	e := shared(t, 3*time.Minute)
	s := e.healthy()
	l := e.write()
	l.Stop()
	r := e.ok(e.manada("down"))
	t.Logf("down: %d ms", r.took.Milliseconds())
	e.noProcess()
	if again := e.ok(e.manada("down")); !strings.Contains(again.err, "did not run") {
		t.Errorf("down of a stopped herd says:\n%s", again.err)
	}
	e.refused(e.manada("status"), 1, "no host of the herd answers", "hint: manada up")
	r = e.ok(e.manada("up"))
	t.Logf("up: %d ms\n%s", r.took.Milliseconds(), r.err)
	if now := e.healthy(); now.Primary != s.Primary {
		t.Errorf("%s was the primary before down, %s is after up", s.Primary, now.Primary)
	}
	l.none("down and up")
	upOnRunning(e)
}

// lastPrimaryLost: a herd is shut down, standby first, so that the newest commits
// are on the primary alone; then the primary's disk is lost. Its last word and
// the archive let the standby lead with all of them.
func lastPrimaryLost(t *testing.T) {
	e := shared(t, 3*time.Minute)
	old := e.healthy()
	heir := standby(old)
	l := e.write()
	if err := e.StopHost(e.ctx, heir); err != nil {
		t.Fatal(err)
	}
	l.more(300)
	l.Stop()
	if err := e.StopHost(e.ctx, old.Primary); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(e.Data, old.Primary, "pgdata")); err != nil {
		t.Fatal(err)
	}
	e.ok(e.manada("up"))
	if s := e.healthy(); s.Primary != heir {
		t.Errorf("%s leads, not %s", s.Primary, heir)
	}
	l.none("the last primary's disk lost")
}

// upOnRunning: it prints the status and changes nothing.
func upOnRunning(e *env) {
	e.Helper()
	s := e.healthy()
	before := e.daemons()
	r := e.ok(e.manada("up"))
	if !strings.Contains(r.err, "nothing was changed") || !strings.Contains(r.out, "*"+s.Primary) {
		e.Errorf("up on a running herd says:\n%s%s", r.out, r.err)
	}
	if after := e.daemons(); after != before {
		e.Errorf("up on a running herd changed processes:\n%s\n%s", before, after)
	}
	if now := e.healthy(); now.Epoch != s.Epoch {
		e.Errorf("up on a running herd changed the epoch %d to %d", s.Epoch, now.Epoch)
	}
}

// daemons are our processes and the postmasters; backends come and go, and bear
// the postmaster's name when they are new.
func (e *env) daemons() string {
	var b strings.Builder
	for _, p := range below(e.Data) {
		if len(p.args) <= 2 {
			continue
		}
		postmaster := p.args[1] == "-D" && (p.pid == e.Postmaster("master") || p.pid == e.Postmaster("slave"))
		if postmaster || p.args[2] == "-c" || p.args[1] == "guardian" {
			fmt.Fprintln(&b, p)
		}
	}
	return b.String()
}

func wipe(t *testing.T) {
	e := shared(t, 2*time.Minute)
	e.refused(e.manada("down", "--wipe"), 2, "--yes")
	e.healthy()
	e.ok(e.manada("down", "--wipe", "--yes"))
	herds.shared = nil
	e.noProcess()
	for _, dir := range []string{e.Dir, e.Data} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	e.refused(e.manada("status"), 2, e.Dir)
	e.refused(e.manada("down"), 2, e.Dir)
}
