package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
)

// clusterParameters: one command changes a parameter on every node; what would
// keep PostgreSQL from starting is refused.
func clusterParameters(t *testing.T) {
	e := shared(t, 2*time.Minute)
	s := e.healthy()
	everywhere := func(name, want string) {
		t.Helper()
		for _, node := range []string{"master", "slave"} {
			e.eventually(5*time.Second, name+" = "+want+" on "+node, func() string {
				if v := e.value(e.NodeDSN(node), "show "+name); v != want {
					return v
				}
				return ""
			})
		}
	}
	e.ok(e.manada("config", "set", "work_mem", "7MB"))
	everywhere("work_mem", "7MB")
	if !e.event(10*time.Second, "config_changed", "work_mem = 7MB for the cluster") {
		t.Error("the history does not tell of it")
	}
	if r := e.ok(e.manada("config", "show")); strings.Count(r.out, "cluster (manada config set)") != 2 {
		t.Errorf("config show does not say that it is the cluster's on both nodes:\n%s", r.out)
	}
	e.refused(e.manada("config", "set", "fsync", "off"), 2, "fsync cannot be set here: a crash would lose data")
	e.refused(e.manada("config", "set", "synchronous_standby_names", "*"), 2, "durability and want_k")
	e.refused(e.manada("config", "set", "work_mem", "banana"), 2, `invalid value for parameter "work_mem": "banana"`)
	e.refused(e.manada("config", "set", "work_men", "7MB"), 2, `unrecognized configuration parameter "work_men"`)
	e.refused(e.manada("config", "unset", "log_min_messages"), 2, "log_min_messages is not set for the cluster")
	everywhere("work_mem", "7MB")

	// It is there again after a power failure, and a new host's first start has it.
	if err := e.KillHost(standby(s)); err != nil {
		t.Fatal(err)
	}
	if err := e.StartHost(e.ctx, standby(s)); err != nil {
		t.Fatal(err)
	}
	e.healthy()
	everywhere("work_mem", "7MB")

	// What needs a restart is said, by the command and by the status.
	if r := e.ok(e.manada("config", "set", "max_connections", "201")); !strings.Contains(r.err, "started again") {
		t.Errorf("no word of the restart: %s%s", r.out, r.err)
	}
	e.eventually(10*time.Second, "word of it in status", func() string {
		if out := e.ok(e.manada("status")).out; strings.Count(out, "max_connections") < 2 {
			return out
		}
		return ""
	})
	for _, name := range []string{"max_connections", "work_mem"} {
		e.ok(e.manada("config", "unset", name))
	}
	everywhere("work_mem", "4MB")
	if now := e.healthy(); now.Epoch != s.Epoch {
		t.Errorf("epoch %d became %d", s.Epoch, now.Epoch)
	}
}

