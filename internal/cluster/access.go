package cluster

import (
	"net/netip"
	"slices"
	"strings"
)

// Replicator is a role that is trusted with REPLICATION beside our own: whoever
// has that attribute could acknowledge commits in a standby's name. From is
// where it may come from, as IP addresses or networks; Databases are those that
// it may use besides physical replication.
type Replicator struct {
	Role      string
	From      []string
	Databases []string
}

// HBA are the lines of pg_hba.conf for the role: it comes from From, or by way of
// a proxy of the herd, which holds From against its clients and shows its own
// certificate, and from nowhere else. A connection with replication=database
// matches the lines of databases, so these are closed to it too. The first line
// that matches an address decides, so From comes before the proxies.
func (r Replicator) HBA(proxies ...string) []string {
	var lines []string
	for _, from := range r.From {
		lines = append(lines, r.admit(from, "")...)
	}
	for _, p := range proxies {
		lines = append(lines, r.admit(p, " clientcert=verify-ca")...)
	}
	role := hbaQuote(r.Role)
	return append(lines, "host replication "+role+" all reject", "host all "+role+" all reject", "local all "+role+" reject")
}

func (r Replicator) admit(from, options string) []string {
	role, addr := hbaQuote(r.Role), HBAAddress(from)
	lines := []string{"hostssl replication " + role + " " + addr + " scram-sha-256" + options}
	if len(r.Databases) > 0 {
		dbs := make([]string, len(r.Databases))
		for i, d := range r.Databases {
			dbs[i] = hbaQuote(d)
		}
		lines = append(lines, "hostssl "+strings.Join(dbs, ",")+" "+role+" "+addr+" scram-sha-256"+options)
	}
	return lines
}

// hbaQuote keeps a name from being a keyword of pg_hba.conf. A double quote in a
// name cannot be written there; CheckHBAName refuses it.
func hbaQuote(name string) string { return `"` + name + `"` }

// CheckHBAName says whether a role or database can be named in pg_hba.conf as it is.
func CheckHBAName(name string) bool {
	return name != "" && len(name) <= 63 && !strings.ContainsAny(name, "\"\n\r\x00,\\")
}

// HBAAddress is an IP address or network as pg_hba.conf wants it, with a length.
func HBAAddress(s string) string {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()).String()
	}
	return s
}

// MemberAccess is a host that may replicate under our role.
type MemberAccess struct {
	Node  string
	Addrs []string // IP addresses or networks
	// NoCert: its receivers do not show the host's certificate, being of a
	// version before they did.
	NoCert bool
}

// Equal compares two members.
func (m MemberAccess) Equal(o MemberAccess) bool {
	return m.Node == o.Node && m.NoCert == o.NoCert && slices.Equal(m.Addrs, o.Addrs)
}

// Contains says whether an IP address is one of addresses and networks.
func Contains(addrs []string, ip string) bool {
	at, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(HBAAddress(a)); err == nil && p.Contains(at.Unmap()) {
			return true
		}
	}
	return false
}
