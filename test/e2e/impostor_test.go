package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/postgres/pgtest"
	"manada/test/measure"
	"manada/test/trust"
)

// TestTrustImpostor: somebody bears the standby's name and says that he has
// flushed everything, while the true standby is cut off; then the primary dies
// and the standby is back. A role outside the list acknowledges nothing. One of
// the list acknowledges what one look of the primary's agent lets it, and all of
// that is still there afterwards.
func TestTrustImpostor(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a herd")
	}
	runs := trust.Runs(1, 20)
	e := shared(t, time.Duration(runs)*6*time.Minute)
	e.trustWith("replication: [{role: e2e_feed, from: 127.0.0.1, databases: [postgres]}]")
	s := e.healthy()
	dsn := e.NodeDSN(s.Primary)
	e.value(dsn, "drop role if exists e2e_reppy; drop role if exists e2e_feed; create role e2e_feed login replication password 'x'")
	var lives []time.Duration
	for run := range runs {
		for _, kind := range []string{"true", "database"} {
			e.outsider(run, kind)
			lives = append(lives, e.trusted(run, kind))
		}
	}
	slices.Sort(lives)
	t.Logf("%d walsenders of a role of the list lived for %s at the median, %s at most", len(lives), lives[len(lives)/2].Round(time.Millisecond), lives[len(lives)-1].Round(time.Millisecond))
	e.visitor()
	e.liar()
	if v := e.value(e.NodeDSN(e.healthy().Primary), "select rolreplication from pg_roles where rolname = 'e2e_feed'"); v != "t" {
		t.Errorf("the role of the list has lost its attribute: %s", v)
	}
}

// trustWith adds a key below postgresql on both database hosts.
func (e *env) trustWith(key string) {
	e.Helper()
	for _, host := range []string{"master", "slave"} {
		file := filepath.Join(e.Data, host, "manada.yaml")
		old, err := os.ReadFile(file)
		if err != nil {
			e.Fatal(err)
		}
		put := func(text string) {
			agent := e.pid(host, "agent")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				e.Fatal(err)
			}
			e.kill(e.pid(host, "run"), syscall.SIGHUP)
			e.eventually(20*time.Second, "another agent on "+host, func() string {
				if p := e.pids(host, "agent"); len(p) != 1 || p[0] == agent {
					return fmt.Sprint(p)
				}
				return ""
			})
		}
		text := strings.Replace(string(old), "\npostgresql:\n", "\npostgresql:\n  "+key+"\n", 1)
		if text == string(old) {
			text += "\npostgresql:\n  " + key + "\n"
		}
		put(text)
		e.Cleanup(func() {
			if herds.shared != nil {
				_ = os.WriteFile(file, old, 0o600)
			}
		})
	}
}

