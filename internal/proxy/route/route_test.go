package route

import (
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"

	"github.com/google/go-cmp/cmp"
)

func term(epoch uint64, leader string, open bool) *cluster.Term {
	return &cluster.Term{Epoch: epoch, Leader: leader, Open: open}
}

func leads(node string, epoch uint64) cluster.Beat {
	return cluster.Beat{Node: node, From: "agent", Postgres: cluster.PostgresPrimary, Leads: epoch,
		WAL: cluster.Position{Epoch: epoch, LSN: 1000}, Addrs: cluster.Addresses{SQL: node + ":5432"}}
}

func follows(node string, epoch uint64, replay cluster.LSN) cluster.Beat {
	return cluster.Beat{Node: node, From: "agent", Postgres: cluster.PostgresStandby, Streaming: true, Certified: epoch,
		Replay: replay, Addrs: cluster.Addresses{SQL: node + ":5432"}}
}

func with(b cluster.Beat, t *cluster.Term, rev int64) cluster.Beat {
	b.Term, b.TermRev = t, rev
	return b
}

func heard(bs ...cluster.Beat) (out []Heard) {
	for _, b := range bs {
		out = append(out, Heard{Beat: b, Age: 100 * time.Millisecond})
	}
	return out
}

func TestFromBeats(t *testing.T) {
	const fresh = 3 * time.Second
	t7, t8won, t8 := term(7, "master", true), term(8, "slave", false), term(8, "slave", true)
	slave7 := Standby{Node{Name: "slave", Addr: "slave:5432"}, 100, -1, true}
	master := Node{Name: "master", Addr: "master:5432"}
	guardian := cluster.Beat{Node: "master", From: "guardian", Postgres: cluster.PostgresDown}
	stale := func(h []Heard, i int) []Heard { h[i].Age = time.Minute; return h }
	down := leads("master", 0)
	down.Postgres = cluster.PostgresDown

	ordered := term(7, "master", true)
	ordered.Restore = &cluster.Restore{ID: "r1", Type: "default", Set: "F1"}
	doubtful := leads("master", 7)
	doubtful.Unconfirmed = "writes wait"
	up := guardian
	up.Postgres = cluster.PostgresPrimary
	busy := leads("master", 7)
	busy.Op = "restoring F1 43%"

	for _, c := range []struct {
		name  string
		beats []Heard
		want  View
		why   string
	}{
		{"it does not vouch for itself", heard(with(doubtful, t7, 1)), View{Known: true, Epoch: 7, Open: true, Primary: master, Doubt: "writes wait"}, ""},
		{"its guardian beats", append(stale(heard(with(leads("master", 7), t7, 1)), 0), heard(up)...), View{Known: true, Epoch: 7, Open: true, Primary: master}, ""},
		{"nobody", nil, View{}, "no host of the herd"},
		{"beats without a record", heard(leads("master", 7)), View{}, "no host of the herd"},
		{"normal", heard(with(leads("master", 7), t7, 5), follows("slave", 7, 900)),
			View{Known: true, Epoch: 7, Open: true, Primary: master, Standbys: []Standby{slave7}}, ""},
		{"being restored", heard(with(busy, ordered, 5)), View{Known: true, Epoch: 7, Open: true}, "being restored to the newest commit (restoring F1 43%)"},
		{"highest revision wins, heard from anybody", heard(with(leads("master", 7), t7, 5), with(follows("slave", 7, 900), t8won, 6)),
			View{Known: true, Epoch: 8}, "won by slave and is not open yet"},
		{"deposed leader still says it leads", heard(with(leads("master", 7), t7, 5), with(leads("slave", 8), t8, 7)),
			View{Known: true, Epoch: 8, Open: true, Primary: Node{Name: "slave", Addr: "slave:5432"}}, ""},
		{"open, leader of an older epoch only", heard(with(leads("slave", 7), t8, 7)),
			View{Known: true, Epoch: 8, Open: true}, "should lead epoch 8"},
		{"leader's postgres is down", heard(with(down, t7, 5)), View{Known: true, Epoch: 7, Open: true}, "(down, heard 100ms ago)"},
		{"leader unheard of", heard(with(follows("slave", 7, 900), t7, 5)),
			View{Known: true, Epoch: 7, Open: true, Standbys: []Standby{{Node{Name: "slave", Addr: "slave:5432"}, -1, -1, true}}}, "has not been heard"},
		{"a silent agent is not a dead primary", stale(heard(with(leads("master", 7), t7, 5)), 0),
			View{Known: true, Epoch: 7, Open: true, Primary: master, Doubt: "master was last heard 1m0s ago"}, ""},
		{"unless its guardian says so", append(stale(heard(with(leads("master", 7), t7, 5)), 0), heard(guardian)...),
			View{Known: true, Epoch: 7, Open: true}, "its PostgreSQL does not (down"},
		{"a silent standby does not stream", stale(heard(with(leads("master", 7), t7, 5), follows("slave", 7, 900)), 1),
			View{Known: true, Epoch: 7, Open: true, Primary: master, Standbys: []Standby{{slave7.Node, 100, -1, false}}}, ""},
		{"a standby of an older epoch does not count as streaming", heard(with(leads("master", 9), term(9, "master", true), 9), follows("slave", 7, 900)),
			View{Known: true, Epoch: 9, Open: true, Primary: master, Standbys: []Standby{{slave7.Node, 100, -1, false}}}, ""},
	} {
		got := FromBeats(c.beats, fresh)
		if c.why == "" != (got.Why == "") || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: why %q, want ...%q...", c.name, got.Why, c.why)
		}
		if got.HasPrimary() != (c.why == "") {
			t.Errorf("%s: primary %v with why %q", c.name, got.Primary, got.Why)
		}
		got.Why, got.Members = "", nil
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, d)
		}
	}
}

