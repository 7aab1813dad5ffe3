package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/porttest"
	"manada/internal/postgres"
	"manada/test/trust"
)

// A restore to a time before two switchovers, with hosts killed in the middle.
func TestTrustRestoreBeforeSwitchovers(t *testing.T) {
	if !trust.All() {
		t.Skip("TestHerd/RestoreBeforeSwitchovers is one of these runs")
	}
	for n := range trust.Runs(1, 10) {
		if !t.Run(fmt.Sprint(n), func(t *testing.T) { restoreBeforeSwitchovers(t, n) }) {
			break
		}
	}
}

// Bounds of a standby's way back after a restore.
const (
	syncAgainWithin = 30 * time.Second
	rewindsAtMost   = 3
)

// restoreBeforeSwitchovers: the standby comes back by itself onto a timeline that
// branches off one that the herd has left twice since. Which hosts are killed, and
// when, depends on n.
func restoreBeforeSwitchovers(t *testing.T, n int) {
	e := shared(t, 4*time.Minute)
	e.backedUp()
	e.value(e.DSN(), "create table if not exists e2e_retrace (n int)")
	e.value(e.DSN(), fmt.Sprintf("insert into e2e_retrace values (%d)", 10*n+1))
	at := e.value(e.DSN(), "select clock_timestamp() from pg_sleep(1.1)")
	if n%2 == 1 { // the target's segment is another one than the fork's
		e.value(e.DSN(), "select pg_switch_wal()")
	}
	for k := range 2 {
		e.value(e.DSN(), fmt.Sprintf("insert into e2e_retrace values (%d)", 10*n+2+k))
		e.ok(e.manada("switchover"))
		e.healthy()
	}
	if n == 0 {
		e.copyBeforeSwitchovers(at, 10*n)
	}
	l := e.write()
	before := e.healthy()
	l.Stop()
	done := e.background("restore", "--herd", "--target-time", at, "--yes")
	e.restoring("restore that has begun", func(string) bool { return true })
	began := e.killDuringRestore(n, before)
	opened := e.await("a primary of a restored epoch", func(s cluster.Status) bool { return s.Primary != "" && s.Epoch > before.Epoch })
	e.healthy()
	took := time.Since(began)
	if r := <-done; r.code != 0 {
		t.Logf("the command that watched it: exit %d\n%s%s", r.code, r.out, r.err)
	}
	history := e.ok(e.manada("history")).out
	history = history[strings.LastIndex(history, "restore_started"):]
	rewinds := 0
	for line := range strings.Lines(history) {
		if strings.Contains(line, "rewound") {
			rewinds++
		}
	}
	t.Logf("run %d: epoch %d opened, synchronous %s after the kill, %d rewinds", n, opened.Epoch, took.Round(time.Millisecond), rewinds)
	if took > syncAgainWithin || rewinds > rewindsAtMost {
		t.Errorf("synchronous again after %s, %d rewinds:\n%s", took, rewinds, history)
	}
	for _, node := range []string{"master", "slave"} {
		if err := e.WaitCaughtUp(e.ctx, node); err != nil {
			t.Fatal(err)
		}
		got := e.value(e.NodeDSN(node), fmt.Sprintf("select string_agg(n::text, ',' order by n) from e2e_retrace where n > %d", 10*n))
		if want := fmt.Sprint(10*n + 1); got != want {
			t.Errorf("%s has rows %s, not %s", node, got, want)
		}
	}
	e.historiesGrow()
}

