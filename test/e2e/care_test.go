package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
)

// postmasterFrozen: a postmaster that hangs is a dead one; thawed it
// acknowledges nothing and its node rejoins.
func postmasterFrozen(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.healthy()
	l := e.write()
	mine, err := pgconn.Connect(e.ctx, e.NodeDSN(old.Primary))
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close(e.ctx)
	pid := e.Postmaster(old.Primary)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	e.kill(pid, syscall.SIGSTOP)
	e.takenOver(old)
	l.more(50)
	if p := e.Postmaster(old.Primary); p == pid {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been ended meanwhile
	}
	ctx, cancel := context.WithTimeout(e.ctx, 3*time.Second)
	defer cancel()
	if _, err := mine.Exec(ctx, "insert into manada_written (id, conn) values (-2, 0)").ReadAll(); err == nil {
		t.Error("the old primary acknowledged a commit after its epoch had ended")
	}
	e.healthy()
	l.end("the primary's postmaster frozen", 20*time.Second)
	if v := e.value(e.DSN(), "select count(*) from manada_written where id = -2"); v != "0" {
		t.Error("the commit of the old primary is there")
	}
}

// settingPutBack: ALTER SYSTEM beats a rendered file, silently; so it is undone
// at once and told.
func settingPutBack(t *testing.T) {
	e := shared(t, time.Minute)
	s := e.healthy()
	dsn := e.NodeDSN(s.Primary)
	e.value(dsn, "alter system set synchronous_standby_names = ''")
	began := time.Now()
	e.value(dsn, "select pg_reload_conf()")
	e.eventually(5*time.Second, "synchronous_standby_names put back", func() string {
		v := e.value(dsn, "show synchronous_standby_names")
		b, _ := os.ReadFile(filepath.Join(e.Data, s.Primary, "pgdata", "postgresql.auto.conf"))
		if !strings.Contains(v, standby(s)+"@e") || strings.Contains(string(b), "synchronous_standby_names") {
			return v + "\n" + string(b)
		}
		return ""
	})
	t.Logf("put back %d ms after the reload", time.Since(began).Milliseconds())
	e.eventually(5*time.Second, "word of it in status", func() string {
		if out := e.ok(e.manada("status")).out; !strings.Contains(out, "M-C01") || !strings.Contains(out, "synchronous_standby_names") {
			return out
		}
		return ""
	})
	if !e.event(10*time.Second, "config_changed", "synchronous_standby_names") {
		t.Error("the history does not tell of it")
	}
	if now := e.healthy(); now.Epoch != s.Epoch {
		t.Errorf("epoch %d became %d", s.Epoch, now.Epoch)
	}
}

// event looks for one in the herd's history, over HTTP.
func (e *env) event(within time.Duration, kind, text string) bool {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/v1/events?after=0", e.Port("backup", "http")), nil)
	if err != nil {
		e.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.Fatal(err)
	}
	defer resp.Body.Close()
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		if strings.Contains(s.Text(), kind) && strings.Contains(s.Text(), text) {
			return true
		}
	}
	return false
}

// slotLost: a standby stayed away until its slot gave up its WAL; it comes back
// from the archive, without a clone.
func slotLost(t *testing.T) {
	e := shared(t, 2*time.Minute)
	s := e.healthy()
	victim := standby(s)
	restore := e.configure("postgresql:\n  max_slot_wal_keep: 32MB\n  parameters:\n    wal_keep_size: 16MB\n")
	e.eventually(20*time.Second, "use of the changed configuration", func() string {
		if v := e.value(e.NodeDSN(s.Primary), "show max_slot_wal_keep_size"); v != "32MB" {
			return v
		}
		return ""
	})
	e.same(s, nil, "configuration reloaded")
	log := e.logFrom(victim, "agent")
	if err := e.KillHost(victim); err != nil {
		t.Fatal(err)
	}
	e.await("a primary that commits alone", func(s cluster.Status) bool { return s.K == 0 })
	dsn := e.NodeDSN(s.Primary)
	e.value(dsn, "create table if not exists e2e_slot (n int)")
	e.eventually(40*time.Second, "slot without its WAL", func() string {
		e.value(dsn, "insert into e2e_slot values (1)")
		e.value(dsn, "select pg_switch_wal()")
		e.value(dsn, "checkpoint")
		if v := e.value(dsn, "select wal_status from pg_replication_slots where slot_name = '"+cluster.SlotName(victim)+"'"); v != "lost" {
			return v
		}
		return ""
	})
	want := e.value(dsn, "select count(*) from e2e_slot")
	e.ok(e.manada("up"))
	e.healthy()
	if err := e.WaitCaughtUp(e.ctx, victim); err != nil {
		t.Fatal(err)
	}
	if got := e.value(e.NodeDSN(victim), "select count(*) from e2e_slot"); got != want {
		t.Errorf("%s has %s rows, the primary %s", victim, got, want)
	}
	if strings.Contains(log(), "action=clone") || strings.Contains(log(), "Clone") {
		t.Errorf("%s was cloned although the archive has everything:\n%s", victim, log())
	}
	e.eventually(20*time.Second, "slot with WAL again", func() string {
		if v := e.value(dsn, "select wal_status from pg_replication_slots where slot_name = '"+cluster.SlotName(victim)+"'"); v == "" || v == "lost" {
			return v
		}
		return ""
	})
	restore()
	e.same(s, nil, "configuration put back")
}

