package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/health"
	"manada/test/trust"
)

// state is something that is wrong with the herd before its primary is lost. It
// returns how to mend it.
type state struct {
	name  string
	make  func(e *env, s cluster.Status) (mend func())
	first bool // also in every run of the tests
}

var states = []state{
	{"well", func(*env, cluster.Status) func() { return func() {} }, true},
	{"standby's host down", func(e *env, s cluster.Status) func() { return e.hostDown(standby(s)) }, true},
	{"a voter down", func(e *env, _ cluster.Status) func() { return e.hostDown("backup") }, true},
	{"standby's PostgreSQL just killed", func(e *env, s cluster.Status) func() {
		if err := e.KillPostmaster(standby(s)); err != nil {
			e.Fatal(err)
		}
		return func() {}
	}, false},
	{"standby's agent frozen", func(e *env, s cluster.Status) func() { return e.frozen(standby(s), "agent") }, false},
	{"standby's voter frozen", func(e *env, s cluster.Status) func() { return e.frozen(standby(s), "store") }, false},
	{"primary's voter frozen", func(e *env, s cluster.Status) func() { return e.frozen(s.Primary, "store") }, false},
	{"all voters frozen", func(e *env, _ cluster.Status) func() {
		a, b, c := e.frozen("master", "store"), e.frozen("slave", "store"), e.frozen("backup", "store")
		return func() { a(); b(); c() }
	}, false},
	{"paused", func(e *env, _ cluster.Status) func() {
		e.ok(e.manada("pause"))
		return func() { e.ok(e.manada("resume")) }
	}, false},
	{"schema dropped", func(e *env, s cluster.Status) func() {
		e.value(e.NodeDSN(s.Primary), "drop schema manada cascade")
		return func() {}
	}, false},
	{"roles cannot log in", func(e *env, s cluster.Status) func() {
		e.value(e.NodeDSN(s.Primary), "alter role manada_replication nologin; alter role manada_proxy nologin; alter role manada_rewind nologin")
		return func() {}
	}, false},
	{"connect revoked", func(e *env, s cluster.Status) func() {
		e.value(e.NodeDSN(s.Primary), "revoke connect on database postgres from public")
		return func() { e.value(e.DSN(), "grant connect on database postgres to public") }
	}, false},
}

// hostDown kills a host until it is mended.
func (e *env) hostDown(host string) func() {
	if err := e.KillHost(host); err != nil {
		e.Fatal(err)
	}
	return func() {
		if err := e.StartHost(e.ctx, host); err != nil {
			e.Fatal(err)
		}
	}
}

// frozen stops a process until it is mended.
func (e *env) frozen(host, process string) func() {
	pid := e.pid(host, process)
	e.kill(pid, syscall.SIGSTOP)
	return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
}

// TestTrustStatusForetells reads the status in random states, loses the primary's
// PostgreSQL or its host, and compares what was said with what came.
func TestTrustStatusForetells(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a herd")
	}
	tries := trust.Runs(3, 100)
	e := shared(t, time.Duration(tries)*2*time.Minute)
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	e.healthy()
	e.value(e.DSN(), "create table if not exists e2e_foretold (n int)")
	tally := struct{ safe, unsafe, broken, worked int }{}
	for i := range tries {
		st, lose := states[i%len(states)], "host"
		if trust.All() {
			st = states[dice.IntN(len(states))]
			if dice.IntN(2) == 0 {
				lose = "PostgreSQL"
			}
		} else if i == 1 {
			lose = "PostgreSQL"
		}
		said, worked, text := e.foretold(st, lose, time.Duration(2000+dice.IntN(3000))*time.Millisecond)
		t.Logf("%s, then %s lost: said %q (safe %v), a takeover: %v", st.name, lose, text, said, worked)
		switch {
		case said && worked:
			tally.safe++
		case said:
			tally.broken++
			t.Errorf("%s, then %s lost: %q was said and nobody took over", st.name, lose, text)
		case worked:
			tally.worked++
			t.Logf("not foretold: %s, then %s lost: %q was said, and a standby took over", st.name, lose, text)
		default:
			tally.unsafe++
		}
	}
	t.Logf("%d tries: safe and it was %d, safe and it was not %d, not safe and it was not %d, not safe and it was %d",
		tries, tally.safe, tally.broken, tally.unsafe, tally.worked)
	if tally.worked*50 > tries {
		t.Errorf("%d of %d were called not safe and were", tally.worked, tries)
	}
}

// foretold makes a state, reads the status after a while, loses the primary, and
// says what was said and whether another node led, with writes, within bound.
func (e *env) foretold(st state, lose string, after time.Duration) (said, worked bool, text string) {
	e.Helper()
	s := e.healthy()
	mend := st.make(e, s)
	mended := false
	defer func() {
		if !mended {
			mend()
		}
	}()
	time.Sleep(after) // the moment is the dice's, after the two seconds in which a status may be older than what happened
	var now cluster.Status
	r := e.ok(e.bare("status", "-o", "json", "-c", filepath.Join(e.Data, s.Primary, config.FileName)))
	if err := now.UnmarshalJSON([]byte(r.out)); err != nil {
		e.Fatal(err)
	}
	o := health.Failover(now)
	said = o.Process
	var err error
	if lose == "host" {
		said, err = o.Host, e.KillHost(s.Primary)
	} else {
		err = e.KillPostmaster(s.Primary)
	}
	if err != nil {
		e.Fatal(err)
	}
	worked = e.takenOverBySomebody(s.Primary, said)
	mend()
	mended = true
	if lose == "host" {
		if err := e.StartHost(e.ctx, s.Primary); err != nil {
			e.Fatal(err)
		}
	}
	e.healthy()
	return said, worked, o.Text
}

// takenOverBySomebody: another node leads and a new client's commit is acknowledged,
// in half the time where that is not expected.
func (e *env) takenOverBySomebody(old string, expected bool) bool {
	e.Helper()
	within := bound
	if !expected {
		within /= 2
	}
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		s, err := e.Status(e.ctx)
		if err != nil || s.Primary == "" || s.Primary == old {
			continue
		}
		if _, err := e.Value(e.ctx, e.DSN(), fmt.Sprintf("insert into e2e_foretold values (%d)", s.Epoch)); err == nil || strings.Contains(err.Error(), "unreplicated") {
			return true
		}
	}
	return false
}