// copyBeforeSwitchovers: a copy of that time begins a timeline of its own, whose
// history grows, and a standby of the copy follows it.
func (e *env) copyBeforeSwitchovers(at string, base int) {
	e.Helper()
	e.archiveAll(e.healthy().Primary)
	folder := e.ownedFolder(e.Data + "/backup")
	dir, standby := filepath.Join(folder, "copy"), filepath.Join(folder, "standby")
	e.asPrinted(e.ok(e.manada("restore", "--to", dir, "--target-time", at)), folder, func(psql func(string) string) {
		rows := fmt.Sprintf("select string_agg(n::text, ',' order by n) from e2e_retrace where n > %d", base)
		e.eventually(time.Minute, "end of recovery", func() string { return strings.Trim(psql("select pg_is_in_recovery()"), "f") })
		if got := psql(rows); got != fmt.Sprint(base+1) {
			e.Errorf("the copy has rows %s", got)
		}
		timeline := psql("select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)")
		if err := postgres.CheckHistory(filepath.Join(dir, "pg_wal", timeline+".history")); err != nil {
			e.Error(err)
		}
		hba, err := os.OpenFile(filepath.Join(dir, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprintf(hba, "local replication %s peer map=owner\n", cluster.RoleSuperuser)
			err = errors.Join(err, hba.Close())
		}
		if err != nil {
			e.Fatal(err)
		}
		psql("select pg_reload_conf()")
		shell := func(format string, args ...any) string {
			return e.ok(e.run(e.asOwner(exec.CommandContext(e.ctx, "sh", "-c", fmt.Sprintf(format, args...)), folder))).out
		}
		shell("%s/pg_basebackup -h %s -p %s -U %s -D %s -R -c fast -X none", pgbin, dir, psql("show port"), cluster.RoleSuperuser, standby)
		port, err := porttest.Pick()
		if err != nil {
			e.Fatal(err)
		}
		// The copy's own recovery, which is over, stands in its settings.
		ctl := func(what string) {
			shell(`%s/pg_ctl -D %s -l %s.log -o "-p %d -k %s -c restore_command= -c recovery_target_time=" -w %s`, pgbin, standby, standby, port, standby, what)
		}
		ctl("start")
		defer ctl("-m immediate stop")
		psql(fmt.Sprintf("insert into e2e_retrace values (%d)", base+9))
		e.eventually(time.Minute, "the standby of the copy has what was written since", func() string {
			got := strings.TrimSpace(shell(`psql -h %s -p %d -U %s postgres -XAtqc "%s"`, standby, port, cluster.RoleSuperuser, rows))
			return strings.TrimPrefix(got, fmt.Sprintf("%d,%d", base+1, base+9))
		})
	})
}

// killDuringRestore kills hosts at different moments of a restore, and starts them
// again; it returns when they were killed.
func (e *env) killDuringRestore(n int, before cluster.Status) time.Time {
	e.Helper()
	victims, when := []string{before.Primary}, "recover"
	switch n % 5 {
	case 1:
		victims = []string{standby(before)}
	case 2:
		victims, when = []string{before.Primary}, "again"
	case 3:
		victims = []string{before.Primary, standby(before)}
	case 4: // when it is about to be rewound
		victims, when = []string{standby(before)}, ""
	}
	e.eventually(time.Minute, "moment to kill "+strings.Join(victims, " and "), func() string {
		s, err := e.Status(e.ctx)
		if err != nil {
			return err.Error()
		}
		if s.Epoch > before.Epoch && s.Primary != "" {
			return "" // it is over already
		}
		for _, c := range s.Conditions {
			if c.Code == "M-R21" && when != "" && strings.Contains(c.Text, when) {
				return ""
			}
		}
		return fmt.Sprintf("%+v", s.Conditions)
	})
	began := time.Now()
	e.killHosts(victims...)
	for _, v := range victims {
		if err := e.StartHost(e.ctx, v); err != nil {
			e.Fatal(err)
		}
	}
	return began
}

// historiesGrow: no timeline's history anywhere goes back in time, neither on a
// node nor in the archive.
func (e *env) historiesGrow() {
	e.Helper()
	seen := 0
	err := filepath.WalkDir(e.Data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".history") { // the repository has a folder backup.history
			seen++
			if err := postgres.CheckHistory(path); err != nil {
				e.Errorf("%s: %v", path, err)
			}
		}
		return nil
	})
	if err != nil || seen == 0 {
		e.Errorf("%d histories, %v", seen, err)
	}
}
