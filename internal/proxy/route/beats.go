package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
)

const whyUnknown = "no host of the herd has answered yet"

// Heard is a beat and how long ago it arrived.
type Heard struct {
	Beat cluster.Beat
	Age  time.Duration
	// Silent is how long ago the node itself was heard; more than Age when others
	// hear it and this host does not.
	Silent time.Duration
}

// cutAfter is how much longer than the others this host must not have heard a
// node to be cut off from it.
const cutAfter = 400 * time.Millisecond

// cutOff says that others hear the node and this host does not.
func (h Heard) cutOff(fresh time.Duration) bool { return h.Age <= fresh && h.Silent-h.Age >= cutAfter }

// FromBeats derives the view from what the hosts say of themselves. The term
// record with the highest revision wins. Its leader is the primary only while
// the epoch is open and the leader's own beat says that it leads that epoch.
//
// Age never unseats a primary: a silent agent is not a dead database, and a
// dead one is replaced by a newer record. It does disqualify standbys: one that
// was not heard within fresh is not streaming as far as anybody knows, and one that
// only others hear is of no use here.
func FromBeats(beats []Heard, fresh time.Duration) View {
	term, rev := newestTerm(beats)
	if term == nil {
		return View{Why: whyUnknown}
	}
	nodes := byNode(beats, fresh)
	v := View{Known: true, Epoch: term.Epoch, Open: term.Open}
	leader, heard := nodes[term.Leader]
	switch {
	case term.Restore != nil:
		v.Why = fmt.Sprintf("the herd is being restored to %s", term.Restore.To())
		if heard && leader.Beat.Op != "" {
			v.Why += " (" + leader.Beat.Op + ")"
		}
	case !term.Open:
		v.Why = fmt.Sprintf("epoch %d was won by %s and is not open yet", term.Epoch, term.Leader)
		if heard && leader.Beat.Op != "" {
			v.Why += " (" + leader.Beat.Op + ")"
		}
	case !heard:
		v.Why = fmt.Sprintf("%s leads epoch %d but has not been heard", term.Leader, term.Epoch)
	case leader.Beat.Leads != term.Epoch:
		v.Why = fmt.Sprintf("%s should lead epoch %d but its PostgreSQL does not (%s, heard %s ago)",
			term.Leader, term.Epoch, leader.Beat.Postgres, leader.Age.Round(100*time.Millisecond))
	case leader.Beat.Addrs.SQL == "":
		v.Why = fmt.Sprintf("%s leads epoch %d but has not said where its PostgreSQL listens", term.Leader, term.Epoch)
	default:
		v.Primary = Node{Name: term.Leader, Addr: leader.Beat.Addrs.SQL}
		v.Doubt = doubt(beats, leader, fresh)
		v.CutOff = leader.cutOff(fresh)
	}
	if d := term.Draining(); d != nil {
		v.Drain = &Drain{*d, rev, term.Leader, leader.Beat.Addrs.Peer}
	}
	v.Standbys = standbys(nodes, term, fresh)
	v.Members = members(nodes, term, fresh)
	return v
}

// doubt is why the leader may let no write through: its own word, or silence of
// both its agent and its guardian.
func doubt(beats []Heard, leader Heard, fresh time.Duration) string {
	if why := leader.Beat.Unconfirmed; why != "" {
		return why
	}
	age := leader.Age
	for _, h := range beats {
		if h.Beat.Node == leader.Beat.Node {
			age = min(age, h.Age)
		}
	}
	if age > fresh {
		return fmt.Sprintf("%s was last heard %s ago", leader.Beat.Node, age.Round(100*time.Millisecond))
	}
	return ""
}

// Proxies is how many hosts have a proxy: those whose beats tell of one, and those
// that have nothing else and send none, of whom registered has the names. At least
// one, who asks.
func Proxies(beats []Heard, registered []string) int {
	names := map[string]bool{}
	for _, h := range beats {
		if h.Beat.Addrs.Proxy != "" {
			names[h.Beat.Node] = true
		}
	}
	for _, n := range registered {
		names[n] = true
	}
	return max(len(names), 1)
}

func newestTerm(beats []Heard) (term *cluster.Term, rev int64) {
	for _, h := range beats {
		if t := h.Beat.Term; t != nil && (term == nil || h.Beat.TermRev > rev) {
			term, rev = t, h.Beat.TermRev
		}
	}
	return term, rev
}

// byNode keeps one beat of each node: its agent's, unless that is stale and the
// guardian has since said that the postmaster is gone.
func byNode(beats []Heard, fresh time.Duration) map[string]Heard {
	agents, guardians := map[string]Heard{}, map[string]Heard{}
	for _, h := range beats {
		m := agents
		if h.Beat.From == "guardian" {
			m = guardians
		}
		if o, ok := m[h.Beat.Node]; !ok || h.Age < o.Age {
			m[h.Beat.Node] = h
		}
	}
	for name, g := range guardians {
		a, ok := agents[name]
		switch {
		case !ok:
			agents[name] = g
		case a.Age > fresh && g.Age < a.Age && !g.Beat.Postgres.Up():
			a.Beat.Postgres, a.Beat.Leads, a.Beat.Streaming = g.Beat.Postgres, 0, false
			agents[name] = a
		}
	}
	return agents
}

func standbys(nodes map[string]Heard, term *cluster.Term, fresh time.Duration) []Standby {
	var out []Standby
	end := nodes[term.Leader].Beat.WAL
	for name, h := range nodes {
		b := h.Beat
		if name == term.Leader || b.Postgres != cluster.PostgresStandby || b.Addrs.SQL == "" {
			continue
		}
		s := Standby{Node: Node{Name: name, Addr: b.Addrs.SQL}, LagBytes: -1, LagMS: -1}
		s.Streaming = b.Streaming && b.Rejoin == "" && b.Certified == term.Epoch && h.Age <= fresh && !h.cutOff(fresh)
		if end.LSN != 0 && b.Replay != 0 {
			s.LagBytes = max(0, int64(end.LSN)-int64(b.Replay))
		}
		if b.LagMS != nil {
			s.LagMS = *b.LagMS
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Standby) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// members lists the hosts with a database.
func members(nodes map[string]Heard, term *cluster.Term, fresh time.Duration) []Member {
	var out []Member
	leader := nodes[term.Leader].Beat
	for name, h := range nodes {
		b := h.Beat
		if b.Addrs.SQL == "" {
			continue
		}
		m := Member{Node: Node{Name: name, Addr: b.Addrs.SQL}, Primary: name == term.Leader, LagBytes: -1}
		m.Up = h.Age <= fresh && (b.Postgres == cluster.PostgresPrimary || b.Postgres == cluster.PostgresStandby)
		if !m.Primary && leader.WAL.LSN != 0 && b.Replay != 0 {
			m.LagBytes = max(0, int64(leader.WAL.LSN)-int64(b.Replay))
		}
		for _, s := range leader.Senders {
			if at := strings.IndexAny(s.Name, "@~"); at > 0 && s.Name[:at] == name && !m.Primary {
				m.State, m.Sync = s.State, s.Sync
			}
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
