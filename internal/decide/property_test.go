package decide

import (
	"fmt"
	"slices"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"manada/internal/cluster"
)

// Any view, also one that makes no sense, must be answered safely: the store
// may have changed, an observation may be old, an agent may know nothing.

var nodes = []string{"a", "b", "c"}

func anyAge() *rapid.Generator[time.Duration] {
	return rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, 1500 * time.Millisecond, 5 * time.Second, time.Hour})
}

func anyPosition() *rapid.Generator[cluster.Position] {
	return rapid.Custom(func(t *rapid.T) cluster.Position {
		return cluster.Position{Epoch: uint64(rapid.IntRange(0, 4).Draw(t, "epoch")), LSN: cluster.LSN(rapid.IntRange(1, 0x50).Draw(t, "lsn") * 0x10)}
	})
}

// anyTerm keeps what every change of the record keeps: k <= |sync|, one branch
// per epoch, timelines allocated once.
func anyTerm(t *rapid.T) *cluster.Term {
	n := &cluster.Term{SystemID: "1", Epoch: uint64(rapid.IntRange(1, 4).Draw(t, "epoch")), Leader: rapid.SampledFrom(nodes).Draw(t, "leader"),
		Open: rapid.Bool().Draw(t, "open"), WantK: 1, Durability: cluster.Quorum}
	for e := uint64(1); e <= n.Epoch; e++ {
		b := cluster.Branch{Epoch: e, Leader: "a", Timeline: cluster.Timeline(e), Nonce: fmt.Sprint("n", e)}
		if e > 1 {
			b.Parent, b.ForkLSN = uint64(rapid.IntRange(1, int(e)-1).Draw(t, "parent")), cluster.LSN(e-1)*0x100
		}
		n.History = append(n.History, b)
	}
	for _, m := range nodes {
		if m != n.Leader && rapid.Bool().Draw(t, "in sync") {
			n.Sync = append(n.Sync, anyMember(t, m))
		}
		if rapid.IntRange(0, 2).Draw(t, "promised") == 0 {
			at := anyPosition().Draw(t, "at")
			n.Promises = append(n.Promises, cluster.Promise{Node: m, Instance: anyMember(t, m).Instance, Epoch: n.Epoch, WALEpoch: at.Epoch, LSN: at.LSN,
				For: rapid.SampledFrom([]string{"", "", "b", "c"}).Draw(t, "for")})
		}
	}
	n.K = min(len(n.Sync), rapid.IntRange(0, 2).Draw(t, "k"))
	if rapid.IntRange(0, 7).Draw(t, "restore") == 0 {
		n.Restore = anyRestore(t)
		if rapid.Bool().Draw(t, "live") {
			n.Restore.Timeline = n.Current().Timeline
		}
	}
	if rapid.IntRange(0, 7).Draw(t, "restored") == 0 {
		n.History[len(n.History)-1].Restored = "o1"
	}
	if rapid.IntRange(0, 7).Draw(t, "drained") == 0 {
		n.Drain = anyDrain(t, n.Epoch)
	}
	n.LastOpenLeader = anyMember(t, rapid.SampledFrom(nodes).Draw(t, "last"))
	if n.Open {
		n.LastOpenLeader.Name = n.Leader
	}
	return n
}

func anyRestore(t *rapid.T) *cluster.Restore {
	r := &cluster.Restore{ID: rapid.SampledFrom([]string{"o1", "o1", "o2"}).Draw(t, "order"), Timeline: 1, Set: "F1",
		Type: rapid.SampledFrom([]string{"default", "time", "xid"}).Draw(t, "type"), Touched: rapid.IntRange(0, 3).Draw(t, "touched") > 0, KeepOld: rapid.Bool().Draw(t, "keep")}
	if r.Type != "default" {
		r.Target = "x"
	}
	return r
}

func anyLocalRestore(t *rapid.T) LocalRestore {
	b := func(what string) bool { return rapid.Bool().Draw(t, what) }
	rare := func(what string) bool { return rapid.IntRange(0, 3).Draw(t, what) == 0 }
	m := LocalRestore{ID: rapid.SampledFrom([]string{"", "o1", "o1", "o2"}).Draw(t, "begun"), Tail: cluster.LSN(rapid.SampledFrom([]int{0x100, 0x300}).Draw(t, "tail")),
		Touched: b("touched here"), Restored: !rare("data missing"), Done: rare("done"), ToEnd: rare("to end"),
		Replayed: cluster.LSN(rapid.SampledFrom([]int{0, 0x200, 0x300}).Draw(t, "replayed")), Paused: rare("paused")}
	if rare("along") {
		m.Along, m.Stop = 1, 0x200
	}
	return m
}

