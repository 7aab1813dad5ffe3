package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Registry is the list of the certificates that open the herd's ports. A
// certificate that the herd's authority signed and that is not in it opens
// nothing: who once copied the authority's key gains nothing by it.
//
// A herd of a release that had no such list begins with an open one: it admits
// every certificate that it does not refuse, notes those that it sees, and is
// closed when every host runs a release that registers its own (MayClose), or
// when the first host is removed.
type Registry struct {
	Schema int   `json:"schema"` // 1
	Rev    int64 `json:"rev"`    // grows with each change; 0: there is no list yet
	Open   bool  `json:"open,omitempty"`
	// Whole is since when every host of the herd has registered its own
	// certificate; only of an open list.
	Whole   *time.Time    `json:"whole,omitempty"`
	Good    []Certificate `json:"good"`
	Refused []Certificate `json:"refused,omitempty"` // were good once, until they expire
}

// Certificate is one of a host, by what it cannot share with another.
type Certificate struct {
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the whole, hexadecimal
	Serial      string    `json:"serial"`      // hexadecimal
	Key         string    `json:"key"`         // SHA-256 of the public key
	Node        string    `json:"node"`
	Kind        string    `json:"kind"`
	Hosts       []string  `json:"hosts,omitempty"` // names and addresses that it proves
	NotAfter    time.Time `json:"not_after"`
	// Own: registered by the host itself or by a member that signed it, not only
	// seen by another.
	Own bool `json:"own,omitempty"`
}

// closeAfter is how long an open list waits for hosts that only read, proxies,
// to be seen once all others have registered.
const closeAfter = 10 * time.Minute

// Find returns the good certificate of that fingerprint.
func (r *Registry) Find(fingerprint string) (Certificate, bool) {
	i := slices.IndexFunc(r.Good, func(c Certificate) bool { return c.Fingerprint == fingerprint })
	if i < 0 {
		return Certificate{}, false
	}
	return r.Good[i], true
}

// Register adds a certificate and forgets expired ones. One that was refused
// stays refused: a host that comes back gets another.
func (r *Registry) Register(c Certificate, now time.Time) error {
	if slices.ContainsFunc(r.Refused, func(o Certificate) bool { return o.Fingerprint == c.Fingerprint }) {
		return fmt.Errorf("register certificate %s of %s: it was refused before; the host has to join anew", c.Serial, c.Node)
	}
	expired := func(o Certificate) bool { return !now.Before(o.NotAfter) }
	r.Refused = slices.DeleteFunc(r.Refused, expired)
	r.Good = slices.DeleteFunc(r.Good, func(o Certificate) bool { return expired(o) || o.Fingerprint == c.Fingerprint })
	r.Good = append(r.Good, c)
	return nil
}

// Refuse takes back the certificates that match and returns how many.
func (r *Registry) Refuse(match func(Certificate) bool) int {
	n := 0
	r.Good = slices.DeleteFunc(r.Good, func(c Certificate) bool {
		if !match(c) {
			return false
		}
		n++
		r.Refused = append(r.Refused, c)
		return true
	})
	return n
}

// Remove takes back every certificate of a node and closes the list: from now
// on what was not registered by then is worth nothing.
func (r *Registry) Remove(node string) int {
	r.Open, r.Whole = false, nil
	return r.Refuse(func(c Certificate) bool { return c.Node == node })
}

// Has says whether a certificate of the node is good.
func (r *Registry) Has(node string) bool {
	return slices.ContainsFunc(r.Good, func(c Certificate) bool { return c.Node == node })
}

// Close closes an open list when these nodes, all of the herd, have registered
// their own certificates for long enough, and says whether anything changed.
func (r *Registry) Close(nodes []string, now time.Time) (changed bool) {
	if !r.Open {
		return false
	}
	whole := len(nodes) > 0 && !slices.ContainsFunc(nodes, func(n string) bool {
		return !slices.ContainsFunc(r.Good, func(c Certificate) bool { return c.Node == n && c.Own })
	})
	switch {
	case !whole && r.Whole != nil:
		r.Whole = nil
	case whole && r.Whole == nil:
		at := now.UTC()
		r.Whole = &at
	case whole && now.Sub(*r.Whole) >= closeAfter:
		r.Open, r.Whole = false, nil
	default:
		return false
	}
	return true
}

// Other says whether the node has a good certificate of another key. One of the
// same key is a newcomer's own, to whom the answer was lost.
func (r *Registry) Other(node, key string) bool {
	return slices.ContainsFunc(r.Good, func(c Certificate) bool { return c.Node == node && c.Key != key })
}

// Owner finds another host than node that has one of these names or addresses.
// Loopback ones are everybody's.
func (r *Registry) Owner(node string, hosts []string) (host, owner string, found bool) {
	for _, c := range r.Good {
		if c.Node == node {
			continue
		}
		for _, h := range hosts {
			if sameHost(h, c.Node) || slices.ContainsFunc(c.Hosts, func(o string) bool { return sameHost(h, o) }) {
				return h, c.Node, true
			}
		}
	}
	return "", "", false
}

// sameHost compares names and addresses; what every host calls itself is the
// same as nothing.
func sameHost(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX == nil && errY == nil {
		return x.Unmap() == y.Unmap() && !x.Unmap().IsLoopback()
	}
	a, b = strings.ToLower(strings.TrimSuffix(a, ".")), strings.ToLower(strings.TrimSuffix(b, "."))
	return a == b && a != "localhost"
}
