package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
)

// background is a command that goes on while the test does something to it.
func (e *env) background(args ...string) <-chan result {
	done := make(chan result, 1)
	go func() { done <- e.run(exec.CommandContext(e.ctx, bin, append(args, "--dir", e.Dir)...)) }()
	return done
}

// restoring waits until the status says that the herd is being restored, and
// what it does for it.
func (e *env) restoring(what string, does func(phase string) bool) {
	e.Helper()
	e.await(what, func(s cluster.Status) bool {
		for _, c := range s.Conditions {
			if c.Code == "M-R21" && does(c.Text) {
				return true
			}
		}
		return false
	})
}

// backedUp makes sure of a backup.
func (e *env) backedUp() {
	e.Helper()
	if len(e.labels()) == 0 {
		e.ok(e.manada("backup", "--type", "full"))
	}
}

// restoreEverything: without a target no acknowledged commit is lost, nothing is
// asked, and nobody has to be rewound.
func restoreEverything(t *testing.T) {
	e := shared(t, 3*time.Minute)
	e.backedUp()
	before := e.healthy()
	l := e.write()
	plan := e.ok(e.manada("restore", "--herd", "--dry-run"))
	if !strings.Contains(plan.out, "UNDONE  nothing") || !strings.Contains(plan.out, "data of   "+before.Primary) {
		t.Errorf("the plan:\n%s", plan.out)
	}
	r := e.ok(e.manada("restore", "--herd"))
	t.Logf("%s%s", r.out, r.err)
	if !strings.Contains(r.out, "synchronous with "+standby(before)) || !strings.Contains(r.out, "manada backup --type full") {
		t.Errorf("the result:\n%s", r.out)
	}
	after := e.healthy()
	if after.Epoch != before.Epoch+1 || after.Primary != before.Primary {
		t.Errorf("epoch %d of %s, then %d of %s", before.Epoch, before.Primary, after.Epoch, after.Primary)
	}
	l.end("restore of everything", time.Minute)
	for _, word := range []string{"rewound", "cloned"} {
		if out := e.ok(e.manada("history")).out; strings.Contains(out[strings.LastIndex(out, "restore_started"):], word) {
			t.Errorf("a standby was %s although it had nothing more:\n%s", word, out)
		}
	}
	e.refused(e.manada("restore", "--herd", "--undo"), 1, "no restore of the herd is under way", "cannot be undone")
}

// restoreToTime: what was committed after the time is gone on both nodes, what
// was before is there; and again over the line that this began.
func restoreToTime(t *testing.T) {
	e := shared(t, 4*time.Minute)
	e.backedUp()
	e.value(e.DSN(), "create table if not exists e2e_past (n int)")
	for round := range 2 {
		n := 10 * round
		e.value(e.DSN(), fmt.Sprintf("insert into e2e_past values (%d)", n+1))
		at := e.value(e.DSN(), "select clock_timestamp() from pg_sleep(1.1)")
		e.value(e.DSN(), fmt.Sprintf("insert into e2e_past values (%d)", n+2))
		e.refused(e.manada("restore", "--herd", "--type=time", "--target="+at), 5, "nobody is there to confirm")
		args := []string{"restore", "--herd", "--type=time", "--target=" + at, "--yes"}
		if round == 0 {
			args = []string{"restore", "--herd", "--target-time", at, "--yes", "--keep-old"}
		}
		r := e.ok(e.manada(args...))
		t.Logf("%s", r.out)
		if !strings.Contains(r.out, "UNDONE  everything committed after") {
			t.Errorf("the plan does not say what is undone:\n%s", r.out)
		}
		s := e.healthy()
		for _, node := range []string{s.Primary, standby(s)} {
			if err := e.WaitCaughtUp(e.ctx, node); err != nil {
				t.Fatal(err)
			}
			want := strings.Join([]string{"1", "1,11"}[round:round+1], "")
			if got := e.value(e.NodeDSN(node), "select string_agg(n::text, ',' order by n) from e2e_past"); got != want {
				t.Errorf("round %d: %s has rows %s, not %s", round, node, got, want)
			}
		}
		e.eventually(20*time.Second, "end of what was kept", func() string {
			left, _ := filepath.Glob(filepath.Join(e.Data, "*", "*.before-restore-*"))
			return strings.Join(left, " ")
		})
	}
	// A time after the last commit.
	e.value(e.DSN(), "insert into e2e_past values (99)")
	at := e.value(e.DSN(), "select clock_timestamp()")
	e.ok(e.manada("restore", "--herd", "--target-time", at, "--yes"))
	if got := e.value(e.healthyDSN(), "select string_agg(n::text, ',' order by n) from e2e_past"); got != "1,11,99" {
		t.Errorf("restored to a time after the last commit: rows %s", got)
	}
	// The archive is whole to others, the last segment of each line included.
	if r := e.ok(e.pgbackrest("verify")); strings.Contains(r.out+r.err, "rror") || strings.Contains(r.out, "missing") {
		t.Errorf("pgbackrest verify:\n%s%s", r.out, r.err)
	}
	// Unreachable: refused before anything is done.
	e.refused(e.manada("restore", "--herd", "--target-time", "2001-01-01 00:00:00Z", "--yes"), 1, "no backup ended before", "Possible are targets from")
	e.refused(e.manada("restore", "--herd", "--target-time", "2101-01-01 00:00:00Z", "--yes"), 2, "future")
	e.healthy()
}