// A drain counts in the newest record, in its own epoch, while that is open.
func TestDrainOfTheNewestRecord(t *testing.T) {
	d := func(epoch uint64, hold bool) *cluster.Drain {
		return &cluster.Drain{ID: "d1", Epoch: epoch, To: "slave", SoftMS: 300, HoldMS: 1000, ForMS: 5000, Hold: hold}
	}
	in := func(epoch uint64, open bool, d *cluster.Drain) *cluster.Term {
		x := term(epoch, "master", open)
		x.Drain = d
		return x
	}
	leader := leads("master", 7)
	leader.Addrs.Peer = "master:7400"
	for _, c := range []struct {
		name  string
		beats []Heard
		want  *Drain
	}{
		{"none", heard(with(leader, in(7, true, nil), 5)), nil},
		{"one", heard(with(leader, in(7, true, d(7, false)), 5)), &Drain{*d(7, false), 5, "master", "master:7400"}},
		{"its second phase, heard of from the standby", heard(with(leader, in(7, true, d(7, false)), 5), with(follows("slave", 7, 1), in(7, true, d(7, true)), 6)),
			&Drain{*d(7, true), 6, "master", "master:7400"}},
		{"withdrawn", heard(with(leader, in(7, true, nil), 7), with(follows("slave", 7, 1), in(7, true, d(7, true)), 6)), nil},
		{"of an epoch before", heard(with(leader, in(8, true, d(7, true)), 8)), nil},
		{"in an epoch that is not open", heard(with(leader, in(7, false, d(7, true)), 8)), nil},
		{"its leader was never heard", heard(with(follows("slave", 7, 1), in(7, true, d(7, true)), 6)), &Drain{*d(7, true), 6, "master", ""}},
	} {
		if diff := cmp.Diff(c.want, FromBeats(c.beats, time.Second).Drain); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

func TestPick(t *testing.T) {
	s := func(name string, bytes, ms int64, streaming bool) Standby {
		return Standby{Node{Name: name, Addr: name}, bytes, ms, streaming}
	}
	v := View{Standbys: []Standby{s("a", 0, 0, true), s("b", 10, -1, true), s("late", 5000, 0, true), s("old", 0, 9000, true), s("gone", 0, 0, false)}}
	r := Reader{Limits: Limits{LagBytes: 1000, Lag: time.Second}}
	count := map[string]int{}
	for range 10 {
		p, ok := r.Pick(v, nil)
		if !ok {
			t.Fatal("nobody")
		}
		count[p.Name]++
	}
	if count["a"] != 5 || count["b"] != 5 {
		t.Errorf("not in turn among the fresh: %v", count)
	}
	if p, _ := r.Pick(v, map[string]bool{"a": true}); p.Name != "b" {
		t.Errorf("picked %q", p.Name)
	}
	if _, ok := r.Pick(v, map[string]bool{"a": true, "b": true}); ok {
		t.Error("picked one beyond the limits")
	}
	if n := len((&Reader{}).Usable(v)); n != 4 {
		t.Errorf("without limits %d are usable", n)
	}
}

func TestHolder(t *testing.T) {
	var h Holder
	if v := h.Current(); v.Known || v.Why == "" {
		t.Fatalf("%+v", v)
	}
	a, b := h.Changed(), h.Changed()
	select {
	case <-a:
		t.Fatal("changed before Set")
	default:
	}
	h.Set(View{Known: true, Epoch: 3})
	<-a
	<-b
	if h.Current().Epoch != 3 {
		t.Fatal("view not set")
	}
	select {
	case <-h.Changed():
		t.Fatal("a new channel is closed already")
	default:
	}
}

// Every host with a database is listed, in whatever state, with what the primary
// says of its walsender.
func TestMembers(t *testing.T) {
	m := with(leads("master", 7), term(7, "master", true), 5)
	m.Senders = []cluster.Sender{{Name: "slave@e7", State: "streaming", Sync: "quorum"}, {Name: "manada:clone:third", State: "backup"}}
	down := cluster.Beat{Node: "third", From: "agent", Postgres: cluster.PostgresDown, Addrs: cluster.Addresses{SQL: "third:5432"}}
	witness := cluster.Beat{Node: "witness", From: "agent", Postgres: cluster.PostgresNone}
	v := FromBeats(heard(m, follows("slave", 7, 900), down, witness), time.Second)
	want := []Member{
		{Node: Node{Name: "master", Addr: "master:5432"}, Up: true, Primary: true, LagBytes: -1},
		{Node: Node{Name: "slave", Addr: "slave:5432"}, Up: true, LagBytes: 100, State: "streaming", Sync: "quorum"},
		{Node: Node{Name: "third", Addr: "third:5432"}, LagBytes: -1},
	}
	if d := cmp.Diff(want, v.Members); d != "" {
		t.Error(d)
	}
}

// A primary that others hear, and this host no longer, is told apart from one
// that nobody hears.
func TestCutOff(t *testing.T) {
	const fresh = time.Second
	for _, c := range []struct {
		age, silent time.Duration
		want        bool
	}{
		{0, 0, false}, {50 * time.Millisecond, 500 * time.Millisecond, true}, {900 * time.Millisecond, 5 * time.Second, true},
		{2 * time.Second, 2100 * time.Millisecond, false}, {5 * time.Second, 10 * time.Second, false}, {300 * time.Millisecond, 400 * time.Millisecond, false},
	} {
		b := []Heard{{Beat: with(leads("master", 7), term(7, "master", true), 70), Age: c.age, Silent: c.silent}}
		if v := FromBeats(b, fresh); v.CutOff != c.want || !v.HasPrimary() {
			t.Errorf("heard %s ago, by this host %s ago: %+v", c.age, c.silent, v)
		}
		b = append(b, Heard{Beat: follows("slave", 7, 900), Age: c.age, Silent: c.silent})
		if v := FromBeats(b, fresh); v.Standbys[0].Streaming != (c.age <= fresh && !c.want) {
			t.Errorf("a standby heard %s ago, by this host %s ago: %+v", c.age, c.silent, v.Standbys)
		}
	}
}

func TestProxiesAreCounted(t *testing.T) {
	beat := func(node, proxy string) Heard {
		return Heard{Beat: cluster.Beat{Node: node, Addrs: cluster.Addresses{Proxy: proxy}}}
	}
	for _, c := range []struct {
		beats      []Heard
		registered []string
		want       int
	}{
		{nil, nil, 1},
		{[]Heard{beat("a", "a:5431"), beat("a", "a:5431"), beat("b", "")}, nil, 1},
		{[]Heard{beat("a", "a:5431"), beat("b", "b:5431")}, []string{"p", "p"}, 3},
	} {
		if n := Proxies(c.beats, c.registered); n != c.want {
			t.Errorf("%d, want %d", n, c.want)
		}
	}
}