func anyMember(t *rapid.T, name string) cluster.Member {
	return cluster.Member{Name: name, Instance: "i-" + name + rapid.SampledFrom([]string{"", "", "", "2"}).Draw(t, "instance")}
}

func anySync(t *rapid.T, epoch uint64) Sync {
	s := Sync{Proved: rapid.Bool().Draw(t, "proved"), Since: cluster.LSN(rapid.SampledFrom([]int{0, 0x100, 0x200}).Draw(t, "since"))}
	switch rapid.IntRange(0, 2).Draw(t, "setting") {
	case 0:
		s.Setting = cluster.CommitAlone()
	case 1:
		s.Setting = cluster.HoldCommits()
	default:
		s.Setting = cluster.WaitFor(rapid.IntRange(1, 2).Draw(t, "k"), epoch, rapid.SampledFrom([][]string{{"b"}, {"c"}, {"b", "c"}}).Draw(t, "names")...)
	}
	if rapid.IntRange(0, 3).Draw(t, "old") == 0 {
		s.Old = []int{101}
	}
	return s
}

func anyLocal(t *rapid.T, self string, epoch uint64) Local {
	states := []cluster.PostgresState{cluster.PostgresDown, cluster.PostgresDying, cluster.PostgresStarting, cluster.PostgresStandby,
		cluster.PostgresStandby, cluster.PostgresStandby, cluster.PostgresPrimary, cluster.PostgresPrimary, cluster.PostgresStopping, cluster.PostgresHung}
	b := func(what string) bool { return rapid.Bool().Draw(t, what) }
	rare := func(what string) bool { return rapid.IntRange(0, 7).Draw(t, what) == 0 }
	e := func(what string) uint64 { return uint64(rapid.IntRange(0, int(epoch)+1).Draw(t, what)) }
	l := Local{SystemID: "1", Instance: "i-" + self, AgentFor: anyAge().Draw(t, "agent"), Postgres: rapid.SampledFrom(states).Draw(t, "state"),
		Empty: rare("empty"), Poisoned: rare("poisoned"), Founder: b("founder"), Former: b("former"), CleanStop: b("clean"),
		TreeEmpty: b("tree"), DownFor: anyAge().Draw(t, "down"), LeadsFor: anyAge().Draw(t, "leads"), Written: b("written"),
		Timeline: cluster.Timeline(e("timeline")), WAL: anyPosition().Draw(t, "wal"), Final: b("final"),
		PromisedFor: anyAge().Draw(t, "promised for"), Withdrawals: rapid.IntRange(0, 3).Draw(t, "withdrawals"), WithdrawnAgo: anyAge().Draw(t, "withdrawn"),
		Receiver: b("receiver"), SilentFor: anyAge().Draw(t, "silent"), StuckFor: anyAge().Draw(t, "stuck"), MayLead: !rare("may lead"),
		Sync: anySync(t, epoch)}
	if b("promised") {
		l.Promised = e("promised")
	}
	if l.Postgres.Up() && l.Postgres != cluster.PostgresStandby {
		l.Leads = e("leads")
	}
	if rare("bad history") {
		l.BadHistory = "it goes back in time"
	}
	l.Rewound = rapid.SampledFrom([]int{0, 0, 2, 3}).Draw(t, "rewound")
	if rare("remade") {
		l.Remade = e("remade")
	}
	l.Upstream = rapid.SampledFrom([]string{"", cluster.CertifiedName(self, epoch), cluster.CertifiedName(self, epoch-1), cluster.UncertifiedName(self, epoch)}).Draw(t, "upstream")
	if rare("handover") {
		l.HandoverTo = "b"
	}
	l.Leaving = rare("leaving")
	l.MaxSenders = rapid.SampledFrom([]int{0, 1, 20}).Draw(t, "max senders")
	if rapid.IntRange(0, 15).Draw(t, "lied") == 0 {
		l.Lie = "somebody lied"
	}
	if rare("impostor") {
		l.Impostor = "somebody bore a name"
	}
	for i, n := range nodes {
		if n != self && b("streams") {
			l.Senders = append(l.Senders, cluster.Sender{Name: cluster.CertifiedName(n, epoch), State: "streaming", PID: 100 + i,
				Flush: cluster.LSN(rapid.IntRange(0, 0x50).Draw(t, "flush") * 0x10), Start: 1})
		}
		if n != self && rapid.IntRange(0, 3).Draw(t, "stranger") == 0 {
			l.Senders = append(l.Senders, cluster.Sender{Name: rapid.SampledFrom([]string{cluster.CertifiedName(n, epoch), cluster.CertifiedName(n, epoch), cluster.UncertifiedName(n, epoch), "feed"}).Draw(t, "name"),
				State: "streaming", PID: 110 + i, Flush: cluster.LSN(rapid.IntRange(0, 0x52).Draw(t, "flush") * 0x10), Start: 2, Stranger: "role reppy"})
		}
	}
	return l
}

