package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

// bound of an outage on a machine that does other things too.
const bound = 10 * time.Second

func postmasterKilled(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.healthy()
	l := e.write()
	if err := e.KillPostmaster(old.Primary); err != nil {
		t.Fatal(err)
	}
	e.toldWhy(e.takenOver(old), "PostgreSQL died")
	l.more(100)
	began := time.Now()
	s := e.healthy() // nobody does anything: the old primary rejoins by itself
	if n, _ := s.Node(old.Primary); n.Sync != cluster.SyncMember {
		t.Errorf("%s is %q, not a synchronous standby", old.Primary, n.Sync)
	}
	t.Logf("the old primary was a synchronous standby again %d ms after the first commits", time.Since(began).Milliseconds())
	l.end("SIGKILL of the primary's postmaster", bound)
}

// toldWhy: the history says why the epoch began, where its WAL goes on, and how
// long it took.
func (e *env) toldWhy(s cluster.Status, words ...string) {
	e.Helper()
	words = append(words, "its WAL goes on at ", fmt.Sprintf("%s leads epoch %d", s.Primary, s.Epoch), " s after the first sign of it")
	e.eventually(10*time.Second, "why epoch "+fmt.Sprint(s.Epoch)+" began", func() string {
		out, of := e.manada("history").out, ""
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 4 && f[3] == fmt.Sprint(s.Epoch) {
				of += line
			}
		}
		for _, w := range words {
			if !strings.Contains(of, w) {
				return "does not say " + w + ":\n" + out
			}
		}
		return ""
	})
}

// takenOver waits until another node leads a newer, open epoch.
func (e *env) takenOver(old cluster.Status) cluster.Status {
	e.Helper()
	return e.await("takeover", func(s cluster.Status) bool {
		return s.Primary != "" && s.Primary != old.Primary && s.Epoch > old.Epoch
	})
}

// primaryHostKilled: nothing of the host is left; its directory still says
// primary.
func primaryHostKilled(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.healthy()
	l := e.write()
	if err := e.KillHost(old.Primary); err != nil {
		t.Fatal(err)
	}
	e.toldWhy(e.takenOver(old), "is silent")
	l.more(100)
	startGate(e, old.Primary)
	e.ok(e.manada("up"))
	s := e.healthy()
	if s.Primary == old.Primary {
		t.Errorf("%s leads again without having been asked to", old.Primary)
	}
	l.end("all processes of the primary's host killed", bound)
	if v := e.value(e.DSN(), "select count(*) from manada_written where id < 0"); v != "0" {
		t.Errorf("%s rows of a commit that nobody acknowledged are there", v)
	}
}

// startGate starts the postmaster by hand on the directory of a former primary:
// it must never acknowledge alone (C5).
func startGate(e *env, node string) {
	e.Helper()
	// A postmaster that was killed is in its postmaster.pid until init has
	// reaped it.
	old := e.Postmaster(node)
	e.eventually(20*time.Second, "end of the old postmaster", func() string {
		if err := syscall.Kill(old, 0); old != 0 && !errors.Is(err, syscall.ESRCH) {
			return fmt.Sprint(old, err)
		}
		return ""
	})
	p := e.startByHand(e.Data + "/" + node + "/pgdata")
	commit := p.psqlStart("insert into manada_written (id, conn) values (-1, 0)")
	e.eventually(20*time.Second, "commit that waits for a standby", func() string {
		select {
		case err := <-commit:
			e.Fatalf("a postmaster started by hand answered a commit (%v)", err)
		default:
		}
		v, err := p.psql("select count(*) from pg_stat_activity where wait_event = 'SyncRep' and backend_type = 'client backend'")
		if err != nil || v != "1" {
			return fmt.Sprintf("%s waiting, %v", v, err)
		}
		return ""
	})
	select {
	case <-commit:
		e.Error("the commit was answered")
	case <-time.After(500 * time.Millisecond): // it would come at once or never
	}
	p.kill()
	if err := <-commit; err == nil {
		e.Error("the commit was acknowledged in the end")
	}
}