// standbyCutOff freezes the standby's PostgreSQL until the function is called.
func (e *env) standbyCutOff(node string) (back func()) {
	e.Helper()
	var pids []int
	for _, pid := range e.Processes(node) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(exe) == "postgres" {
			pids = append(pids, pid)
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
	}
	if len(pids) == 0 {
		e.Fatal("no PostgreSQL runs on " + node)
	}
	return func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

// outsider: a role that nobody trusts.
func (e *env) outsider(run int, kind string) {
	e.Helper()
	for try := 0; ; try++ {
		s := e.healthy()
		dsn := e.NodeDSN(s.Primary)
		e.value(dsn, "create role e2e_reppy login replication password 'x'")
		made := time.Now()
		e.eventually(5*time.Second, "the attribute taken", func() string {
			if v := e.value(dsn, "select rolreplication from pg_roles where rolname = 'e2e_reppy'"); v != "f" || time.Since(made) < 2*time.Second {
				return v
			}
			return ""
		})
		w := e.writeTo(s.Primary)
		i := e.impersonate(s, "e2e_reppy", kind, w)
		back := e.standbyCutOff(standby(s))
		time.Sleep(200 * time.Millisecond) // what it had flushed is answered by now
		before := w.Acked()
		time.Sleep(350 * time.Millisecond) // less than degrade_after
		acked := w.Acked() - before
		now, err := e.Status(e.ctx)
		if err := e.KillPostmaster(s.Primary); err != nil {
			e.Error(err)
		}
		back()
		e.takenOver(s)
		w.Stop()
		i.stop()
		e.noneLost(w, "outsider, replication="+kind)
		e.value(e.NodeDSN(e.healthy().Primary), "drop role e2e_reppy")
		if err != nil || now.K == 0 { // a loaded machine: the primary was alone already, and said so
			if try < 5 {
				continue
			}
			e.Fatal("the primary is always alone before it is killed")
		}
		e.Logf("try %d, outside the list, replication=%s: %d walsenders in %d attempts, %d false acknowledgements", run+1, kind, i.admitted(), i.tries(), acked)
		if acked > 0 || i.admitted() > 0 || i.tries() == 0 {
			e.Errorf("a role outside the list: %d commits acknowledged, %d walsenders, %d attempts", acked, i.admitted(), i.tries())
		}
		return
	}
}

// falseLife is what a false walsender of a role of the list may live: one look of
// the primary's agent until it is seen, and as long again until the record says
// that the primary is alone and the connection is ended. In between it
// acknowledges commits.
const falseLife = 2 * 100 * time.Millisecond

// trusted: a role of the list; how long its first walsender lived.
func (e *env) trusted(run int, kind string) time.Duration {
	e.Helper()
	s := e.healthy()
	w := e.writeTo(s.Primary)
	back := e.standbyCutOff(standby(s))
	time.Sleep(100 * time.Millisecond)
	i := e.impersonate(s, "e2e_feed", kind, w)
	e.eventually(30*time.Second, "record that says that the primary is alone, and end of the walsender", func() string {
		if now, err := e.Status(e.ctx); err != nil || now.K != 0 || i.ended() == 0 {
			return fmt.Sprintf("k=%d %v, %d walsenders in %d attempts, %d ended", now.K, err, i.admitted(), i.tries(), i.ended())
		}
		return ""
	})
	took, acked := i.first()
	if err := e.KillPostmaster(s.Primary); err != nil {
		e.Error(err)
	}
	back()
	i.stop()
	after := e.await("an epoch opens", func(n cluster.Status) bool { return n.Primary != "" && n.Epoch > s.Epoch })
	w.Stop()
	e.noneLost(w, "role of the list, replication="+kind)
	e.Logf("try %d, role of the list, replication=%s: ended after %d ms, %d false acknowledgements; %s leads, none lost", run+1, kind, took.Milliseconds(), acked, after.Primary)
	most := time.Second // degrade_after, which would have ended it anyway
	if trust.All() {    // nothing else runs
		most = falseLife
	}
	if took > most {
		e.Errorf("its walsender lived for %s, more than %s", took, most)
	}
	if out := e.manada("status").out; !strings.Contains(out, "M-R25") && after.Primary == s.Primary {
		e.Logf("status after a restart of the primary:\n%s", out)
	}
	return took
}

// visitor: a role of the list bears the name for a moment only; it is told all the
// same, and standbys are waited for anew.
func (e *env) visitor() {
	e.Helper()
	s := e.healthy()
	told := func() (last string) { // the history shows so many lines and no more
		for line := range strings.Lines(e.ok(e.manada("history")).out) {
			if strings.Contains(line, "is gone: ") {
				last = line
			}
		}
		return last
	}
	before := told()
	ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
	defer cancel()
	streamed := false
	err := pgtest.Impersonate(ctx, e.standbysName(s, "e2e_feed", "true"), 0, func() { streamed = true; cancel() })
	if !streamed {
		e.Fatal(err)
	}
	e.eventually(10*time.Second, "the visitor told in the history", func() string {
		if told() != before {
			return ""
		}
		return e.manada("history").out
	})
	if now := e.healthy(); now.Epoch != s.Epoch {
		e.Errorf("epoch %d became %d", s.Epoch, now.Epoch)
	}
}

// liar: a role of the list says that it has flushed more than there is, and hangs
// up. What PostgreSQL released stays released, so the epoch ends: the standby,
// which has all, leads the next one, or the primary starts again.
func (e *env) liar() {
	e.Helper()
	s := e.healthy()
	w := e.writeTo(s.Primary)
	ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
	defer cancel()
	began := time.Now()
	err := pgtest.Impersonate(ctx, e.standbysName(s, "e2e_feed", "true"), 1<<40, func() {})
	after := e.await("another epoch", func(n cluster.Status) bool { return n.Primary != "" && n.Epoch > s.Epoch })
	e.Logf("a lie: %s leads epoch %d instead of %s after %d ms (%v)", after.Primary, after.Epoch, s.Primary, time.Since(began).Milliseconds(), err)
	w.Stop()
	e.noneLost(w, "a lie")
}

func (e *env) writeTo(node string) *measure.Writer {
	e.Helper()
	if err := measure.Prepare(e.ctx, e.NodeDSN(node)); err != nil {
		e.Fatal(err)
	}
	w := measure.Start(e.ctx, e.NodeDSN(node), 0)
	e.Cleanup(w.Stop)
	if err := w.WaitAcked(e.ctx, 20); err != nil {
		e.Fatal(err)
	}
	return w
}

func (e *env) noneLost(w *measure.Writer, what string) {
	e.Helper()
	s := e.healthy()
	lost, err := w.Lost(e.ctx, e.NodeDSN(s.Primary))
	if err != nil {
		e.Fatal(err)
	}
	if len(lost) > 0 {
		e.Errorf("%s: %d of %d acknowledged commits are lost: %v ...", what, len(lost), w.Acked(), lost[:min(10, len(lost))])
	}
}

// intruder bears a standby's name, again and again.
type intruder struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	w      *measure.Writer

	mu         sync.Mutex
	attempts   int
	began, end []time.Time
	acks       []int // of the writer while the first walsender lived
}

