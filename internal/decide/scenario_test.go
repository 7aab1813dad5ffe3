package decide

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"manada/internal/cluster"
)

// TestScenarios runs testdata/*.txt. A block `view` describes what one node
// knows, a block `then` changes some of it; both print the decision. `took` in
// a `then` block means that the last swap succeeded and was read back. The
// words are explained in testdata/README.md.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			var s *scenario
			datadriven.RunTest(t, f, func(t *testing.T, d *datadriven.TestData) string {
				switch {
				case d.Cmd == "view":
					s = newScenario()
				case d.Cmd != "then" || s == nil:
					d.Fatalf(t, "want `view`, then `then`; got %q", d.Cmd)
				}
				for _, line := range strings.Split(d.Input, "\n") {
					if err := s.line(line); err != nil {
						d.Fatalf(t, "%q: %v", line, err)
					}
				}
				return s.decide(t)
			})
		})
	}
}

// testSpec is what scenarios and property tests use.
func testSpec() Spec {
	return Spec{
		Durability: cluster.Quorum, WantK: 1, SuspectAfter: time.Second, DegradeAfter: time.Second,
		OpenAfter: time.Second, HandoverAfter: 2 * time.Second, WithdrawAfter: 2 * time.Second,
		RecloneAfter: 10 * time.Second, FreshRead: 500 * time.Millisecond,
		Drain: Drain{Soft: 300 * time.Millisecond, Hold: time.Second, For: 5 * time.Second},
	}
}

type scenario struct {
	v    View
	last *cluster.Term
}

func newScenario() *scenario {
	s := &scenario{}
	s.v.Spec, s.v.Nonce = testSpec(), "fresh"
	s.v.Store = Store{Reachable: true, Rev: 10}
	s.v.Local = Local{SystemID: "1", AgentFor: time.Hour, MayLead: true, Priority: 100, TreeEmpty: true, Postgres: cluster.PostgresDown,
		SilentFor: time.Hour, WithdrawnAgo: time.Hour}
	return s
}