func anyPeer(t *rapid.T, name string, epoch uint64) Peer {
	b := func(what string) bool { return rapid.Bool().Draw(t, what) }
	p := Peer{Age: anyAge().Draw(t, "age"), GuardianAge: anyAge().Draw(t, "guardian age"), UnseenFor: anyAge().Draw(t, "unseen"),
		Guardian: rapid.SampledFrom([]cluster.PostgresState{"", cluster.PostgresDown, cluster.PostgresPrimary}).Draw(t, "guardian")}
	p.Node, p.Kind, p.Instance, p.MayLead, p.StoreOK = name, "data", anyMember(t, name).Instance, b("may lead"), b("store")
	p.Postgres = rapid.SampledFrom([]cluster.PostgresState{cluster.PostgresDown, cluster.PostgresStandby, cluster.PostgresPrimary}).Draw(t, "state")
	p.Leads, p.Certified = uint64(rapid.IntRange(0, int(epoch)).Draw(t, "leads")), uint64(rapid.IntRange(0, int(epoch)).Draw(t, "certified"))
	p.ControlNonce = fmt.Sprint("n", rapid.IntRange(1, int(epoch)).Draw(t, "nonce"))
	p.WAL = anyPosition().Draw(t, "wal")
	if b("frozen") {
		p.Frozen = epoch
	}
	if b("cannot") {
		p.CannotCommit = "it says so"
	}
	return p
}

func anyView() *rapid.Generator[*View] {
	return rapid.Custom(func(t *rapid.T) *View {
		v := &View{Self: rapid.SampledFrom(nodes).Draw(t, "self"), Spec: testSpec(), Nonce: "fresh"}
		v.Spec.WantK = rapid.IntRange(1, 2).Draw(t, "want k")
		v.Spec.Durability = rapid.SampledFrom([]cluster.Durability{cluster.Quorum, cluster.Quorum, cluster.Strict}).Draw(t, "durability")
		term := anyTerm(t)
		rare := func(what string) bool { return rapid.IntRange(0, 7).Draw(t, what) == 0 }
		v.Store = Store{Reachable: !rare("away"), ReadAge: anyAge().Draw(t, "read"), Term: term, Rev: 5, Unsettled: rare("unsettled"),
			RolledBack: rare("rolled back"), Paused: rare("paused"), Lease: Lease{Unchanged: anyAge().Draw(t, "lease")}}
		if rare("request") {
			v.Store.Request = &Request{ID: "r", Kind: rapid.SampledFrom([]string{"switchover", "failover", "reinit", "restore", "undo-restore"}).Draw(t, "kind"),
				Epoch: term.Epoch, Restore: anyRestore(t), By: "somebody", Order: rapid.SampledFrom([]string{"o1", "o2"}).Draw(t, "which"),
				To: rapid.SampledFrom(nodes).Draw(t, "to"), AcceptDataLoss: rapid.Bool().Draw(t, "loss"), OldPrimaryOff: rapid.Bool().Draw(t, "off"), Age: anyAge().Draw(t, "age")}
		}
		v.Local = anyLocal(t, v.Self, term.Epoch)
		if term.Restore != nil || rare("restored here") {
			v.Local.Restore = anyLocalRestore(t)
		}
		for _, n := range nodes {
			if n != v.Self {
				v.Peers = append(v.Peers, anyPeer(t, n, term.Epoch))
			}
		}
		switch role := rapid.SampledFrom([]string{"any", "any", "leader", "leader", "standby", "standby", "former", "opening", "leaving", "heir", "intruded", "draining"}).Draw(t, "role"); role {
		case "any":
		case "leaving":
			plausible(t, v, "leader")
			leaving(t, v)
		case "opening":
			plausible(t, v, "leader")
			v.Store.Term.Open, v.Local.Written, v.Local.Sync = false, false, Sync{Setting: cluster.HoldCommits(), Proved: true}
		case "former":
			plausible(t, v, "standby")
			v.Local.Former, v.Local.Postgres, v.Local.TreeEmpty, v.Local.Upstream = true, cluster.PostgresDown, true, ""
		case "intruded":
			plausible(t, v, "leader")
			intruded(t, v)
		case "draining":
			plausible(t, v, "leader")
			if v.Local.Leads != 0 {
				draining(t, v)
			}
		case "heir":
			plausible(t, v, "standby")
			heirTo(t, v)
		default:
			plausible(t, v, role)
		}
		v.Local.Manual, v.Local.Priority = rare("manual"), rapid.IntRange(0, 2).Draw(t, "priority")
		for i := range v.Peers {
			v.Peers[i].Manual, v.Peers[i].Priority = rare("manual"), rapid.IntRange(0, 2).Draw(t, "priority")
		}
		return v
	})
}