func (e *env) impersonate(s cluster.Status, role, kind string, w *measure.Writer) *intruder {
	e.Helper()
	c := e.standbysName(s, role, kind)
	ctx, cancel := context.WithCancel(e.ctx)
	i := &intruder{cancel: cancel, w: w}
	i.done.Go(func() {
		for ctx.Err() == nil {
			i.note(func() { i.attempts++ })
			i.stream(ctx, c)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	e.Cleanup(i.stop)
	return i
}

// standbysName connects a role as a walsender that bears the standby's name.
func (e *env) standbysName(s cluster.Status, role, kind string) *pgconn.Config {
	e.Helper()
	c, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=x dbname=postgres sslmode=require", e.Port(s.Primary, "postgresql"), role))
	if err != nil {
		e.Fatal(err)
	}
	c.RuntimeParams["replication"] = kind
	c.RuntimeParams["application_name"] = cluster.CertifiedName(standby(s), s.Epoch)
	return c
}

// stream bears the name until it is refused or ended.
func (i *intruder) stream(ctx context.Context, cfg *pgconn.Config) {
	streaming := false
	_ = pgtest.Impersonate(ctx, cfg, 0, func() {
		streaming = true
		i.note(func() { i.began, i.acks = append(i.began, time.Now()), append(i.acks, i.w.Acked()) })
	})
	if streaming {
		i.note(func() { i.end, i.acks = append(i.end, time.Now()), append(i.acks, i.w.Acked()) })
	}
}

func (i *intruder) note(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

func (i *intruder) tries() (n int)    { i.note(func() { n = i.attempts }); return n }
func (i *intruder) admitted() (n int) { i.note(func() { n = len(i.began) }); return n }
func (i *intruder) ended() (n int)    { i.note(func() { n = len(i.end) }); return n }

// first is how long the first walsender lived, and what was acknowledged meanwhile.
func (i *intruder) first() (took time.Duration, acked int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.end[0].Sub(i.began[0]), i.acks[1] - i.acks[0]
}

func (i *intruder) stop() {
	i.cancel()
	i.done.Wait()
}
