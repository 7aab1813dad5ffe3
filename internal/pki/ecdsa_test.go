package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"
)

// What clients of a proxy, and hosts among themselves, are shown is ECDSA on P-256,
// signed by the same; and no other key is certified.
func TestCertificatesAreECDSA(t *testing.T) {
	id, ca, _ := founded(t, "orders", "db1")
	for name, server := range map[string]*tls.Config{"clients": id.PublicTLS(), "hosts": id.ServerTLSOptionalClient()} {
		client := insecure(id.ClientTLSAny())
		seen := 0
		client.VerifyConnection = func(s tls.ConnectionState) error {
			for _, c := range s.PeerCertificates {
				seen++
				if k, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() || c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
					t.Errorf("%s: %T signed with %s", name, c.PublicKey, c.SignatureAlgorithm)
				}
			}
			return nil
		}
		if s, c := shake(t, server, client); s != nil || c != nil || seen == 0 {
			t.Errorf("%s: %v, %v, %d certificates", name, s, c, seen)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	if _, err := ca.Sign(csr, Name{Cluster: "orders", Node: "db2", Kind: KindData}, nil, time.Now()); err == nil || !strings.Contains(err.Error(), "ECDSA") {
		t.Errorf("an RSA key: %v", err)
	}
}
