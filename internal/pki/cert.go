package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"regexp"
	"slices"
	"strings"

	"manada/internal/cluster"
)

// Kinds of hosts, in the certificate's OU.
const (
	KindData    = "data"    // has a database
	KindWitness = "witness" // votes, keeps the repository, has no database
	KindProxy   = "proxy"   // routes SQL; may read the herd's state, never change it
)

// MemberName is an alternative name that certificates of data and witness
// hosts carry and those of proxies do not. The embedded etcd admits only
// certificates with it (TLSInfo.AllowedHostnames): without that, a proxy's
// certificate would be enough to write the term.
const MemberName = "member.manada.internal"

// reservedSuffix may not be claimed as a host name by a newcomer.
const reservedSuffix = ".manada.internal"

// Name is who a certificate says its bearer is.
type Name struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Kind    string `json:"kind"`
}

// Member says whether the host belongs to the herd proper: it may be asked for
// the herd's state and may change it.
func (n Name) Member() bool { return n.Kind == KindData || n.Kind == KindWitness }

func (n Name) check() error {
	if err := cluster.CheckNodeName(n.Node); err != nil {
		return err
	}
	if n.Node == "localhost" {
		// Every certificate names localhost, so verify-full of PostgreSQL's
		// clients could not tell this node from any other.
		return errors.New(`node name "localhost": every host is that; choose another name`)
	}
	if n.Cluster == "" || len(n.Cluster) > 64 {
		return fmt.Errorf("cluster name %q: want 1 to 64 characters", n.Cluster)
	}
	switch n.Kind {
	case KindData, KindWitness, KindProxy:
		return nil
	}
	return fmt.Errorf("kind %q: want data, witness or proxy", n.Kind)
}

// NameOf reads the subject of a certificate that has been verified already.
func NameOf(c *x509.Certificate) (Name, error) {
	if len(c.Subject.Organization) != 1 || len(c.Subject.OrganizationalUnit) != 1 {
		return Name{}, fmt.Errorf("certificate of %q: subject names no cluster or no kind", c.Subject.CommonName)
	}
	n := Name{
		Cluster: c.Subject.Organization[0],
		Node:    c.Subject.CommonName,
		Kind:    c.Subject.OrganizationalUnit[0],
	}
	if err := n.check(); err != nil {
		return Name{}, fmt.Errorf("certificate subject: %w", err)
	}
	return n, nil
}

func (n Name) subject() pkix.Name {
	return pkix.Name{
		CommonName:         n.Node,
		Organization:       []string{n.Cluster},
		OrganizationalUnit: []string{n.Kind},
	}
}

// altNames are the alternative names of a host's certificate: the node, what
// the caller gave, and the ways to say "this machine".
func (n Name) altNames(hosts []string) (dns []string, ips []net.IP, err error) {
	dns = []string{n.Node}
	for _, h := range append(slices.Clone(hosts), "localhost", "127.0.0.1", "::1") {
		if ip := net.ParseIP(h); ip != nil {
			if !slices.ContainsFunc(ips, ip.Equal) {
				ips = append(ips, ip)
			}
			continue
		}
		h = strings.ToLower(strings.TrimSuffix(h, "."))
		if err := checkHostName(h); err != nil {
			return nil, nil, err
		}
		if !slices.Contains(dns, h) {
			dns = append(dns, h)
		}
	}
	if n.Member() {
		dns = append(dns, MemberName)
	}
	return dns, ips, nil
}

var hostLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

func checkHostName(h string) error {
	if h == "" || len(h) > 253 {
		return fmt.Errorf("host name %q: want 1 to 253 characters", h)
	}
	if strings.HasSuffix(h, reservedSuffix) {
		return fmt.Errorf("host name %q: names under %s are reserved", h, reservedSuffix[1:])
	}
	for label := range strings.SplitSeq(h, ".") {
		if !hostLabel.MatchString(label) {
			return fmt.Errorf("host name %q: not a DNS name or an IP address (no port, no wildcard)", h)
		}
	}
	return nil
}

// hostsOf gives back the hosts that a certificate was made for.
func hostsOf(c *x509.Certificate) []string {
	var out []string
	for _, d := range c.DNSNames {
		if d != c.Subject.CommonName && !strings.HasSuffix(d, reservedSuffix) {
			out = append(out, d)
		}
	}
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n, nil
}
