package hba

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Rules are lines in their order.
type Rules []Rule

// Rule is one line.
type Rule struct {
	kind      string // host, hostssl, hostnossl; "" never holds for a client of the proxy
	databases []word
	users     []word
	nets      []netip.Prefix // nil: any address
	reject    bool
}

// Parse reads lines as postgresql.hba has them. The error names the line and
// what is wrong with it.
func Parse(lines []string) (Rules, error) {
	var rules Rules
	for i, line := range lines {
		r, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d, %q: %w", i+1, line, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func parse(line string) (r Rule, err error) {
	f, err := fields(line)
	if err != nil {
		return r, err
	}
	n := 4
	if len(f) > 0 && len(f[0]) == 1 && f[0][0].is("local") {
		n = 3
	}
	if len(f) < n+1 {
		return r, fmt.Errorf("too few fields: want TYPE DATABASE USER [ADDRESS] METHOD")
	}
	for _, one := range append(f[:1:1], f[3:]...) {
		if len(one) != 1 {
			return r, fmt.Errorf("a list where one word is wanted")
		}
	}
	switch t := f[0][0].text; t {
	case "local", "hostgssenc": // no client of the proxy comes so
	case "host", "hostssl", "hostnossl":
		r.kind = t
	case "hostnogssenc":
		r.kind = "host"
	default:
		return r, fmt.Errorf("%q is no connection type", t)
	}
	if r.databases, err = names(f[1], "database", "samerole", "samegroup"); err != nil {
		return r, err
	}
	if r.users, err = names(f[2], "user"); err != nil {
		return r, err
	}
	rest := f[3:]
	if f[0][0].text != "local" {
		if r.nets, rest, err = address(rest); err != nil {
			return r, err
		}
	}
	if r.kind == "" {
		return r, nil // its method is PostgreSQL's affair
	}
	return r, r.method(rest)
}

// method takes the method and its options.
func (r *Rule) method(rest [][]word) error {
	if len(rest) == 0 {
		return fmt.Errorf("the method is missing")
	}
	switch m := rest[0][0].text; m {
	case "scram-sha-256", "md5":
	case "reject":
		r.reject = true
	case "trust":
		return fmt.Errorf("method trust would let anyone in without a password; the proxy wants scram-sha-256 or reject")
	default:
		return fmt.Errorf("method %s is not supported by the proxy; it knows scram-sha-256, md5 (as scram-sha-256) and reject", m)
	}
	if len(rest) > 1 {
		return fmt.Errorf("option %s is not supported by the proxy", rest[1][0].text)
	}
	return nil
}

// names checks a list of databases or users.
func names(list []word, what string, unsupported ...string) ([]word, error) {
	for _, w := range list {
		switch {
		case w.quoted:
		case strings.HasPrefix(w.text, "+"):
			return nil, fmt.Errorf("%s %s: groups are not supported by the proxy; name the roles", what, w.text)
		case strings.HasPrefix(w.text, "@"):
			return nil, fmt.Errorf("%s %s: files are not supported; write the names here", what, w.text)
		case strings.HasPrefix(w.text, "/"):
			return nil, fmt.Errorf("%s %s: regular expressions are not supported by the proxy", what, w.text)
		case slices.Contains(unsupported, w.text):
			return nil, fmt.Errorf("%s %s is not supported by the proxy; name the databases", what, w.text)
		}
	}
	return list, nil
}

// address takes the address field, and the mask if it has one of its own.
func address(f [][]word) (nets []netip.Prefix, rest [][]word, err error) {
	w := f[0][0]
	switch {
	case w.is("all"):
		return nil, f[1:], nil
	case w.is("samehost"), w.is("samenet"):
		nets, err = own(w.text == "samenet")
		return nets, f[1:], err
	}
	if strings.Contains(w.text, "/") {
		p, err := netip.ParsePrefix(w.text)
		if err != nil {
			return nil, nil, fmt.Errorf("%q is no address: want IP/LENGTH, as in 10.0.0.0/24", w.text)
		}
		return []netip.Prefix{p.Masked()}, f[1:], nil
	}
	ip, err := netip.ParseAddr(w.text)
	if err != nil {
		return nil, nil, fmt.Errorf("address %q: host names are not supported by the proxy; want IP/LENGTH", w.text)
	}
	if len(f) < 2 {
		return nil, nil, fmt.Errorf("address %s: the mask is missing", ip)
	}
	mask, err := netip.ParseAddr(f[1][0].text)
	if err != nil || mask.Is4() != ip.Is4() {
		return nil, nil, fmt.Errorf("%q is no mask for %s", f[1][0].text, ip)
	}
	ones, bits := net.IPMask(mask.AsSlice()).Size()
	if bits == 0 {
		return nil, nil, fmt.Errorf("mask %s: its ones are not together", mask)
	}
	return []netip.Prefix{netip.PrefixFrom(ip, ones).Masked()}, f[2:], nil
}

// own are the addresses of this host, or the networks that they are in.
func own(network bool) ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this host: %w", err)
	}
	nets := []netip.Prefix{}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if !network {
			p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
		nets = append(nets, p.Masked())
	}
	return nets, nil
}
