package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
)

// processesKilled: each process comes back by itself; PostgreSQL does not
// notice and nobody takes over.
func processesKilled(t *testing.T) {
	e := shared(t, 2*time.Minute)
	s := e.healthy()
	masters := map[string]int{"master": e.Postmaster("master"), "slave": e.Postmaster("slave")}
	l := e.write()
	for _, x := range []struct {
		host  string
		names []string
	}{
		{s.Primary, []string{"store", "agent", "guardian"}},
		{standby(s), []string{"store", "agent", "guardian"}},
		{"backup", []string{"store", "agent", "backupd"}},
		{"proxy", []string{"proxy"}},
	} {
		for _, name := range x.names {
			old := e.pid(x.host, name)
			began := time.Now()
			e.kill(old, syscall.SIGKILL)
			e.eventually(20*time.Second, name+" of "+x.host+" again", func() string {
				if p := e.pids(x.host, name); len(p) != 1 || p[0] == old {
					return fmt.Sprintf("processes %v, killed %d", p, old)
				}
				return ""
			})
			e.healthy()
			l.more(20)
			t.Logf("%s of %s killed: well again after %d ms", name, x.host, time.Since(began).Milliseconds())
			e.same(s, masters, name+" of "+x.host+" killed")
		}
	}
	l.end("each process killed once", bound)
}

// same wants the epoch and the postmasters of before.
func (e *env) same(s cluster.Status, masters map[string]int, what string) {
	e.Helper()
	now := e.healthy()
	if now.Primary != s.Primary || now.Epoch != s.Epoch {
		e.Fatalf("%s: primary %s of epoch %d became %s of epoch %d", what, s.Primary, s.Epoch, now.Primary, now.Epoch)
	}
	for node, pid := range masters {
		if p := e.Postmaster(node); p != pid {
			e.Fatalf("%s: the postmaster of %s was %d and is %d", what, node, pid, p)
		}
	}
}

// supervisorKilled: its processes die with it, PostgreSQL does not; `up` starts
// the host again, whose agent adopts what runs.
func supervisorKilled(t *testing.T) {
	e := shared(t, 2*time.Minute)
	s := e.healthy()
	masters := map[string]int{"master": e.Postmaster("master"), "slave": e.Postmaster("slave")}
	l := e.write()
	for _, host := range []string{s.Primary, standby(s)} {
		log := e.logFrom(host, "agent")
		e.kill(e.pid(host, "run"), syscall.SIGKILL)
		e.eventually(10*time.Second, "end of the processes of "+host, func() string {
			if left := append(append(e.pids(host, "agent"), e.pids(host, "store")...), e.pids(host, "run")...); len(left) > 0 {
				return fmt.Sprint(left)
			}
			return ""
		})
		l.more(20)
		r := e.ok(e.manada("up"))
		if !strings.Contains(r.err, "host "+host+" started") {
			t.Errorf("up does not say that it started %s:\n%s", host, r.err)
		}
		e.same(s, masters, "supervisor of "+host+" killed")
		if strings.Contains(log(), "epoch 0") {
			t.Errorf("the agent of %s took itself for a leader of epoch 0:\n%s", host, log())
		}
	}
	l.end("supervisors killed", bound)
}

// logFrom reads what a process writes into its log from now on.
func (e *env) logFrom(host, name string) func() string {
	f := filepath.Join(e.Data, host, "log", name+".log")
	before, _ := os.ReadFile(f)
	return func() string {
		b, _ := os.ReadFile(f)
		if len(b) < len(before) {
			return string(b) // it was cut
		}
		return string(b[len(before):])
	}
}

// storeFrozen: with every voter gone nothing changes, except that it is said.
func storeFrozen(t *testing.T) {
	e := shared(t, time.Minute)
	s := e.healthy()
	masters := map[string]int{"master": e.Postmaster("master"), "slave": e.Postmaster("slave")}
	l := e.write()
	var pids []int
	thaw := func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(thaw)
	for _, host := range hosts[:3] {
		pids = append(pids, e.pid(host, "store"))
		e.kill(pids[len(pids)-1], syscall.SIGSTOP)
	}
	frozen := time.Now()
	var r result
	e.eventually(20*time.Second, "word of the lost store", func() string {
		r = e.manada("status", "--check")
		quickly(e, r)
		if r.code != 3 || !strings.Contains(r.out, "M-S0") {
			return fmt.Sprintf("exit %d\n%s%s", r.code, r.out, r.err)
		}
		return ""
	})
	if !strings.Contains(r.out, "*"+s.Primary) {
		t.Errorf("the primary is not shown:\n%s", r.out)
	}
	e.refused(e.manada("switchover", standby(s)), 6, "the store did not answer", "whether")
	for time.Since(frozen) < 5*time.Second { // five times what makes a suspicion
		l.more(20)
	}
	thaw()
	pids = nil
	e.same(s, masters, "every voter of the store frozen")
	l.end("every voter of the store frozen", bound)
}

// quickly: `status` does not wait for the dead. (Under a second; twice that on
// a machine that runs other tests.)
func quickly(e *env, r result) {
	e.Helper()
	if r.took > 2*time.Second {
		e.Errorf("%s took %s", r.line, r.took.Round(time.Millisecond))
	}
}
