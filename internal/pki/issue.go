package pki

import (
	"fmt"
	"time"
)

// Issue makes the identity of a further host of the herd in dir, where the CA
// is at hand on the same machine (`manada up`, tests). Elsewhere hosts Join.
// from is a data or witness host, whose kek and passwords are handed on as far
// as the kind may have them.
func Issue(from *Identity, ca *CA, dir, node, kind string, hosts []string) (*Identity, error) {
	m, req, err := issue(from, ca, Name{Cluster: from.Cluster(), Node: node, Kind: kind}, hosts)
	if err != nil {
		return nil, fmt.Errorf("issue identity of %s: %w", node, err)
	}
	if there, err := Exists(dir); err != nil {
		return nil, fmt.Errorf("issue identity of %s: %w", node, err)
	} else if there {
		return nil, fmt.Errorf("issue identity of %s: %w: %s", node, ErrExists, dir)
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	own, err := Registered(m.cert)
	if err != nil {
		return nil, fmt.Errorf("issue identity of %s: %w", node, err)
	}
	list := from.registry.List()
	list.Rev++
	if err := list.Register(own, time.Now()); err != nil {
		return nil, err
	}
	if err := from.registry.Set(list); err != nil {
		return nil, err
	}
	if err := m.write(dir, req); err != nil {
		return nil, fmt.Errorf("issue identity of %s: %w", node, err)
	}
	return Load(dir)
}

func issue(from *Identity, ca *CA, n Name, hosts []string) (material, *Request, error) {
	req, err := NewRequest(n, hosts)
	if err != nil {
		return material{}, nil, err
	}
	m, err := from.sign(ca, req.CSR, n, hosts)
	return m, req, err
}

// sign makes what a host of that kind is given by this one.
func (id *Identity) sign(ca *CA, csr []byte, n Name, hosts []string) (material, error) {
	cert, err := ca.Sign(csr, n, hosts, time.Now())
	if err != nil {
		return material{}, err
	}
	held, err := ReadHeld(id.dir)
	if err != nil {
		return material{}, err
	}
	held = held.For(n.Kind)
	held.CertGeneration = held.Generation // the key was made just now
	m := material{name: n, ca: id.CAPEM(), cert: cert, held: held}
	if n.Member() {
		if m.kek, err = id.KEK(); err != nil {
			return material{}, err
		}
	}
	return m, nil
}