// repmgrFace: the program answers to the name repmgr.
func repmgrFace(t *testing.T) {
	e := shared(t, time.Minute)
	e.healthy()
	face := filepath.Join(t.TempDir(), "repmgr")
	if err := os.Symlink(bin, face); err != nil {
		t.Fatal(err)
	}
	repmgr := func(args ...string) result {
		cmd := exec.CommandContext(e.ctx, face, args...)
		out, errw := e.tempFile(), e.tempFile()
		defer out.Close()
		defer errw.Close()
		cmd.Stdout, cmd.Stderr, cmd.Env = out, errw, append(cleanEnv(nil), "MANADA_CONFIG="+e.Dir)
		_ = cmd.Run() // the exit code is looked at
		return result{line: strings.Join(cmd.Args, " "), out: readBack(out), err: readBack(errw), code: cmd.ProcessState.ExitCode()}
	}
	s := e.healthy()
	r := e.ok(repmgr("cluster", "show"))
	lines := strings.Split(r.out, "\n")
	if len(lines) != 5 || !strings.Contains(r.out, s.Primary) || strings.Contains(r.out, "backup") || !strings.Contains(r.out, "| * running |") ||
		!strings.Contains(r.out, "|   running | "+s.Primary) || !strings.HasPrefix(lines[2], " 1 ") || !strings.HasPrefix(lines[3], " 2 ") {
		t.Errorf("cluster show:\n%s%s", r.out, r.err)
	}
	if r := e.ok(repmgr("cluster", "show", "--csv")); r.out != "1,0,0\n2,0,1\n" && r.out != "1,0,1\n2,0,0\n" {
		t.Errorf("cluster show --csv: %q", r.out)
	}
	conf := filepath.Join(t.TempDir(), "repmgr.conf")
	if err := os.WriteFile(conf, []byte("node_id=2\nnode_name='"+standby(s)+"'\nfailover=automatic\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = e.ok(repmgr("node", "status", "-f", conf))
	for _, want := range []string{"Node \"" + standby(s) + "\":\n", "\tRole: standby\n", "\tUpstream node: " + s.Primary + " (ID: ", "\tReplication lag: 0 seconds\n", "\tLast replayed LSN: "} {
		if !strings.Contains(r.out, want) {
			t.Errorf("node status does not say %q:\n%s%s", want, r.out, r.err)
		}
	}
	for _, c := range []struct{ args, says string }{
		{"standby switchover", "manada switchover NODE"}, {"node check", "manada status --check"}, {"cluster show --dry-run", "--dry-run"},
		{"cluster shw", "unknown repmgr action 'cluster shw'"}, {"-f /nonexistent cluster show", `"/nonexistent" not found`},
	} {
		if r := repmgr(strings.Fields(c.args)...); r.code != 1 || !strings.Contains(r.err, c.says) || r.out != "" {
			t.Errorf("repmgr %s: exit %d, %s%s", c.args, r.code, r.out, r.err)
		}
	}
}

// manualAndEvents: a standby whose failover is manual is waited for, takes over
// only when it is told to, and a command hears of it.
func manualAndEvents(t *testing.T) {
	e := shared(t, 3*time.Minute)
	s := e.healthy()
	node := standby(s)
	dir, err := os.MkdirTemp(base, "told-")
	if err != nil {
		t.Fatal(err)
	}
	script, heard := filepath.Join(dir, "tell"), filepath.Join(dir, "heard")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write(script, "#!/bin/sh\nprintf '%s|' \"$@\" >>"+heard+"\necho >>"+heard+"\n", 0o755)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(e.Data, node, "manada.yaml")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text string) {
		t.Helper()
		agent := e.pid(node, "agent")
		write(file, text, 0o600)
		e.kill(e.pid(node, "run"), syscall.SIGHUP)
		e.eventually(20*time.Second, "another agent on "+node, func() string {
			if p := e.pids(node, "agent"); len(p) != 1 || p[0] == agent {
				return fmt.Sprint(p)
			}
			return ""
		})
	}
	reload(string(old) + "\nfailover: manual\nevents:\n  command: " + script + ` %n %e %r %s "%d"` + "\n")
	defer func() { write(file, string(old), 0o600) }()
	e.await("failover by order only on "+node, func(s cluster.Status) bool {
		n, _ := s.Node(node)
		return n.Failover == "manual" && s.K >= 1
	})
	l := e.write()
	if err := e.KillPostmaster(s.Primary); err != nil {
		t.Fatal(err)
	}
	l.more(50)
	if now := e.healthy(); now.Primary != s.Primary || now.Epoch == s.Epoch {
		t.Errorf("primary %s epoch %d after the postmaster of %s was killed in epoch %d", now.Primary, now.Epoch, s.Primary, s.Epoch)
	}
	if err := e.KillHost(s.Primary); err != nil {
		t.Fatal(err)
	}
	e.eventually(20*time.Second, "word that an order is waited for", func() string {
		if out := e.manada("explain", node).out; !strings.Contains(out, "manada failover "+node) {
			return out
		}
		return ""
	})
	e.ok(e.manada("failover", node))
	l.more(50)
	e.eventually(10*time.Second, "word of the promotion at the command", func() string {
		b, _ := os.ReadFile(heard)
		if !strings.Contains(string(b), "|promoted|repmgrd_failover_promote|1|"+node+" promoted to timeline ") {
			return string(b)
		}
		return ""
	})
	if err := e.StartHost(e.ctx, s.Primary); err != nil {
		t.Fatal(err)
	}
	reload(string(old))
	e.healthy()
	l.end("a manual failover", time.Minute)
}

// failbackAfterStart: the old primary's host was gone and is just being started;
// one command waits for it and gives it the lead again.
func failbackAfterStart(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.healthy()
	l := e.write()
	if err := e.KillHost(old.Primary); err != nil {
		t.Fatal(err)
	}
	if err := e.WaitOtherPrimary(e.ctx, old.Primary); err != nil {
		t.Fatal(err)
	}
	l.more(50)
	// Without the primary of before, the face of repmgr says what happened.
	e.await("the old primary gone", func(s cluster.Status) bool {
		n, _ := s.Node(old.Primary)
		return n.Former && n.Postgres == ""
	})
	started := make(chan error, 1)
	go func() { started <- e.StartHost(e.ctx, old.Primary) }()
	r := e.ok(e.manada("failback"))
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.err, "waiting until "+old.Primary+" is a synchronous standby") || !strings.Contains(r.out, old.Primary+" is the primary") {
		t.Errorf("it does not say what it waited for and what it did:\n%s%s", r.out, r.err)
	}
	if s := e.healthy(); s.Primary != old.Primary {
		t.Errorf("the primary is %s, not %s", s.Primary, old.Primary)
	}
	l.more(50)
	l.end("the primary's host killed, started and failed back to", 20*time.Second)
}
