package agent

import (
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
)

// leading is an agent whose node leads epoch 2 and waits for one standby; its
// evidence is as old as the test makes it.
func leading(t *testing.T) *Agent {
	t.Helper()
	a := newTestAgent(t)
	now := time.Now()
	a.rec.snap, a.rec.have = snapshot(twoEpochs(), 4), true
	a.rec.unsettled = false
	a.rec.confirmed, a.leadsFrom = now.Add(-time.Hour), now.Add(-time.Hour)
	a.mem.leads = 2
	a.seen.state, a.seen.at = cluster.PostgresPrimary, now
	a.beat = cluster.Beat{Node: "master"}
	return a
}

// Why a node does not vouch for being the primary, one thing at a time.
func TestUnconfirmed(t *testing.T) {
	now := time.Now()
	confirmed := func(a *Agent, ago time.Duration) { a.rec.confirmed = now.Add(-ago) }
	for _, c := range []struct {
		name   string
		change func(*Agent)
		want   string // part of the answer; "": it vouches
	}{
		{"the store has just confirmed it", func(a *Agent) { confirmed(a, 0) }, ""},
		{"nobody for half of suspect_after", func(a *Agent) { confirmed(a, 501*time.Millisecond) }, "have confirmed epoch 2 for"},
		{"k = 0: nobody follows", func(a *Agent) { a.rec.snap.Term.K, a.rec.snap.Term.Sync = 0, nil }, ""},
		{"k = 0, perhaps", func(a *Agent) { a.rec.snap.Term.K, a.rec.unsettled = 0, true }, "have confirmed"},
		{"another leads", func(a *Agent) { confirmed(a, 0); a.rec.snap.Term.Leader = "slave" }, "slave leads epoch 2"},
		{"won, not open", func(a *Agent) { confirmed(a, 0); a.rec.snap.Term.Open = false }, "not open"},
		{"a restore is ordered", func(a *Agent) { confirmed(a, 0); a.rec.snap.Term.Restore = &cluster.Restore{} }, "being restored"},
		{"PostgreSQL is down", func(a *Agent) { confirmed(a, 0); a.seen.state = cluster.PostgresDown }, "does not run as primary"},
		{"it runs an older epoch", func(a *Agent) { confirmed(a, 0); a.mem.leads = 1 }, "does not run as primary"},
		{"writes wait", func(a *Agent) { confirmed(a, 0); a.beat.WritesWait = "slave away" }, "writes wait: slave away"},
		{"it cannot commit", func(a *Agent) { confirmed(a, 0); a.beat.CannotCommit = "hung" }, "hung"},
		{"nobody looked at PostgreSQL", func(a *Agent) { confirmed(a, 0); a.seen.at = now.Add(-2 * time.Second) }, "was last looked at"},
		{"just won from another", func(a *Agent) { confirmed(a, 0); a.leadsFrom = now.Add(-100 * time.Millisecond) }, "may not know yet"},
	} {
		a := leading(t)
		c.change(a)
		got := a.Unconfirmed()
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// An answer of a standby is as old as the beat that it answers, whenever it is read.
func TestAnswerIsAsOldAsTheQuestion(t *testing.T) {
	a := leading(t)
	term := a.rec.snap.Term
	slave := term.Sync[0]
	asked := time.Now().Add(-300 * time.Millisecond)
	a.said.add(41, asked)
	a.said.add(42, time.Now())
	answer := func(change func(*cluster.Beat)) (time.Time, bool) {
		b := cluster.Beat{Node: "slave", Instance: "s", Certified: 2, Answers: &cluster.BeatID{Node: "master", Boot: a.boot, Seq: 41}}
		change(&b)
		return a.answeredAt(slave, term, b)
	}
	if at, ok := answer(func(*cluster.Beat) {}); !ok || !at.Equal(asked) {
		t.Errorf("dated %v %v, asked at %v", at, ok, asked)
	}
	for name, change := range map[string]func(*cluster.Beat){
		"no answer":                   func(b *cluster.Beat) { b.Answers = nil },
		"an answer to another run":    func(b *cluster.Beat) { b.Answers.Boot = "before" },
		"an answer to another node":   func(b *cluster.Beat) { b.Answers.Node = "third" },
		"an answer to a beat to come": func(b *cluster.Beat) { b.Answers.Seq = 43 },
		"another directory":           func(b *cluster.Beat) { b.Instance = "z" },
		"a promise":                   func(b *cluster.Beat) { b.Frozen = 2 },
		"certified for another epoch": func(b *cluster.Beat) { b.Certified = 1 },
	} {
		if at, ok := answer(change); ok {
			t.Errorf("%s counts as an answer of %v", name, at)
		}
	}
	for i := range uint64(600) {
		a.said.add(43+i, time.Now())
	}
	if _, ok := answer(func(*cluster.Beat) {}); ok {
		t.Error("a beat that is forgotten has a time")
	}
}

// k members must have answered: a takeover needs the promises of all but k-1.
func TestEvidenceOfMembers(t *testing.T) {
	base := time.Now()
	at := func(ms ...int) (out []time.Time) {
		for _, m := range ms {
			out = append(out, base.Add(time.Duration(m)*time.Millisecond))
		}
		return out
	}
	for _, c := range []struct {
		store   int
		members []int
		k, want int
	}{
		{10, nil, 1, 10}, {10, []int{40}, 1, 40}, {50, []int{40}, 1, 50},
		{10, []int{20, 40}, 1, 40}, {10, []int{20, 40}, 2, 20}, {10, []int{40}, 2, 10}, {10, []int{30, 20, 40}, 2, 30}, {10, []int{40}, 0, 10},
	} {
		if got := evidence(at(c.store)[0], at(c.members...), c.k); !got.Equal(at(c.want)[0]) {
			t.Errorf("store %d, members %v, k %d: %v, want %d", c.store, c.members, c.k, got.Sub(base), c.want)
		}
	}
}

// Nobody waits for a predecessor that gave the epoch up, or for himself.
func TestWaitAfterAWin(t *testing.T) {
	old := func(last string, promised bool) *cluster.Term {
		x := twoEpochs()
		x.LastOpenLeader = cluster.Member{Name: last, Instance: "i"}
		if promised {
			x.Promises = []cluster.Promise{{Node: last, Instance: "i", Epoch: 2}}
		}
		return x
	}
	for _, c := range []struct {
		name string
		old  *cluster.Term
		wait bool
	}{
		{"from a host that is gone", old("slave", false), true},
		{"nothing is known", nil, true},
		{"a switchover", old("slave", true), false},
		{"it succeeds itself", old("master", false), false},
	} {
		a := newTestAgent(t)
		a.newEpoch(c.old)
		if got := time.Since(a.leadsFrom) < time.Minute; got != c.wait {
			t.Errorf("%s: waits %v, want %v", c.name, got, c.wait)
		}
	}
}

// What a standby says it has heard is what its view had.
func TestAnswersTo(t *testing.T) {
	v := &decide.View{Self: "slave", Store: decide.Store{Term: twoEpochs()},
		Peers: []decide.Peer{{Beat: cluster.Beat{Node: "master", Boot: "b", Seq: 9}}, {Beat: cluster.Beat{Node: "third", Boot: "c", Seq: 3}}}}
	if id := answersTo(v); id == nil || *id != (cluster.BeatID{Node: "master", Boot: "b", Seq: 9}) {
		t.Errorf("answers %v", id)
	}
	if v.Self = "master"; answersTo(v) != nil {
		t.Error("the leader answers itself")
	}
}