// plausible makes a view of one in which most things are as they should be, so
// that the deeper rules are reached.
func plausible(t *rapid.T, v *View, role string) {
	term, l := v.Store.Term, &v.Local
	v.Store.RolledBack, v.Store.Unsettled, v.Store.Reachable = false, false, true
	l.Empty, l.Poisoned, l.Remade, l.Receiver, l.MayLead = false, false, 0, false, true
	l.WAL.Epoch = min(l.WAL.Epoch, term.Epoch)
	for i := range term.Sync {
		term.Sync[i].Instance = "i-" + term.Sync[i].Name
	}
	for i := range v.Peers {
		p := &v.Peers[i]
		p.Instance, p.Age, p.MayLead, p.Certified, p.Frozen = "i-"+p.Node, 0, true, term.Epoch, 0
		p.ControlNonce = term.Current().Nonce
		if rapid.Bool().Draw(t, "seen") {
			p.UnseenFor = 0
		}
		if p.Node == term.Leader {
			p.Postgres, p.Leads = cluster.PostgresPrimary, term.Epoch
		}
	}
	if role == "standby" {
		l.Postgres, l.Leads = cluster.PostgresStandby, 0
		if rapid.IntRange(0, 3).Draw(t, "stopped") == 0 {
			l.Postgres, l.TreeEmpty = cluster.PostgresDown, true
		}
		return
	}
	if term.Restore != nil { // it has stopped for it
		l.Postgres, l.Leads, l.TreeEmpty, l.Restore.Done = rapid.SampledFrom([]cluster.PostgresState{cluster.PostgresDown, cluster.PostgresStandby}).Draw(t, "restoring"), 0, true, false
		l.Restore.ID, l.Upstream, term.Leader = rapid.SampledFrom([]string{term.Restore.ID, term.Restore.ID, ""}).Draw(t, "begun"), "", v.Self
		return
	}
	term.Leader, l.Postgres, l.Leads, l.Promised = v.Self, cluster.PostgresPrimary, term.Epoch, 0
	term.Sync = slices.DeleteFunc(term.Sync, func(m cluster.Member) bool { return m.Name == v.Self })
	term.K = min(term.K, len(term.Sync))
	if term.Open {
		term.LastOpenLeader = v.me()
	}
	l.WAL, l.Timeline, l.Written, l.Upstream = cluster.Position{Epoch: term.Epoch, LSN: 0x500}, term.Current().Timeline, true, ""
}

// leaving: a lone leader whose host is being stopped.
func leaving(t *rapid.T, v *View) {
	l, term := &v.Local, v.Store.Term
	term.Open, term.Sync, term.K, term.LastOpenLeader = true, nil, 0, v.me()
	l.Postgres, l.Leads, l.CleanStop, l.TreeEmpty, l.HandoverTo, l.Leaving = cluster.PostgresDown, 0, true, true, "", true
	if rapid.Bool().Draw(t, "promised") {
		l.Promised = term.Epoch
	}
}