func standbyHostKilled(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.healthy()
	victim := standby(old)
	l := e.write()
	if err := e.KillHost(victim); err != nil {
		t.Fatal(err)
	}
	s := e.await("a primary that commits alone", func(s cluster.Status) bool { return s.K == 0 && len(s.Sync) == 0 })
	if s.Primary != old.Primary || s.Epoch != old.Epoch {
		t.Errorf("the primary was %s of epoch %d and is %s of epoch %d", old.Primary, old.Epoch, s.Primary, s.Epoch)
	}
	l.more(100)
	if r := e.manada("status", "--check"); r.code != 3 || !strings.Contains(r.out, "M-R04") || r.took > 2*time.Second {
		t.Errorf("status --check while degraded: exit %d in %s\n%s%s", r.code, r.took, r.out, r.err)
	}
	e.refused(e.manada("switchover", victim), 5, victim, "not a synchronous standby")
	e.refused(e.manada("failback", victim, "--timeout", "1s"), 1, victim, "nothing was changed")
	e.ok(e.manada("up"))
	e.healthy()
	l.end("all processes of the standby's host killed", bound)
}

// primaryHostStopped: SIGTERM of its supervisor is a switchover first, which
// nobody has to detect.
func primaryHostStopped(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.healthy()
	l := e.write()
	if err := e.StopHost(e.ctx, old.Primary); err != nil {
		t.Fatal(err)
	}
	s := e.takenOver(old)
	l.more(100)
	if s.Epoch != old.Epoch+1 {
		t.Errorf("from epoch %d to %d for one switchover", old.Epoch, s.Epoch)
	}
	r := e.ok(e.manada("history"))
	if want := "switchover from " + old.Primary; !strings.Contains(lastLines(r.out, 12), want) {
		t.Errorf("the history does not say %q:\n%s", want, r.out)
	}
	e.ok(e.manada("up"))
	e.healthy()
	l.end("the primary's host stopped in order", bound)
}

// standbyHostStopped: it leaves sync before it goes, so that no commit waits for
// a time-out.
func standbyHostStopped(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.healthy()
	victim := standby(old)
	l := e.write()
	if err := e.StopHost(e.ctx, victim); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(e.Data, victim, "log", "agent.log"))
	if err != nil || !strings.Contains(string(log), "left the synchronous standbys before this host is stopped") {
		t.Errorf("%s did not leave sync first: %v", victim, err)
	}
	s := e.await("a primary that commits alone", func(s cluster.Status) bool { return s.K == 0 && len(s.Sync) == 0 })
	if s.Primary != old.Primary || s.Epoch != old.Epoch {
		t.Errorf("the primary was %s of epoch %d and is %s of epoch %d", old.Primary, old.Epoch, s.Primary, s.Epoch)
	}
	l.more(100)
	e.await("word that it was stopped in order", func(s cluster.Status) bool {
		n, _ := s.Node(victim)
		return n.State == cluster.StateStopped && told(s, "M-R29") && !told(s, "M-R10") && !told(s, "M-R11")
	})
	e.ok(e.manada("up"))
	e.healthy()
	l.end("the standby's host stopped in order", bound)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func switchover(t *testing.T) {
	e := shared(t, 2*time.Minute)
	first := e.healthy()
	l := e.write()
	r := e.ok(e.manada("switchover", standby(first)))
	s := e.healthy()
	if s.Primary != standby(first) || !strings.Contains(r.out, s.Primary+" is the primary") {
		t.Errorf("the primary is %s, switched over to %s: %s", s.Primary, standby(first), r.out)
	}
	e.toldWhy(s, "switchover from "+first.Primary, "ordered by ")
	l.more(50)
	e.ok(e.manada("failback"))
	if s := e.healthy(); s.Primary != first.Primary {
		t.Errorf("after the failback the primary is %s, not %s", s.Primary, first.Primary)
	}
	l.end("switchover and failback", bound)
}

