package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
)

// Outlook is what a status lets one expect of the loss of the primary: whether
// another node takes over by itself, without the loss of a commit.
type Outlook struct {
	Process bool   // when PostgreSQL on the primary's host dies
	Host    bool   // when that host is lost, with its vote
	Text    string // a sentence: safe for what, by whom; or what stands in the way
}

// Failover counts who holds the commits, who may lead, the votes that are left, and
// what would keep clients out.
func Failover(s cluster.Status) Outlook {
	if s.Epoch == 0 {
		return Outlook{Text: "unknown: no term record is known"}
	}
	if s.Primary == "" {
		return Outlook{Text: needs(s)}
	}
	if why := hindered(s); why != "" {
		return Outlook{Text: why}
	}
	need := max(1, len(s.Sync)-s.K+1)
	able := ableToPromise(s)
	if len(able) < need {
		return Outlook{Text: fmt.Sprintf("not possible now: it takes %d of %s, %s", need, strings.Join(s.Sync, ", "), countAble(len(able)))}
	}
	able, why := byItself(s, able)
	if len(able) == 0 {
		return Outlook{Text: "not automatic: " + why}
	}
	who := strings.Join(able, " or ")
	if c, ok := keepsOut(s); ok {
		return Outlook{Text: fmt.Sprintf("not certain: %s holds all commits, but clients may not get in there (%s): %s", who, c.Code, c.Text)}
	}
	if !s.Store.QuorumWithout(s.Primary) {
		return Outlook{Process: true, Text: fmt.Sprintf("safe for the death of PostgreSQL on %s (%s can take over without losing a commit), not for the loss of that host: "+
			"without its vote the store has no quorum", s.Primary, who)}
	}
	return Outlook{Process: true, Host: true, Text: fmt.Sprintf("safe: %s can take over without losing a commit", who)}
}

// hindered is what concerns the herd as a whole; "" when nothing does.
func hindered(s cluster.Status) string {
	switch {
	case s.Durability == cluster.Async:
		return "not safe: with async durability the newest commits may be lost"
	case (len(s.Sync) == 0 || s.K == 0) && s.Durability == cluster.Strict:
		return "not possible: no standby is there to wait for"
	case len(s.Sync) == 0 || s.K == 0:
		return "not safe: no standby holds the newest commits"
	case s.Paused:
		return "not automatic: the herd is paused"
	case has(s, Restoring):
		return "none: the herd is being restored"
	case has(s, StoreRolledBack):
		return "not possible: the store was rolled back"
	}
	return votes(s)
}

// votes is what the store lacks for a takeover; "" when nothing.
func votes(s cluster.Status) string {
	switch {
	case has(s, StoreNoQuorum):
		return "not possible: the store has no quorum"
	case s.Store == nil || s.Store.UnknownSince != nil:
		return "not known: the store could not be asked"
	}
	return ""
}

// keepsOut finds a condition for which clients may not get in after a takeover:
// what is wrong in the database is wrong on its standbys, too.
func keepsOut(s cluster.Status) (cluster.Condition, bool) {
	i := slices.IndexFunc(s.Conditions, func(c cluster.Condition) bool {
		return c.Code == string(Unfurnished) || c.Code == string(ConnectionsFail)
	})
	if i < 0 {
		return cluster.Condition{}, false
	}
	return s.Conditions[i], true
}

// needs says who must be there for a takeover while there is no primary.
func needs(s cluster.Status) string {
	switch {
	case has(s, Restoring):
		return "none: the herd is being restored"
	case votes(s) != "":
		return votes(s)
	case has(s, EpochNotOpen):
		return "in progress"
	}
	if len(s.Sync) == 0 {
		return "by the last leader alone, or forced by an operator"
	}
	need := max(1, len(s.Sync)-s.K+1)
	able := ableToPromise(s)
	if auto, why := byItself(s, able); len(able) >= need && len(auto) == 0 {
		return "waits for an order: " + why
	}
	return fmt.Sprintf("takes %d of %s, %s", need, strings.Join(s.Sync, ", "), countAble(len(able)))
}

// byItself are those of the nodes that take over without an order; why says what
// is with the others.
func byItself(s cluster.Status, able []string) (auto []string, why string) {
	for _, name := range able {
		n, _ := s.Node(name)
		switch {
		case n.Priority != nil && *n.Priority == 0:
			why = name + " has priority 0 and never leads"
		case n.Failover == "manual":
			why = "failover is manual on " + name + ":  manada failover " + name
		default:
			auto = append(auto, name)
		}
	}
	return auto, why
}

func countAble(n int) string {
	switch n {
	case 0:
		return "none is able to"
	case 1:
		return "1 is able to"
	}
	return fmt.Sprintf("%d are able to", n)
}

// promisesHeard is how recently a member must have been heard to be counted on.
const promisesHeard = 1500 * time.Millisecond

// ableToPromise are the members of sync that could promise and lead now: there, in
// reach of the store, with room to write.
func ableToPromise(s cluster.Status) []string {
	var out []string
	for _, name := range s.Sync {
		n, ok := s.Node(name)
		if !ok || n.Sync != cluster.SyncMember || about(s, StoreUnreachable, name) || about(s, DiskFull, name) {
			continue
		}
		switch n.State {
		case cluster.StateStreaming, cluster.StateFrozen, cluster.StateNotStreaming, cluster.StatePromoting:
			if n.SeenMS != nil && *n.SeenMS <= promisesHeard.Milliseconds() {
				out = append(out, name)
			}
		}
	}
	return out
}

func about(s cluster.Status, code Code, node string) bool {
	return slices.ContainsFunc(s.Conditions, func(c cluster.Condition) bool { return c.Code == string(code) && c.Node == node })
}

func has(s cluster.Status, code Code) bool {
	return slices.ContainsFunc(s.Conditions, func(c cluster.Condition) bool { return c.Code == string(code) })
}