// heirTo: the lone leader was stopped in order and does not come back.
func heirTo(t *rapid.T, v *View) {
	l, term := &v.Local, v.Store.Term
	p := &v.Peers[0]
	term.Leader, term.Open, term.Sync, term.K = p.Node, true, nil, 0
	term.LastOpenLeader = cluster.Member{Name: p.Node, Instance: p.Instance}
	lsn := rapid.IntRange(1, 3)
	term.Promises = []cluster.Promise{{Node: p.Node, Instance: p.Instance, Epoch: term.Epoch, WALEpoch: term.Epoch, LSN: cluster.LSN(lsn.Draw(t, "end") * 0x100)}}
	p.Age, p.GuardianAge, v.Store.Lease.Unchanged = time.Hour, time.Hour, time.Hour
	l.AgentFor, l.SilentFor, l.Former = time.Hour, time.Hour, false
	l.WAL = cluster.Position{Epoch: term.Epoch, LSN: cluster.LSN(lsn.Draw(t, "have") * 0x100)}
	if rapid.Bool().Draw(t, "promised") {
		l.Promised, l.Upstream = term.Epoch, ""
	}
}

func copied(v *View) *View {
	c := *v
	c.Store.Term = v.Store.Term.Clone()
	if r := v.Store.Request; r != nil {
		q := *r
		c.Store.Request = &q
	}
	c.Local.Senders, c.Peers = slices.Clone(v.Local.Senders), slices.Clone(v.Peers)
	c.Local.Sync.Setting.Names, c.Local.Sync.Old = slices.Clone(v.Local.Sync.Setting.Names), slices.Clone(v.Local.Sync.Old)
	return &c
}

func TestDecideIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView().Draw(t, "view")
		before := copied(v)
		first, again := Decide(v), Decide(v)
		if d := diff.Diff(before, v); d != "" {
			t.Fatalf("the view was changed:\n%s", d)
		}
		if d := diff.Diff(first, again); d != "" {
			t.Fatalf("the same view is answered differently:\n%s", d)
		}
		if first.Rule == "" || first.Reason == "" {
			t.Fatalf("a decision without a reason: %+v", first)
		}
	})
}

// TestDecisionsAreSafe lists, verb by verb, what must be so whenever it is asked for.
func TestDecisionsAreSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView().Draw(t, "view")
		d := Decide(v)
		if len(d.Actions) > 1 {
			t.Fatalf("more than one step at a time: %v", d.Actions)
		}
		if d.Renew && v.Store.Term.Leader != v.Self {
			t.Fatalf("%s renews for %s", v.Self, v.Store.Term.Leader)
		}
		for _, a := range d.Actions {
			if why := unsafe(v, a); why != "" {
				t.Fatalf("[%s] %s: %s", d.Rule, a, why)
			}
		}
	})
}

func unsafe(v *View, a Action) string {
	l, t := &v.Local, v.Store.Term
	leads := t.Leader == v.Self && l.Leads == t.Epoch
	if v.Store.RolledBack {
		return "the store was rolled back (C6)"
	}
	if v.Store.Unsettled && a.Verb != Settle && a.Verb != Stop && a.Verb != EndSenders {
		return "an outcome is unknown (H2)"
	}
	if why := unsafeWhileRestoring(v, a); why != "" {
		return why
	}
	switch a.Verb {
	case Swap, Create, Withdraw:
		if why := unsafeDrain(v, a.Term); why != "" {
			return why
		}
		return unsafeTerm(v, a.Term)
	case SetSync:
		return unsafeSync(v, a.Sync)
	case Promote:
		switch {
		case t.Leader != v.Self || t.Open || leads:
			return "it has not won, or has promoted"
		case l.Upstream != "" || l.Receiver || !l.Final:
			return "something may still be received (C4)"
		case !l.Sync.Setting.IsHold():
			return "commits would not wait (C5)"
		case l.WAL.Epoch == t.Epoch:
			return "its timeline is used up"
		}
	case Follow:
		switch {
		case l.Promised >= t.Epoch:
			return "it promised to bear no name of that epoch (H3)"
		case t.Leader == v.Self:
			return "it leads"
		case a.Mode == "" && (l.Former || l.Empty || l.Poisoned || !l.Final || l.Receiver || !t.IsPrefix(l.WAL, t.Epoch)):
			return "no certificate (C1)"
		case a.Mode != "" && l.Remade != t.Epoch:
			return "two histories would mix"
		}
	case Rewind, Clone:
		if !t.Open || t.Leader == v.Self || t.InSync(v.me()) && !l.Empty || !v.Store.Reachable {
			return "data that may be counted on is thrown away (H3)"
		}
		if a.Verb == Rewind && l.Rewound >= 3 {
			return "it was rewound in vain often enough"
		}
	case FetchWAL:
		if l.Upstream != "" || l.Receiver || !l.Final || l.Promised != t.Epoch {
			return "two sources of WAL at once (C4)"
		}
	case ArchiveEnd:
		if t.Leader != v.Self || l.Postgres != cluster.PostgresDown || !l.Final || l.Promised != t.Epoch {
			return "WAL that may still grow, or is not the epoch's (T11)"
		}
	case Stop:
		if _, lied := falseFlush(v); a.Note == "false flush position" && lied {
			return unrecorded(v)
		}
	case WriteControl, Probe, EndSenders, HandOver:
		if !leads {
			return "it does not lead"
		}
		if a.Verb == HandOver {
			if why := unsafeHandOver(v, a); why != "" {
				return why
			}
		}
		return unsafeStranger(v, a)
	}
	return ""
}