// splitReads turns the split of reads on, on the host whose proxy is used, for
// as long as it takes to see both nodes answer.
func (e *env) splitReads(sql func(uri, q string) string, uri string) {
	e.T.Helper()
	file := filepath.Join(e.Data, "proxy", "manada.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		e.T.Fatal(err)
	}
	restart := func(text []byte) {
		e.reconfigure("proxy", "proxy", text)
		e.eventually(20*time.Second, "another proxy", func() string {
			c, err := pgconn.Connect(e.ctx, uri)
			if err != nil {
				return err.Error()
			}
			c.Close(e.ctx)
			return ""
		})
	}
	restart(append(bytes.Clone(before), "\nproxy:\n  split: on\n"...))
	defer restart(before)
	homes := map[string]bool{}
	e.eventually(10*time.Second, "sessions that read on both nodes", func() string {
		homes[sql(uri, "select standby from e2e_node")] = true
		if !homes["t"] || !homes["f"] {
			return fmt.Sprint(homes)
		}
		return ""
	})
	if v := sql(uri, "show pool_nodes"); strings.Count(v, "|up|up|0.500000|") != 2 {
		e.T.Errorf("show pool_nodes:\n%s", v)
	}
}

// clients: what is printed works when pasted, any role logs in through the
// proxy, and its ports go where they say.
func clients(t *testing.T) {
	e := shared(t, time.Minute)
	uri := strings.TrimSpace(e.ok(e.manada("uri")).out)
	sql := func(uri, q string) string {
		return strings.TrimSpace(e.ok(e.run(exec.CommandContext(e.ctx, "psql", "-XAtqc", q, uri))).out)
	}
	sql(uri, "create or replace view e2e_node as select pg_is_in_recovery() standby")
	for range 4 {
		if v := sql(uri, "select pg_is_in_recovery()::text || standby from e2e_node"); v != "falsefalse" {
			t.Errorf("%s goes to a standby", uri)
		}
	}
	if v := sql(uri, "show pool_nodes"); strings.Count(v, "|up|up|") != 2 || !strings.Contains(v, "|up|up|1.000000|primary|") || !strings.Contains(v, "|streaming|quorum|") {
		t.Errorf("show pool_nodes:\n%s", v)
	}
	e.splitReads(sql, uri)
	sql(uri, "drop role if exists e2e_app; create role e2e_app login password 'a pass%word'")
	e.eventually(10*time.Second, "role on both nodes", func() string {
		for want, dsn := range map[string]string{"f": e.DSN(), "t": e.ReadOnlyDSN()} {
			c, err := pgconn.ParseConfig(dsn)
			if err != nil {
				return err.Error()
			}
			c.User, c.Password = "e2e_app", "a pass%word"
			conn, err := pgconn.ConnectConfig(e.ctx, c)
			if err != nil {
				return err.Error()
			}
			res := conn.ExecParams(e.ctx, "/*NO LOAD BALANCE*/ select pg_is_in_recovery()::text || current_user", nil, nil, nil, nil).Read()
			conn.Close(e.ctx)
			if res.Err != nil || string(res.Rows[0][0]) != map[string]string{"f": "false", "t": "true"}[want]+"e2e_app" {
				return fmt.Sprintf("%s: %v %s", dsn, res.Err, res.Rows)
			}
		}
		return ""
	})
	var j struct {
		URI string `json:"uri"`
	}
	if err := json.Unmarshal([]byte(e.ok(e.manada("uri", "--read-only", "-o", "json")).out), &j); err != nil {
		t.Fatal(err)
	}
	if v := sql(j.URI, "select pg_is_in_recovery()"); v != "t" {
		t.Errorf("%s goes to the primary", j.URI)
	}
	r := e.run(exec.CommandContext(e.ctx, "psql", "-XAtwqc", "select 1", strings.Replace(uri, "postgres@", "nobody@", 1)))
	if r.code == 0 {
		t.Error("a role that does not exist logs in")
	}
}
