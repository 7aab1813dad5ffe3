package cluster

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names that are fixed (design, section 9).
const (
	RoleReplication = "manada_replication"
	RoleRewind      = "manada_rewind"
	RoleMonitor     = "manada_monitor"
	RoleProxy       = "manada_proxy"
	RoleBackup      = "manada_backup" // no password: it logs in over the socket only
	RoleSuperuser   = "postgres"
	Database        = "postgres"
	// Placeholder is a standby name that nobody bears.
	Placeholder = "manada:none"
)

// PeerRoles log in over the unix socket of their host without a password: the user of
// the operating system counts.
var PeerRoles = []string{RoleSuperuser, RoleMonitor, RoleBackup}

// NetworkRoles are those of the herd that come from other hosts and by no socket.
var NetworkRoles = []string{RoleReplication, RoleRewind}

// IsOwnRole says whether a role is one of the herd's own.
func IsOwnRole(role string) bool {
	return role == RoleProxy || slices.Contains(PeerRoles, role) || slices.Contains(NetworkRoles, role)
}

var nodeName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// CheckNodeName explains why a name cannot be a node's.
func CheckNodeName(s string) error {
	if nodeName.MatchString(s) {
		return nil
	}
	return fmt.Errorf("node name %q: want 1 to 40 of a-z, 0-9 and -, beginning with a letter or digit", s)
}

// SlotName is the replication slot of a node.
func SlotName(node string) string { return "manada_" + strings.ReplaceAll(node, "-", "_") }

// CertifiedName is the application_name under which a certified standby
// streams: a certificate and a fencing token in one (finding C1).
func CertifiedName(node string, epoch uint64) string { return fmt.Sprintf("%s@e%d", node, epoch) }

// UncertifiedName is the application_name of a node that streams and may not be
// waited for.
func UncertifiedName(node string, epoch uint64) string { return fmt.Sprintf("%s~%d", node, epoch) }

// ParseCertifiedName takes CertifiedName apart.
func ParseCertifiedName(s string) (node string, epoch uint64, ok bool) {
	node, e, found := strings.Cut(s, "@e")
	if !found {
		return "", 0, false
	}
	n, err := strconv.ParseUint(e, 10, 64)
	return node, n, err == nil
}

// IsMemberName says whether only a member may bear the name: a certified one, or
// the uncertified one that becomes it.
func IsMemberName(s string) bool { return MemberOf(s) != "" }

// MemberOf is the node whose name, certified or not, s is; "" for none.
func MemberOf(s string) string {
	if node, _, ok := ParseCertifiedName(s); ok {
		return node
	}
	node, e, found := strings.Cut(s, "~")
	if _, err := strconv.ParseUint(e, 10, 64); !found || err != nil {
		return ""
	}
	return node
}

// ServiceName is the application_name of a connection that may never be waited
// for: what is "clone", "rewind", "backup" or "fetch" (finding H5).
func ServiceName(what, node string) string { return "manada:" + what + ":" + node }

// HostOf is what counts as one caller of a "HOST:PORT" that a connection comes
// from: an IPv4 address; of IPv6 the /64 that a host has for itself. What is no
// address of a network is all one caller, the zero prefix.
func HostOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// ConsoleDatabases are the names under which the proxies' console is reached, where
// PostgreSQL has no database of that name.
var ConsoleDatabases = []string{"manada", "pgbouncer"}