// configure adds to the configuration of both data hosts and tells them; the
// returned function takes it back.
func (e *env) configure(text string) (restore func()) {
	e.Helper()
	var undo []func()
	for _, host := range hosts[:2] {
		f := filepath.Join(e.Data, host, "manada.yaml")
		b, err := os.ReadFile(f)
		if err != nil {
			e.Fatal(err)
		}
		if err := os.WriteFile(f, append(b, text...), 0o644); err != nil {
			e.Fatal(err)
		}
		e.kill(e.pid(host, "run"), syscall.SIGHUP)
		undo = append(undo, func() {
			if err := os.WriteFile(f, b, 0o644); err != nil {
				e.Error(err)
			}
			for _, pid := range e.pids(host, "run") {
				_ = syscall.Kill(pid, syscall.SIGHUP)
			}
		})
	}
	return func() {
		for _, u := range undo {
			u()
		}
	}
}

// reconfigure gives a host another configuration, and starts a process again that
// takes it up only then.
func (e *env) reconfigure(host, process string, text []byte) {
	e.Helper()
	if err := os.WriteFile(filepath.Join(e.Data, host, "manada.yaml"), text, 0o600); err != nil {
		e.Fatal(err)
	}
	e.kill(e.pid(host, "run"), syscall.SIGHUP)
	e.eventually(20*time.Second, "word that "+host+" runs with the new configuration", func() string {
		now, err := os.ReadFile(filepath.Join(e.Data, host, "state", "manada.yaml.accepted"))
		if err != nil || !bytes.Equal(now, text) {
			return fmt.Sprintf("%s %v", now, err)
		}
		return ""
	})
	pid := e.pid(host, process)
	e.kill(pid, syscall.SIGTERM)
	e.eventually(20*time.Second, "another "+process+" of "+host, func() string {
		if p := e.pids(host, process); len(p) != 1 || p[0] == pid {
			return fmt.Sprint(p)
		}
		return ""
	})
}

// foreignDirectory: what stands in the place of a standby's data belongs to
// another database system. It is told, and never touched.
func foreignDirectory(t *testing.T) {
	e := shared(t, 3*time.Minute)
	s := e.healthy()
	victim := standby(s)
	if err := e.KillHost(victim); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(e.Data, victim, "pgdata")
	own := dir + ".own"
	if err := os.Rename(dir, own); err != nil {
		t.Fatal(err)
	}
	e.ok(e.run(e.asOwner(exec.CommandContext(e.ctx, filepath.Join(pgbin, "initdb"), "-N", "-D", dir, "-U", "postgres", "-A", "trust"), own)))
	marker := filepath.Join(dir, "somebody-elses")
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := e.systemID(dir)
	r := e.manada("up", "--timeout", "8s")
	e.refused(r, 1, victim)
	st := e.await("word of the foreign directory", func(s cluster.Status) bool {
		for _, c := range s.Conditions {
			if c.Node == victim && strings.Contains(c.Text, "system identifier") && c.Hint != "" {
				return true
			}
		}
		return false
	})
	if st.Primary != s.Primary || len(st.Sync) > 0 {
		t.Errorf("primary %s, sync %v", st.Primary, st.Sync)
	}
	if _, err := os.Stat(marker); err != nil || e.systemID(dir) != before {
		t.Fatalf("the foreign directory was changed: %v", err)
	}
	if err := e.KillHost(victim); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".foreign"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(own, dir); err != nil {
		t.Fatal(err)
	}
	e.ok(e.manada("up"))
	e.healthy()
	_ = os.RemoveAll(dir + ".foreign")
}

func (e *env) systemID(dir string) string {
	e.Helper()
	r := e.ok(e.run(e.asOwner(exec.CommandContext(e.ctx, filepath.Join(pgbin, "pg_controldata"), dir), dir)))
	for _, line := range strings.Split(r.out, "\n") {
		if v, ok := strings.CutPrefix(line, "Database system identifier:"); ok {
			return strings.TrimSpace(v)
		}
	}
	e.Fatal(r.out)
	return ""
}
