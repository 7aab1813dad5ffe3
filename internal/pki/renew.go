package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"manada/internal/cluster"
)

// NeedsRenewal says whether no more than a third of the certificate's life is left.
func (id *Identity) NeedsRenewal(now time.Time) bool {
	return !now.Before(id.RenewalDue())
}

// RenewalDue is when a third of the certificate's life is left.
func (id *Identity) RenewalDue() time.Time {
	c := id.cert.Load().Leaf
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}

// Renew signs this host's certificate anew, for the same key and names, when
// no more than a third of its life is left, and says whether it did. register is
// called with the new one before it is used. Running processes pick it up by
// themselves; PostgreSQL needs a reload.
func (id *Identity) Renew(ca *CA, now time.Time, register func(cluster.Certificate) error) (bool, error) {
	if !id.NeedsRenewal(now) {
		return false, nil
	}
	cert, err := ca.Resign(id.cert.Load().Leaf, now)
	if err != nil {
		return false, err
	}
	c, err := Registered(cert)
	if err == nil {
		err = register(c)
	}
	if err != nil {
		return false, fmt.Errorf("renew certificate: %w", err)
	}
	return true, id.InstallCertificate(cert)
}

// Resign signs a certificate of this authority anew, for the same key and
// names. It is what a member does for a proxy, which cannot open the CA.
func (ca *CA) Resign(old *x509.Certificate, now time.Time) ([]byte, error) {
	if !ca.knows(old) {
		return nil, errors.New("renew certificate: not one of this authority")
	}
	n, err := NameOf(old)
	if err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	return ca.signKey(old.PublicKey, n, hostsOf(old), now)
}

// InstallCertificate replaces host.crt by a renewed certificate of the same
// key and name.
func (id *Identity) InstallCertificate(pemCert []byte) error {
	chain, err := parseCerts(pemCert)
	if err != nil {
		return fmt.Errorf("install certificate: %w", err)
	}
	c, old := chain[0], id.cert.Load().Leaf
	if n, err := NameOf(c); err != nil || n != id.name {
		return fmt.Errorf("install certificate: it is of %q, this host is %q", c.Subject.CommonName, id.name.Node)
	}
	if err := id.believed().believes(chain); err != nil {
		return fmt.Errorf("install certificate: not signed by %s: %w", filepath.Join(id.dir, fileCA), err)
	}
	if pub, ok := old.PublicKey.(interface{ Equal(x any) bool }); ok && !pub.Equal(c.PublicKey) {
		return errors.New("install certificate: it is for another key")
	}
	if err := writeFile(id.dir, fileCert, pemCert, 0o644); err != nil {
		return fmt.Errorf("install certificate: %w", err)
	}
	return id.Reload()
}