// unsafeWhileRestoring: an order stands, so nobody but the leader does anything
// to the way back, and the leader nothing before it is written.
func unsafeWhileRestoring(v *View, a Action) string {
	l, t := &v.Local, v.Store.Term
	mine := t.Restore != nil && t.Leader == v.Self && l.Restore.ID == t.Restore.ID
	switch a.Verb {
	case RestoreData:
		if !mine || !t.Restore.Touched || l.Postgres.Up() || l.Restore.Tail == 0 {
			return "data is replaced without an order that everybody knows of"
		}
	case RecoverToEnd:
		if !mine || t.Restore.Everything() || l.Restore.Replayed < l.Restore.Tail || t.Restore.Timeline != t.Current().Timeline {
			return "the target is given up before all was replayed"
		}
	case RecoverAlong:
		if b, _ := t.Branch(l.WAL.Epoch); !mine || !l.Restore.Restored || !l.Final || l.Restore.Stop != 0 || a.LSN != l.WAL.LSN || a.Timeline != b.Timeline || b.Timeline == 0 {
			return "nobody knows yet where the target lies"
		}
	case ArchiveTail:
		if t.Restore == nil || t.Leader != v.Self || l.Postgres.Up() || !l.TreeEmpty {
			return "its WAL still grows, or nobody wants it"
		}
	case UndoRestore:
		if mine || l.Restore.Touched && l.Postgres.Up() {
			return "the order stands, or PostgreSQL runs on what is removed"
		}
	}
	if t.Restore == nil {
		return ""
	}
	switch a.Verb {
	case Settle, Swap, Answer, Stop, CutUpstream, EndReceiver, DropPromise, ArchiveTail, RestoreData, RecoverToEnd, RecoverAlong, UndoRestore:
		return ""
	case StartStandby, ReadPosition:
		if mine && l.Restore.Restored {
			return ""
		}
	}
	return "the herd is being restored"
}

func unsafeOrder(v *View, n *cluster.Term) string {
	t, l, r := v.Store.Term, &v.Local, v.Store.Request
	switch {
	case !slices.Equal(n.Sync, t.Sync) || n.K != t.K || n.Open != t.Open || n.LastOpenLeader != t.LastOpenLeader || !slices.Equal(n.Promises, t.Promises):
		return "an order changes nothing else"
	case t.Restore == nil: // given
		if !t.Open || t.Leader != v.Self || l.Leads != t.Epoch || r == nil || r.Kind != "restore" || n.Restore.Touched {
			return "nobody asked the leader for it"
		}
	case n.Restore == nil: // withdrawn
		if r == nil || r.Kind != "undo-restore" || r.Order != t.Restore.ID {
			return "nobody asked to undo it"
		}
		have := 0
		for _, m := range t.Sync {
			if p, ok := v.peer(m.Name); m == v.me() || ok && p.Age < v.Spec.SuspectAfter && p.Instance == m.Instance {
				have++
			}
		}
		if t.Restore.Touched && !t.Restore.KeepOld && (t.K == 0 || have < t.Needed()) {
			return "nobody has what was acknowledged"
		}
	case t.Leader != v.Self || l.Restore.ID != t.Restore.ID || l.Restore.Tail == 0 || !n.Restore.Same(t.Restore) || n.Restore.ID != t.Restore.ID:
		return "the order is altered, or the end of the WAL is not archived"
	}
	return ""
}

