package health

import (
	"fmt"
	"slices"
	"strings"

	"manada/internal/cluster"
)

// unreachable says that the leader is not heard, and whether another node can
// take over.
func (b *builder) unreachable(n *node) cluster.Condition {
	c := Say(PrimaryUnreachable, n.name, "heard", lastHeard(n.heard, n.age))
	if seen := b.noQuorum(); seen != "" {
		c.Hint = fmt.Sprintf("nobody can take over, the store has no quorum (%s): start %s", seen, b.votersAway())
	}
	return c
}

// noQuorum is how it is seen that the store has no quorum, "" when it has one or
// may have one.
func (b *builder) noQuorum() string {
	if s := b.in.Store; s != nil && s.Voters > 0 && s.UnknownSince == nil && !s.HasQuorum() {
		return fmt.Sprintf("%d of %d voters up", s.Up, s.Voters)
	}
	reached, cut := b.reach()
	if !reached && len(cut) > 0 {
		return "no node heard from reaches it"
	}
	return ""
}

// reach says whether a node reaches the store, and names those that do not.
func (b *builder) reach() (reached bool, cut []string) {
	for _, n := range b.nodes {
		switch {
		case n.beat == nil || !n.agent || n.kind == "proxy":
		case n.beat.StoreOK:
			reached = true
		default:
			cut = append(cut, n.name)
		}
	}
	return reached, cut
}

// votersAway names the hosts that bring the quorum back: the voters that do not
// answer, as far as they are known, else the hosts that are not heard.
func (b *builder) votersAway() string {
	s := b.in.Store
	var away []string
	if s != nil && s.UnknownSince == nil {
		away = slices.Clone(s.Down)
	}
	for _, n := range b.nodes {
		votes := n.kind != "proxy" && (s == nil || len(s.Voting) == 0 || slices.Contains(s.Voting, n.name))
		if votes && n.beat == nil && !slices.Contains(away, n.name) {
			away = append(away, n.name)
		}
	}
	if len(away) == 0 { // they answer, and their stores do not
		return "Manada on the hosts that vote"
	}
	slices.Sort(away)
	return strings.Join(away, ", ")
}

// store: one sentence when it is gone for everybody, one per node otherwise.
func (b *builder) store() []cluster.Condition {
	if seen := b.noQuorum(); seen != "" {
		return []cluster.Condition{Say(StoreNoQuorum, "", "seen", seen)}
	}
	var cs []cluster.Condition
	_, cut := b.reach()
	for _, name := range cut {
		cs = append(cs, Say(StoreUnreachable, name))
	}
	s := b.in.Store
	if s == nil || s.UnknownSince != nil {
		return cs
	}
	for _, name := range slices.Sorted(slices.Values(s.Down)) {
		cs = append(cs, Say(StoreVoterDown, name, "up", s.Up, "voters", s.Voters))
	}
	if len(s.Down) == 0 && s.Up < s.Voters {
		cs = append(cs, Say(StoreVoterDown, "", "up", s.Up, "voters", s.Voters))
	}
	if s.Voters > 0 && s.Voters < 3 {
		cs = append(cs, Say(StoreFewVoters, "", "voters", s.Voters))
	}
	return cs
}
