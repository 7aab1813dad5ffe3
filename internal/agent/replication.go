package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
)

// access keeps pg_hba.conf at the addresses under which the members and the
// proxies come. Before the store has named them it goes by what this host knew
// when it started.
func (a *Agent) access(ctx context.Context) {
	if a.db == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	members := a.membersNow(ctx)
	if len(members) == 0 {
		return
	}
	var proxies []string
	for _, m := range members {
		proxies = append(proxies, m.Addrs...) // any host may have one
	}
	slices.Sort(proxies)
	a.mu.Lock()
	a.noteMembers(members, time.Now())
	a.mu.Unlock()
	if err := a.db.SetAccess(ctx, members, slices.Compact(proxies)); err != nil {
		a.log.Warn("cannot keep pg_hba.conf at the members' addresses", "error", err.Error())
		return
	}
	a.admits.Store(a.db.AdmitsOverSocket(ctx))
}

// movedFor is for how long an address still counts as a member's after its name
// has come to stand for another: a walsender of a host that has moved lives on
// until it is missed.
const movedFor = 10 * time.Minute

// noteMembers is called with mu held.
func (a *Agent) noteMembers(members []cluster.MemberAccess, now time.Time) {
	a.members = members
	if a.memberAddrs == nil {
		a.memberAddrs = map[string]time.Time{}
	}
	for _, m := range members {
		for _, addr := range m.Addrs {
			a.memberAddrs[addr] = now
		}
	}
	maps.DeleteFunc(a.memberAddrs, func(_ string, at time.Time) bool { return now.Sub(at) > movedFor })
}

// membersNow are the hosts of the herd with the addresses that their names stand
// for now, by name. One whose name cannot be looked up is left as it was.
func (a *Agent) membersNow(ctx context.Context) []cluster.MemberAccess {
	hosts, noCert := map[string]string{}, map[string]bool{}
	note := func(node, at string) {
		if host, _, err := net.SplitHostPort(at); err == nil && node != "" {
			hosts[node] = host
		}
	}
	a.mu.Lock()
	if len(a.nodes) == 0 {
		for node, at := range a.cfg.Peers {
			note(node, at)
		}
	}
	for _, n := range a.nodes {
		note(n.Name, cmp.Or(n.Addrs.SQL, n.Addrs.Peer))
	}
	was := map[string]cluster.MemberAccess{}
	for _, m := range a.members {
		was[m.Node] = m
	}
	a.mu.Unlock()
	for node, h := range a.hub.Heard() {
		note(node, cmp.Or(h.Beat.Addrs.SQL, h.Beat.Addrs.Peer))
		noCert[node] = h.Beat.Kind == "data" && !h.Beat.ShowsCert
	}
	note(a.cfg.Node, cmp.Or(a.cfg.Addrs.SQL, a.cfg.Addrs.Peer))
	var out []cluster.MemberAccess
	for node, host := range hosts {
		addrs, err := a.addrs.lookUp(ctx, host)
		if err != nil {
			addrs = was[node].Addrs
		}
		if len(addrs) > 0 {
			out = append(out, cluster.MemberAccess{Node: node, Addrs: addrs, NoCert: noCert[node]})
		}
	}
	slices.SortFunc(out, func(x, y cluster.MemberAccess) int { return cmp.Compare(x.Node, y.Node) })
	if len(a.cfg.MembersFrom) > 0 && len(out) > 0 {
		out = append(out, cluster.MemberAccess{Addrs: a.cfg.MembersFrom})
	}
	return out
}

// takeReplication keeps the attribute REPLICATION to those who are trusted with
// it, on the leader.
func (a *Agent) takeReplication(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	taken, err := a.db.TakeReplication(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, role := range taken {
		if now.Sub(a.taken[role]) > putBackShown {
			a.event("replication_taken", 0, "role "+role+" had REPLICATION and is not in postgresql.replication: it was taken from it on "+a.cfg.Node)
		}
		a.taken[role] = now
	}
	return err
}

// guardReplication does so every second while this node leads.
func (a *Agent) guardReplication(ctx context.Context) {
	if state, ok := a.running(); !ok || state != cluster.PostgresPrimary || !a.leading() {
		return
	}
	if err := a.takeReplication(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("cannot keep REPLICATION to the roles that may have it", "error", err.Error())
	}
}

// replicationConditions is called with mu held.
func (a *Agent) replicationConditions() []cluster.Condition {
	var cs []cluster.Condition
	for role, at := range a.taken {
		if time.Since(at) < putBackShown {
			cs = append(cs, health.Say(health.ReplicationTaken, a.cfg.Node, "role", role))
		}
	}
	slices.SortFunc(cs, func(x, y cluster.Condition) int { return cmp.Compare(x.Text, y.Text) })
	if len(a.cfg.MembersFrom) > 0 {
		cs = append(cs, health.Say(health.MembersFromAnywhere, a.cfg.Node, "from", strings.Join(a.cfg.MembersFrom, ", ")))
	}
	return cs
}

// stranger says who is behind a walsender when it is not a member under our own
// role: the role tells, and for a member's name the address. Called with mu held.
func (a *Agent) stranger(name, role, addr string) string {
	who := fmt.Sprintf("role %s from %s", cmp.Or(role, "(unknown)"), cmp.Or(addr, "this machine"))
	if role != cluster.RoleReplication {
		return who
	}
	if !cluster.IsMemberName(name) || len(a.memberAddrs) == 0 || !a.certified {
		return ""
	}
	for known := range a.memberAddrs {
		if cluster.Contains([]string{known}, addr) {
			return ""
		}
	}
	return who + ", which is no member's address"
}
