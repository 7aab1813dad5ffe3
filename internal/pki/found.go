package pki

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"manada/internal/cluster"
)

// ErrExists is returned where an identity would overwrite another.
var ErrExists = errors.New("this host already has an identity")

// Found makes the authority of a new herd and the identity of its first host
// in dir: key, certificate, kek and the roles' passwords. It returns the
// authority's key, sealed, for the store.
//
// Until FinishFounding is called the sealed key also lies in dir, so that a
// crash before it reached the store does not leave a herd that nobody can
// join: Found called again, with the same names, returns it.
func Found(dir, clusterName, node, kind string, hosts []string) (sealedCAKey []byte, err error) {
	n := Name{Cluster: clusterName, Node: node, Kind: kind}
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("found herd: %w", err)
	}
	if !n.Member() {
		return nil, fmt.Errorf("found herd: a %s cannot be the first host", kind)
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("found herd: %w", err)
	}
	if there, err := Exists(dir); err != nil {
		return nil, fmt.Errorf("found herd: %w", err)
	} else if there {
		return resumeFounding(dir, n)
	}
	sealedCAKey, err = found(dir, n, hosts)
	if err != nil {
		return nil, fmt.Errorf("found herd: %w", err)
	}
	return sealedCAKey, nil
}

func resumeFounding(dir string, want Name) ([]byte, error) {
	id, err := Load(dir)
	if err != nil {
		return nil, fmt.Errorf("found herd: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, fileFounding))
	if errors.Is(err, os.ErrNotExist) || err == nil && id.Name() != want {
		return nil, fmt.Errorf("found herd: %w: %s of cluster %s in %s", ErrExists, id.Node(), id.Cluster(), dir)
	}
	if err != nil {
		return nil, fmt.Errorf("found herd: %w", err)
	}
	return key, nil
}

func found(dir string, n Name, hosts []string) ([]byte, error) {
	now := time.Now()
	ca, err := NewCA(n.Cluster, now)
	if err != nil {
		return nil, err
	}
	req, err := NewRequest(n, hosts)
	if err != nil {
		return nil, err
	}
	cert, err := ca.Sign(req.CSR, n, hosts, now)
	if err != nil {
		return nil, err
	}
	kek := make([]byte, kekSize)
	rand.Read(kek) // never fails (crypto/rand)
	sealedKey, err := SealCAKey(kek, ca)
	if err != nil {
		return nil, err
	}
	if err := writeFile(dir, fileFounding, sealedKey, 0o600); err != nil {
		return nil, err
	}
	own, err := Registered(cert)
	if err != nil {
		return nil, err
	}
	list := &cluster.Registry{Schema: 1, Rev: 1, Good: []cluster.Certificate{own}}
	m := material{name: n, ca: ca.PEM(), cert: cert, kek: kek, held: Held{Passwords: newSecrets(), Mock: NewPassword()}, list: list}
	if err := m.write(dir, req); err != nil {
		return nil, err
	}
	return sealedKey, nil
}

// FinishFounding removes the sealed key from the directory, once the store
// holds it. Calling it again does nothing.
func FinishFounding(dir string) error {
	err := os.Remove(filepath.Join(dir, fileFounding))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("finish founding: %w", err)
	}
	return nil
}

// material is what an identity directory is made of, beside the host's key.
type material struct {
	name     Name
	ca, cert []byte // PEM
	kek      []byte // none on a proxy
	held     Held
	list     *cluster.Registry // nil: given by a host of a release that has none
}

// write fills an identity directory; identity.json comes last, so that a
// directory half written is no identity.
func (m material) write(dir string, req *Request) error {
	key, err := keyPEM(req.key)
	if err != nil {
		return err
	}
	if err := writeFile(dir, fileKey, key, 0o600); err != nil {
		return err
	}
	if err := writeFile(dir, fileCA, m.ca, 0o644); err != nil {
		return err
	}
	if err := writeFile(dir, fileCert, m.cert, 0o644); err != nil {
		return err
	}
	if len(m.kek) > 0 {
		if err := writeFile(dir, fileKEK, m.kek, 0o600); err != nil {
			return err
		}
	}
	if err := writeHeld(dir, m.held); err != nil {
		return err
	}
	if m.list != nil {
		if err := writeRegistry(dir, *m.list); err != nil {
			return err
		}
	}
	return writeJSON(dir, fileIdentity, m.name, 0o644)
}