// unsafeRestored: the epoch that a restore begins.
func unsafeRestored(v *View, n *cluster.Term) string {
	t, l := v.Store.Term, &v.Local
	b, m := n.Current(), &l.Restore
	along, parent := t.Restore.Timeline, cluster.Branch{}
	parent, _ = t.Branch(l.WAL.Epoch)
	line := parent.Timeline
	if m.Stop != 0 {
		along = line
	}
	switch {
	case t.Leader != v.Self || m.ID != t.Restore.ID || !m.Restored || l.Postgres != cluster.PostgresStandby || l.Poisoned:
		return "nothing was restored here"
	case line != along:
		return "the new timeline's history would go back in time"
	case m.Stop != 0:
		if m.Replayed < m.Stop {
			return "the target was not reached again"
		}
	case (t.Restore.Everything() || m.ToEnd) && m.Replayed < m.Tail:
		return "acknowledged commits are missing"
	case !t.Restore.Everything() && !m.ToEnd && !m.Paused:
		return "the target was not reached"
	}
	switch {
	case n.Restore != nil || b.Restored != t.Restore.ID || len(n.Sync) != 0 || n.K != 0 || n.LastOpenLeader != v.me() || n.Open:
		return "somebody counts who may have diverged"
	case b.Parent != l.WAL.Epoch || b.ForkLSN != l.WAL.LSN || b.Timeline != t.NextTimeline() || !l.Final || b.Parent == 0:
		return "the branch is not where replay ended"
	}
	return ""
}

func unsafeSync(v *View, s cluster.SyncSetting) string {
	t := v.Store.Term
	if s.IsHold() {
		return ""
	}
	if t.Leader != v.Self || !t.Open || v.Local.Leads != t.Epoch {
		return "only the leader of an open epoch lets commits through"
	}
	if s.Alone {
		if t.K != 0 {
			return "commits would be acknowledged alone while k >= 1"
		}
		return ""
	}
	if s.K < t.K || s.K < 1 || s.K > len(s.Names) && v.Spec.Durability != cluster.Strict {
		return fmt.Sprintf("k is %d, the record says %d", s.K, t.K)
	}
	for _, n := range s.Names {
		node, e, ok := cluster.ParseCertifiedName(n)
		if !ok || e != t.Epoch {
			return n + " is no certificate of this epoch"
		}
		if _, in := t.SyncNamed(node); t.K > 0 && !in {
			return n + " is waited for, but not in the record (a widening: the term first)"
		}
		if t.K == 0 && !v.Local.Sync.Proved {
			return "that commits wait is not proved (C5)"
		}
	}
	return ""
}

func unsafeTerm(v *View, n *cluster.Term) string {
	t, l := v.Store.Term, &v.Local
	leads := t.Leader == v.Self && l.Leads == t.Epoch
	switch {
	case n.K > len(n.Sync) || n.K < 0:
		return "k > |sync| (H7)"
	case n.Epoch > t.Epoch+1 || n.Epoch < t.Epoch:
		return "epochs go up one by one"
	case n.Epoch == t.Epoch && len(n.History) != len(t.History):
		return "the history of an epoch was rewritten"
	case n.Epoch == t.Epoch+1 && t.Restore != nil:
		return unsafeRestored(v, n)
	case n.Epoch == t.Epoch+1:
		return unsafeWin(v, n)
	case n.Leader != t.Leader:
		return "a new leader is a new epoch"
	case n.Restore != t.Restore && (n.Restore == nil || t.Restore == nil || *n.Restore != *t.Restore):
		return unsafeOrder(v, n)
	}
	same := slices.Equal(n.Sync, t.Sync) && n.K == t.K && n.Open == t.Open
	if same {
		return unsafePromise(v, n)
	}
	if !leads {
		return "only the leader changes who is waited for"
	}
	narrower := n.K > t.K || slices.ContainsFunc(t.Sync, func(m cluster.Member) bool { return n.K > 0 && !slices.Contains(n.Sync, m) })
	if t.Open && narrower {
		return unflushed(v, n)
	}
	if !t.Open && l.BadHistory != "" {
		return "the epoch is opened on an impossible timeline"
	}
	if !t.Open && (!l.Written || !l.Sync.Setting.IsHold() || !l.Sync.Proved || n.LastOpenLeader != v.me()) {
		return "the epoch is opened too early (C3)"
	}
	return ""
}

