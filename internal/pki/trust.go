package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// trust is what ca.crt says: the authorities that are believed. While the
// herd's authority is changed it holds the new one and, behind it, the old one.
type trust struct {
	cas   []*x509.Certificate
	pool  *x509.CertPool
	stamp fileStamp
}

func loadTrust(dir string) (*trust, error) {
	path := filepath.Join(dir, fileCA)
	stamp, err := stampOf(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := &trust{stamp: stamp, pool: x509.NewCertPool()}
	if t.cas, err = parseCerts(b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, c := range t.cas {
		t.pool.AddCert(c)
	}
	return t, nil
}

// signed says whether one of the authorities signed the certificate itself.
func (t *trust) signed(c *x509.Certificate) bool {
	for _, ca := range t.cas {
		if c.CheckSignatureFrom(ca) == nil {
			return true
		}
	}
	return false
}

// believes says whether the first certificate is of one of the authorities,
// itself or by those behind it, each of which signed the one before. Whether
// it is good now is not looked at.
func (t *trust) believes(chain []*x509.Certificate) error {
	for n, c := range chain {
		if n > 0 {
			if err := chain[n-1].CheckSignatureFrom(c); err != nil {
				return err
			}
		}
		if t.signed(c) {
			return nil
		}
	}
	return errors.New("signed by an authority that is not believed")
}

// parseCerts reads all certificates of a PEM text, at least one.
func parseCerts(b []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("not a certificate in PEM")
	}
	return out, nil
}

func pemOf(certs []*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, certPEM(c.Raw)...)
	}
	return b
}
