package store

import "slices"

// Host is a candidate for a vote, in the order in which the hosts joined.
type Host struct {
	Name     string
	Kind     string // "data" and "witness" hosts can vote
	Location string // empty: a location of its own
}

// ChooseVoters says which hosts should be voters: want (1, 3 or 5; anything
// else counts as the next lower of them), or the largest odd number that the
// hosts allow. Present voters keep their votes as long as they exist, then come
// data nodes before witnesses and unused locations before used ones. The result
// is in order of preference. To get there add voters first and then remove, one
// at a time, so that the quorum never shrinks on the way.
func ChooseVoters(hosts []Host, current []string, want int) []string {
	var free []Host
	for _, h := range hosts {
		if h.Kind == "data" || h.Kind == "witness" {
			free = append(free, h)
		}
	}
	used := map[string]bool{}
	var chosen []string
	for n := oddVotes(min(want, len(free))); len(chosen) < n; {
		best := 0
		for i := range free {
			if voteRank(free[i], current, used) < voteRank(free[best], current, used) {
				best = i // the earlier host wins a tie
			}
		}
		h := free[best]
		free = slices.Delete(free, best, best+1)
		if h.Location != "" {
			used[h.Location] = true
		}
		chosen = append(chosen, h.Name)
	}
	return chosen
}

// oddVotes rounds down to 5, 3 or 1; nothing stays nothing.
func oddVotes(n int) int {
	switch {
	case n >= 5:
		return 5
	case n >= 3:
		return 3
	}
	return min(max(n, 0), 1)
}

// voteRank: lower is better.
func voteRank(h Host, current []string, used map[string]bool) (rank int) {
	if !slices.Contains(current, h.Name) {
		rank += 4
	}
	if used[h.Location] {
		rank += 2
	}
	if h.Kind != "data" {
		rank++
	}
	return rank
}