func (s *scenario) decide(t *testing.T) string {
	before := Describe(s.v.Store.Term)
	d := Decide(&s.v)
	if after := Describe(s.v.Store.Term); after != before {
		t.Errorf("the view was changed: %s", after)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", d.Rule, d.Reason)
	for _, a := range d.Actions {
		fmt.Fprintf(&b, "-> %s\n", a)
		if a.Term != nil {
			s.last = a.Term
		}
	}
	for _, x := range []struct{ k, v string }{{"cannot commit", d.CannotCommit}, {"writes wait", d.WritesWait}, {"suspects", d.Suspects}, {"rejoin", d.Rejoin}} {
		if x.v != "" {
			fmt.Fprintf(&b, "%s: %s\n", x.k, x.v)
		}
	}
	if d.Certified != 0 {
		fmt.Fprintf(&b, "certified: e%d\n", d.Certified)
	}
	if d.Renew {
		b.WriteString("renews\n")
	}
	return b.String()
}

// line applies one line of a block. A line is a noun and words; a word is a
// flag, a negated flag (no-flag) or key=value.
func (s *scenario) line(text string) error {
	text, _, _ = strings.Cut(text, "#")
	f := strings.Fields(text)
	if len(f) == 0 {
		return nil
	}
	noun, words := f[0], f[1:]
	switch noun {
	case "self":
		s.v.Self, s.v.Local.Instance = words[0], "i-"+words[0]
		return nil
	case "took":
		s.v.Store.Term, s.v.Store.Rev = s.last, s.v.Store.Rev+1
		return nil
	case "branch":
		return s.branch(words)
	case "peer":
		return s.peerWords(words[0], words[1:])
	case "senders":
		return s.senders(words)
	case "drain":
		if s.v.Local.Drain.ID == "" {
			s.v.Local.Drain = LocalDrain{ID: "d1", Request: "r1", Looked: time.Hour}
		}
	}
	fn, ok := map[string]func(string, string) error{
		"spec": s.specWord, "store": s.storeWord, "term": s.termWord, "local": s.localWord,
		"sync": s.syncWord, "request": s.requestWord, "drain": s.drainWord,
	}[noun]
	if !ok {
		return fmt.Errorf("unknown noun %q", noun)
	}
	for _, w := range words {
		k, val, has := strings.Cut(w, "=")
		if !has {
			val = "true"
			if rest, neg := strings.CutPrefix(k, "no-"); neg {
				k, val = rest, "false"
			}
		}
		if err := fn(k, strings.ReplaceAll(val, "_", " ")); err != nil {
			return err
		}
	}
	return nil
}

func unknownWord(k string) error { return fmt.Errorf("unknown word %q", k) }

func dur(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

func num(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func lsn(s string) cluster.LSN {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		panic(err)
	}
	return cluster.LSN(n)
}

// pos reads "7:2A0", epoch and LSN.
func pos(s string) cluster.Position {
	e, l, _ := strings.Cut(s, ":")
	return cluster.Position{Epoch: uint64(num(e)), LSN: lsn(l)}
}

// member reads "b" or "b:i2".
func member(s string) cluster.Member {
	n, i, ok := strings.Cut(s, ":")
	if !ok {
		i = "i-" + n
	}
	return cluster.Member{Name: n, Instance: i}
}

func list2(s string) []string {
	if s == "" || s == "none" {
		return nil
	}
	return strings.Split(s, ",")
}

func (s *scenario) specWord(k, val string) error {
	switch k {
	case "quorum", "strict", "async":
		s.v.Spec.Durability = cluster.Durability(k)
	case "k":
		s.v.Spec.WantK = num(val)
	case "witness":
		s.v.Spec.Witness = val == "true"
	default:
		return unknownWord(k)
	}
	return nil
}

func (s *scenario) storeWord(k, val string) error {
	st := &s.v.Store
	switch k {
	case "reachable":
		st.Reachable = val == "true"
	case "read":
		st.ReadAge = dur(val)
	case "unsettled":
		st.Unsettled = val == "true"
	case "just-opened":
		st.JustOpened = val == "true"
	case "rolled-back":
		st.RolledBack = val == "true"
	case "paused":
		st.Paused = val == "true"
	case "lease":
		st.Lease.Unchanged = dur(val)
	default:
		return unknownWord(k)
	}
	return nil
}

func (s *scenario) requestWord(k, val string) error {
	if s.v.Store.Request == nil {
		s.v.Store.Request = &Request{ID: "r1"}
	}
	r := s.v.Store.Request
	switch k {
	case "none":
		s.v.Store.Request = nil
	case "switchover", "failover", "reinit", "undo-restore":
		r.Kind = k
	case "restore": // of everything, planned in the epoch of the term
		r.Kind, r.Restore = k, &cluster.Restore{Type: "default", Set: "F1", Timeline: s.v.Store.Term.Current().Timeline}
		r.Epoch = s.v.Store.Term.Epoch
	case "time":
		r.Restore.Type, r.Restore.Target = k, val
	case "epoch":
		r.Epoch = uint64(num(val))
	case "order":
		r.Order = val
	case "id":
		r.ID = val
	case "to":
		r.To = val
	case "accept-data-loss":
		r.AcceptDataLoss = true
	case "old-primary-is-off":
		r.OldPrimaryOff = true
	case "tried":
		r.Tried = true
	case "age":
		r.Age = dur(val)
	default:
		return unknownWord(k)
	}
	return nil
}

// term: the first word is the epoch, "e7". Branches 1 to 7 are made with it, each
// forking from the one before at 100, 200, ... on timelines 1, 2, ...
func (s *scenario) termWord(k, val string) error {
	if e, ok := strings.CutPrefix(k, "e"); ok && s.v.Store.Term == nil {
		t := &cluster.Term{SystemID: "1", Epoch: uint64(num(e)), Open: true, WantK: 1, Durability: s.v.Spec.Durability}
		for i := uint64(1); i <= t.Epoch; i++ {
			t.History = append(t.History, cluster.Branch{Epoch: i, Parent: i - 1, Timeline: cluster.Timeline(i),
				ForkLSN: cluster.LSN((i - 1) * 0x100), Nonce: fmt.Sprint("n", i)})
		}
		s.v.Store.Term = t
		return nil
	}
	t := s.v.Store.Term.Clone()
	s.v.Store.Term = t
	switch k {
	case "leader":
		t.Leader = val
		t.History[len(t.History)-1].Leader = val
		if t.LastOpenLeader.Name == "" {
			t.LastOpenLeader = member(val)
		}
	case "open":
		t.Open = val == "true"
	case "k":
		t.K = num(val)
	case "sync":
		t.Sync = nil
		for _, m := range list2(val) {
			t.Sync = append(t.Sync, member(m))
		}
	case "last":
		t.LastOpenLeader = member(val)
	case "promises":
		return s.promises(t, val)
	case "restore": // restore=r1 of everything, restore=none
		t.Restore = &cluster.Restore{ID: val, Type: "default", Set: "F1", Timeline: t.Current().Timeline}
		if val == "none" {
			t.Restore = nil
		}
	case "time", "name":
		t.Restore.Type, t.Restore.Target = k, val
	case "touched":
		t.Restore.Touched = true
	case "keep-old":
		t.Restore.KeepOld = true
	case "drain": // drain=d1@7>b, soft; drain=none
		id, to, _ := strings.Cut(val, ">")
		id, epoch, _ := strings.Cut(id, "@")
		t.Drain = nil
		if val != "none" {
			t.Drain = &cluster.Drain{ID: id, Epoch: uint64(num(epoch)), To: to, SoftMS: 300, HoldMS: 1000, ForMS: 5000}
		}
	case "hold":
		t.Drain.Hold = val == "true"
	case "restored": // the order that began the epoch
		t.History[len(t.History)-1].Restored = val
	case "lost":
		n, l, _ := strings.Cut(val, ":")
		t.Lost = &cluster.Lost{Node: n, From: lsn(l)}
	case "system":
		t.SystemID = val
	default:
		return unknownWord(k)
	}
	return nil
}

// promises reads "b@7:2A0,c@7:2B0>d", d being the successor that c names.
func (s *scenario) promises(t *cluster.Term, val string) error {
	t.Promises = nil
	for _, p := range list2(val) {
		node, rest, _ := strings.Cut(p, "@")
		at, successor, _ := strings.Cut(rest, ">")
		m := member(node)
		x := pos(at)
		t.Promises = append(t.Promises, cluster.Promise{Node: m.Name, Instance: m.Instance, Epoch: t.Epoch,
			WALEpoch: x.Epoch, LSN: x.LSN, For: successor})
	}
	return nil
}

// branch reads "7 parent=5 fork=2A0 timeline=9 nonce=x".
func (s *scenario) branch(words []string) error {
	t := s.v.Store.Term.Clone()
	s.v.Store.Term = t
	i := slices.IndexFunc(t.History, func(b cluster.Branch) bool { return b.Epoch == uint64(num(words[0])) })
	if i < 0 {
		return fmt.Errorf("no epoch %s", words[0])
	}
	b := &t.History[i]
	for _, w := range words[1:] {
		k, val, _ := strings.Cut(w, "=")
		switch k {
		case "parent":
			b.Parent = uint64(num(val))
		case "fork":
			b.ForkLSN = lsn(val)
		case "timeline":
			b.Timeline = cluster.Timeline(num(val))
		case "nonce":
			b.Nonce = val
		default:
			return unknownWord(k)
		}
	}
	return nil
}

// senders reads "b@e7=2A0" words; "b@e7=2A0/11" gives the pid, "!reppy" behind it
// whose it is when that is not the member, and "^2" when it began.
func (s *scenario) senders(words []string) error {
	s.v.Local.Senders = nil
	for i, w := range words {
		if w == "none" {
			continue
		}
		w, stranger, foreign := strings.Cut(w, "!")
		w, start, _ := strings.Cut(w, "^")
		name, rest, _ := strings.Cut(w, "=")
		at, pid, has := strings.Cut(rest, "/")
		x := cluster.Sender{Name: name, State: "streaming", Flush: lsn(at), PID: 100 + i}
		if foreign {
			x.Stranger = "role " + stranger + " from 10.0.0.14"
		}
		if start != "" {
			x.Start = int64(num(start))
		}
		if has {
			x.PID = num(pid)
		}
		s.v.Local.Senders = append(s.v.Local.Senders, x)
	}
	return nil
}
