package hba

import (
	"fmt"
	"net"
	"net/netip"

	"manada/internal/cluster"
)

// Client is who wants to log in.
type Client struct {
	Addr           string // "host:port"
	TLS            bool
	User, Database string
	Replication    bool // physical replication
}

// WithOwn puts the lines around the operator's that Manada renders for
// PostgreSQL too (package postgres, renderHBA): our own roles first, over TLS or
// from this machine only, then those that are trusted with replication, and at
// the end everybody under the same terms. Whether others may replicate is for
// the nodes to say. Without lines of the operator only the trusted roles have
// rules: the proxy admits others as it always did.
func WithOwn(lines []string, replication []cluster.Replicator) (Rules, error) {
	user, err := Parse(lines)
	if err != nil {
		return nil, err
	}
	var listed []string
	for _, r := range replication {
		listed = append(listed, r.HBA()...)
	}
	trusted, err := Parse(listed)
	switch {
	case err != nil:
		return nil, err
	case len(lines) == 0 && len(listed) == 0:
		return nil, nil
	case len(lines) == 0:
		all, err := Parse([]string{"host all all all scram-sha-256", "host replication all all scram-sha-256"})
		return append(trusted, all...), err
	}
	user = append(trusted, user...)
	var all []string
	admit := func(db, role string) {
		all = append(all, "hostssl "+db+" "+role+" all scram-sha-256",
			"host "+db+" "+role+" 127.0.0.1/32 scram-sha-256", "host "+db+" "+role+" ::1/128 scram-sha-256")
	}
	ours := []string{cluster.RoleReplication, cluster.RoleRewind, cluster.RoleMonitor, cluster.RoleProxy}
	admit("replication", ours[0])
	for _, r := range ours[1:] {
		admit("all", r)
	}
	for _, r := range ours {
		all = append(all, "host all "+r+" all reject", "host replication "+r+" all reject")
	}
	first, err := Parse(all)
	if err != nil {
		return nil, err
	}
	all = nil
	admit("all", "all")
	admit("replication", "all")
	last, err := Parse(all)
	return append(append(first, user...), last...), err
}

// Refuses says why the client may not log in, in PostgreSQL's words; "" when it
// may, and when there are no rules.
func (rs Rules) Refuses(c Client) string {
	if len(rs) == 0 {
		return ""
	}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		host = c.Addr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Sprintf("no pg_hba.conf entry for host %q: not an address", host)
	}
	ip = ip.Unmap().WithZone("")
	what := "no pg_hba.conf entry for"
	for _, r := range rs {
		if r.matches(c, ip) {
			if !r.reject {
				return ""
			}
			what = "pg_hba.conf rejects connection for"
			break
		}
	}
	crypt := "no encryption"
	if c.TLS {
		crypt = "SSL encryption"
	}
	if c.Replication {
		what = ofReplication(what)
		return fmt.Sprintf("%s host \"%s\", user \"%s\", %s", what, ip, c.User, crypt)
	}
	return fmt.Sprintf("%s host \"%s\", user \"%s\", database \"%s\", %s", what, ip, c.User, c.Database, crypt)
}

// ofReplication is how PostgreSQL speaks of replication.
func ofReplication(what string) string {
	if what == "no pg_hba.conf entry for" {
		return "no pg_hba.conf entry for replication connection from"
	}
	return "pg_hba.conf rejects replication connection for"
}

func (r Rule) matches(c Client, ip netip.Addr) bool {
	switch {
	case r.kind == "", r.kind == "hostssl" && !c.TLS, r.kind == "hostnossl" && c.TLS:
		return false
	}
	return r.from(ip) && r.database(c) && r.user(c.User)
}

func (r Rule) from(ip netip.Addr) bool {
	if r.nets == nil {
		return true
	}
	for _, n := range r.nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

func (r Rule) database(c Client) bool {
	for _, w := range r.databases {
		if c.Replication {
			if w.is("replication") {
				return true
			}
			continue
		}
		switch {
		case w.is("all"), w.is("sameuser") && c.Database == c.User:
			return true
		case w.is("replication"), w.is("sameuser"):
		case w.text == c.Database:
			return true
		}
	}
	return false
}

func (r Rule) user(name string) bool {
	for _, w := range r.users {
		if w.is("all") || w.text == name {
			return true
		}
	}
	return false
}
