package peer

import (
	"encoding/json"
	"testing"
	"time"

	"manada/internal/cluster"
)

func say(t *testing.T, s *source, b cluster.Beat) bool {
	t.Helper()
	if b.Cluster == "" {
		b.Cluster = herdName
	}
	if b.From == "" {
		b.From = FromAgent
	}
	line, err := json.Marshal(b)
	must(t, err)
	return s.line(line)
}

func rang(in *inbox) bool {
	select {
	case <-in.changed:
		return true
	default:
		return false
	}
}

func TestOlderBeatsAreIgnored(t *testing.T) {
	in := newInbox(herdName, "slave")
	s := in.stream("master")
	for _, c := range []struct {
		boot string
		seq  uint64
		want bool
	}{
		{"a", 5, true}, {"a", 5, false}, {"a", 4, false}, {"a", 6, true},
		{"b", 1, true},  // restarted: numbers begin again
		{"a", 7, false}, // a late line of the process before
		{"b", 2, true},
	} {
		if got := say(t, s, cluster.Beat{Node: "master", Boot: c.boot, Seq: c.seq}); got != c.want {
			t.Errorf("beat %s/%d accepted: %v", c.boot, c.seq, got)
		}
	}
	if st := in.counters(); st.Accepted != 4 || st.Stale != 3 {
		t.Errorf("counted %+v", st)
	}
}

func TestChangedRingsForWhatMatters(t *testing.T) {
	in := newInbox(herdName, "slave")
	s := in.stream("master")
	b := cluster.Beat{Node: "master", Boot: "a", Seq: 1, Postgres: cluster.PostgresPrimary}
	step := func(what string, want bool, change func()) {
		t.Helper()
		change()
		b.Seq++
		say(t, s, b)
		if got := rang(in); got != want {
			t.Errorf("%s: rang %v, want %v", what, got, want)
		}
	}
	step("the first beat", true, func() {})
	step("nothing", false, func() {})
	step("positions and ages", false, func() {
		lag := int64(3)
		b.WAL, b.Replay, b.LagMS, b.WaitingMS, b.Reason = cluster.Position{Epoch: 1, LSN: 9}, 8, &lag, 30, "because"
	})
	step("state", true, func() { b.Postgres = cluster.PostgresDown })
	step("cannot commit", true, func() { b.CannotCommit = "probe waits 1.0 s" })
	step("cannot commit, other words", false, func() { b.CannotCommit = "probe waits 1.1 s" })
	step("term", true, func() { b.TermRev = 8 })
	step("frozen", true, func() { b.Frozen = 3 })
	step("certified", true, func() { b.Certified = 4 })
	step("suspects", true, func() { b.Suspects = "slave" })
	step("condition", true, func() { b.Conditions = []cluster.Condition{{Code: "M-R12"}} })
	step("condition, other words", false, func() { b.Conditions = []cluster.Condition{{Code: "M-R12", Text: "x"}} })
	step("restart", true, func() { b.Boot = "b" })
	s.close()
	if !rang(in) {
		t.Error("a broken stream did not ring")
	}
	s.close()
	if rang(in) {
		t.Error("it rang twice for one break")
	}
	s = in.stream("master")
	step("back again", true, func() {})
}

func TestBreakOfAnOldStreamDoesNotCount(t *testing.T) {
	in := newInbox(herdName, "slave")
	old, now := in.stream("master"), in.stream("master")
	say(t, old, cluster.Beat{Node: "master", Boot: "a", Seq: 1})
	say(t, now, cluster.Beat{Node: "master", Boot: "a", Seq: 2})
	old.close()
	if in.from(FromAgent)["master"].Broken {
		t.Error("the node is told broken while a newer stream works")
	}
	now.close()
	if !in.from(FromAgent)["master"].Broken {
		t.Error("the break was not told")
	}
}

func TestHearsay(t *testing.T) {
	in := newInbox(herdName, "")
	s := in.stream("master")
	say(t, s, cluster.Beat{Node: "master", Boot: "b", Seq: 10})
	now := time.Now()
	row := func(boot string, seq uint64, age int64) Row {
		return Row{Beat: cluster.Beat{Cluster: herdName, Node: "master", From: FromAgent, Boot: boot, Seq: seq}, AgeMS: age}
	}
	seq := func() uint64 { return in.from(FromAgent)["master"].Beat.Seq }
	in.hearsay(row("b", 9, 0), now)
	in.hearsay(row("a", 99, 60_000), now) // somebody who last heard the process before
	if seq() != 10 {
		t.Errorf("older hearsay was believed: %d", seq())
	}
	in.hearsay(row("b", 12, 0), now)
	if seq() != 12 {
		t.Errorf("newer hearsay was not believed: %d", seq())
	}
	in.hearsay(Row{Beat: cluster.Beat{Cluster: herdName, Node: "third", From: FromAgent, Boot: "c", Seq: 1}, AgeMS: 5000, Broken: true}, now)
	h := in.from(FromAgent)["third"]
	if age := now.Sub(h.At); age != 5*time.Second || !h.Broken {
		t.Errorf("hearsay is %v old and broken %v", age, h.Broken)
	}
}

func TestTermNeverGoesBack(t *testing.T) {
	in := newInbox(herdName, "")
	s, other := in.stream("master"), in.stream("slave")
	for i, c := range []struct {
		src   *source
		epoch uint64
		rev   int64
		want  int64
	}{
		{s, 4, 90, 90}, {other, 4, 88, 90}, {other, 4, 91, 91},
		{s, 5, 3, 3},      // a recovered store: revisions began again
		{other, 4, 91, 3}, // who has not heard of it yet
		{s, 5, 4, 4},
	} {
		b := cluster.Beat{Node: c.src.node, Boot: "a", Seq: uint64(i + 1), TermRev: c.rev, Term: &cluster.Term{Epoch: c.epoch}}
		say(t, c.src, b)
		if _, rev := in.newestTerm(); rev != c.want {
			t.Errorf("after epoch %d, revision %d: newest is %d, want %d", c.epoch, c.rev, rev, c.want)
		}
	}
}

// What others say of a node does not count as its own word.
func TestDirectIsTheNodesOwnWord(t *testing.T) {
	in := newInbox(herdName, "")
	s := in.stream("master")
	say(t, s, cluster.Beat{Node: "master", Boot: "a", Seq: 1})
	own := in.from(FromAgent)["master"]
	time.Sleep(2 * time.Millisecond)
	row := Row{Beat: cluster.Beat{Cluster: herdName, Node: "master", From: FromAgent, Boot: "a", Seq: 9}}
	in.hearsay(row, time.Now())
	h := in.from(FromAgent)["master"]
	if h.Beat.Seq != 9 || !h.At.After(own.At) || h.Direct != own.Direct {
		t.Errorf("after hearsay: %+v, before %+v", h, own)
	}
	say(t, s, cluster.Beat{Node: "master", Boot: "a", Seq: 8}) // late, but from the node itself
	if again := in.from(FromAgent)["master"]; !again.Direct.After(h.Direct) || again.Beat.Seq != 9 {
		t.Errorf("its own word: %+v", again)
	}
}