// healthyDSN is the entry point of a herd that is well.
func (e *env) healthyDSN() string {
	e.Helper()
	e.healthy()
	return e.DSN()
}

// restoreKilled: the agent, then all of the restoring host are killed in the
// middle. It goes on by itself, and the same command watches it.
func restoreKilled(t *testing.T) {
	e := shared(t, 4*time.Minute)
	e.backedUp()
	l := e.write()
	s := e.healthy()
	done := e.background("restore", "--herd")
	e.restoring("restore that has begun", func(string) bool { return true })
	e.kill(e.pid(s.Primary, "agent"), syscall.SIGKILL)
	e.restoring("restore that goes on", func(p string) bool { return strings.Contains(p, "recover") || strings.Contains(p, "restoring") })
	if err := e.KillHost(s.Primary); err != nil {
		t.Fatal(err)
	}
	e.refused(e.manada("switchover"), 1, "being restored")
	if err := e.StartHost(e.ctx, s.Primary); err != nil {
		t.Fatal(err)
	}
	e.ok(e.manada("restore", "--herd", "--resume"))
	e.ok(<-done)
	l.end("restore killed twice", 2*time.Minute)
}

// restoreUndone: a restore that cannot end is undone, and a standby, which has
// everything, takes over; then one whose old data was kept.
func restoreUndone(t *testing.T) {
	e := shared(t, 4*time.Minute)
	e.backedUp()
	l := e.write()
	before := e.healthy()
	done := e.background("restore", "--herd", "--target-name", "never", "--yes")
	e.await("restore that is stuck", func(s cluster.Status) bool {
		for _, c := range s.Conditions {
			if c.Code == "M-R22" && strings.Contains(c.Text, "never came") {
				return true
			}
		}
		return false
	})
	if r := <-done; r.code != 1 || !strings.Contains(r.err, "--undo") {
		t.Errorf("watching it: exit %d\n%s%s", r.code, r.out, r.err)
	}
	e.refused(e.manada("restore", "--herd"), 1, "another restore is under way")
	if err := e.KillHost(before.Primary); err != nil { // for good, as far as anybody knows
		t.Fatal(err)
	}
	e.ok(e.manada("restore", "--herd", "--undo"))
	if err := e.StartHost(e.ctx, before.Primary); err != nil {
		t.Fatal(err)
	}
	after := e.healthy()
	if after.Primary != standby(before) {
		t.Errorf("%s leads; the data of %s was replaced, so %s had to take over", after.Primary, before.Primary, standby(before))
	}
	done = e.background("restore", "--herd", "--target-name", "never", "--yes", "--keep-old")
	e.restoring("restore that replaces data", func(p string) bool { return strings.Contains(p, "recover") || strings.Contains(p, "restoring") })
	e.ok(e.manada("restore", "--herd", "--undo"))
	<-done
	if s := e.healthy(); s.Primary != after.Primary {
		t.Errorf("%s leads; the data of %s was kept", s.Primary, after.Primary)
	}
	l.end("restores undone", 2*time.Minute)
}