// unflushed: enough of those who remain have what came after (C2, H4).
func unflushed(v *View, n *cluster.Term) string {
	s, have := v.Local.Sync, 0
	for _, m := range n.Sync {
		if slices.ContainsFunc(v.Local.Senders, func(x cluster.Sender) bool {
			return x.Name == cluster.CertifiedName(m.Name, n.Epoch) && x.Stranger == "" && x.Flush >= s.Since
		}) {
			have++
		}
	}
	switch {
	case s.Since == 0 || have < n.K:
		return fmt.Sprintf("only %d of %d flushed past the change (C2)", have, n.K)
	case len(s.Old) > 0:
		return "walsenders of a smaller k live (H4)"
	case s.Setting.Alone || s.Setting.K < n.K && !s.Setting.IsHold():
		return "PostgreSQL comes first when it narrows"
	}
	return ""
}

func unsafePromise(v *View, n *cluster.Term) string {
	mine, ok := n.PromiseOf(v.Self)
	if !ok {
		return ""
	}
	if old, had := v.Store.Term.PromiseOf(v.Self); had && old == mine {
		return ""
	}
	l := &v.Local
	switch {
	case l.Promised != n.Epoch:
		return "the promise is not on disk (H3)"
	case l.Upstream != "" && l.Postgres != cluster.PostgresDown || l.Receiver && l.Postgres != cluster.PostgresDown || !l.Final:
		return "something may still be received (C4)"
	case mine.Position() != l.WAL || mine.Instance != l.Instance:
		return "the promise is of another log or directory (C7, H3)"
	}
	return ""
}

// unsafeWin counts again who may win.
func unsafeWin(v *View, n *cluster.Term) string {
	t, l := v.Store.Term, &v.Local
	b := n.Current()
	switch {
	case n.Leader != v.Self || n.Open || len(n.Promises) != 0:
		return "won for somebody else, or opened at once (C3)"
	case b.Timeline != t.NextTimeline() || b.ForkLSN != l.WAL.LSN || b.Parent != l.WAL.Epoch || b.Nonce != v.Nonce:
		return "the branch is not that of its log (C7, M7)"
	case !l.Final || l.Receiver || l.Upstream != "":
		return "something may still be received (C4)"
	case n.Lost != nil:
		if r := v.Store.Request; r == nil || !r.AcceptDataLoss || !r.OldPrimaryOff || r.To != v.Self {
			return "nobody accepted a loss (H10)"
		}
		return ""
	case !slices.Equal(n.Sync, t.Sync) || n.K != t.K || n.LastOpenLeader != t.LastOpenLeader:
		return "sync describes the last open epoch until this one opens (C3)"
	case t.Leader == v.Self && !t.Open:
		return "" // won already, and never opened
	case l.Promised != t.Epoch:
		return "it has not promised (H3)"
	case t.LastOpenLeader == v.me() && (!t.Open || t.Leader == v.Self):
		return ""
	}
	for _, p := range t.Promises {
		if left := p.For == "" && t.Open && t.K == 0 && p.Node == t.Leader && p.Epoch == t.Epoch; left &&
			p.Instance == t.LastOpenLeader.Instance && !l.WAL.Less(p.Position()) {
			return "" // the last word of a leader that was stopped in order
		}
		if p.For == v.Self && p.Node == t.LastOpenLeader.Name && p.Instance == t.LastOpenLeader.Instance && !l.WAL.Less(p.Position()) {
			return ""
		}
	}
	if l.Manual && t.Leader != v.Self && !wanted(v) {
		return "nobody ordered that it takes over"
	}
	have := 0
	for _, m := range t.Sync {
		p, ok := t.PromiseOf(m.Name)
		if m == v.me() || ok && p.Instance == m.Instance && !l.WAL.Less(p.Position()) {
			have++
		}
	}
	if !t.InSync(v.me()) || have < max(1, len(t.Sync)-t.K+1) {
		return fmt.Sprintf("%d members of sync have promised no more than it has", have)
	}
	return ""
}
