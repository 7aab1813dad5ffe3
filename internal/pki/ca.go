package pki

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	hostLifetime = 365 * 24 * time.Hour
	// backdate lets a host whose clock lags behind accept a fresh certificate.
	backdate = 24 * time.Hour
	kekSize  = 32
)

// CA is the herd's certificate authority with its private key. It lives only in
// memory: in the store the key is sealed (SealCAKey).
type CA struct {
	Cert *x509.Certificate
	// Lifetime is how long the certificates that it signs are good: a year when it
	// is zero. What it backdates them by shrinks with it.
	Lifetime time.Duration
	// chain is how its predecessors vouch for it, newest first: certificates
	// of its key, signed by theirs. Hosts and applications that only know a
	// predecessor believe its certificates by these.
	chain []*x509.Certificate
	key   *ecdsa.PrivateKey
}

// NewCA makes the authority of a herd: ECDSA P-256, valid for ten years.
func NewCA(clusterName string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of the authority: %w", err)
	}
	tmpl, err := authorityTemplate(clusterName, now)
	if err != nil {
		return nil, err
	}
	cert, err := makeAuthority(tmpl, tmpl, key, key)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, key: key}, nil
}

func authorityTemplate(clusterName string, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Manada CA of " + clusterName, Organization: []string{clusterName}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil
}

func makeAuthority(tmpl, parent *x509.Certificate, of, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, of.Public(), by)
	if err != nil {
		return nil, fmt.Errorf("make certificate of the authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read certificate of the authority: %w", err)
	}
	return cert, nil
}

// Successor makes a new authority, for which this one vouches: who believes
// this one believes the new one's certificates as well.
func (ca *CA) Successor(now time.Time) (*CA, error) {
	next, err := NewCA(ca.Cluster(), now)
	if err != nil {
		return nil, err
	}
	tmpl, err := authorityTemplate(ca.Cluster(), now)
	if err != nil {
		return nil, err
	}
	if tmpl.NotAfter.After(ca.Cert.NotAfter) {
		tmpl.NotAfter = ca.Cert.NotAfter
	}
	// The names are the same, so only the keys tell the two apart.
	tmpl.SubjectKeyId, tmpl.AuthorityKeyId = next.Cert.SubjectKeyId, ca.Cert.SubjectKeyId
	voucher, err := makeAuthority(tmpl, ca.Cert, next.key, ca.key)
	if err != nil {
		return nil, err
	}
	next.chain = append([]*x509.Certificate{voucher}, ca.chain...)
	return next, nil
}

// Alone is the authority without its predecessors' word.
func (ca *CA) Alone() *CA { return &CA{Cert: ca.Cert, key: ca.key} }

// knows says whether the certificate is of this authority or of a predecessor
// that vouches for it.
func (ca *CA) knows(c *x509.Certificate) bool {
	if c.CheckSignatureFrom(ca.Cert) == nil {
		return true
	}
	return slices.ContainsFunc(ca.chain, func(v *x509.Certificate) bool { return bytes.Equal(v.AuthorityKeyId, c.AuthorityKeyId) })
}

// PEM is the authority's certificate, the content of ca.crt.
func (ca *CA) PEM() []byte { return certPEM(ca.Cert.Raw) }

// Cluster is the herd that the authority belongs to.
func (ca *CA) Cluster() string {
	if len(ca.Cert.Subject.Organization) == 0 {
		return ""
	}
	return ca.Cert.Subject.Organization[0]
}

// Request is a key made on this host and what has to be signed for it. Only CSR
// and the names leave the host.
type Request struct {
	Name  Name
	Hosts []string
	CSR   []byte // PEM
	key   *ecdsa.PrivateKey
}

// NewRequest makes a key and a certificate signing request for it. hosts are
// the names and addresses (without port) under which others reach this host.
func NewRequest(n Name, hosts []string) (*Request, error) {
	if err := n.check(); err != nil {
		return nil, err
	}
	if _, _, err := n.altNames(hosts); err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	return requestWith(key, n, hosts)
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

func requestWith(key *ecdsa.PrivateKey, n Name, hosts []string) (*Request, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: n.subject()}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request of %s: %w", n.Node, err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return &Request{Name: n, Hosts: hosts, CSR: csr, key: key}, nil
}

// Sign signs a request. Of the CSR it takes the public key and nothing else:
// the names are those that the caller has checked.
func (ca *CA) Sign(csrPEM []byte, n Name, hosts []string, now time.Time) (certPEM []byte, err error) {
	csr, err := parseRequest(csrPEM)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", n.Node, err)
	}
	return ca.signKey(csr.PublicKey, n, hosts, now)
}

// parseRequest reads a request and checks that its sender has the key.
func parseRequest(csrPEM []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("not a certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its own key: %w", err)
	}
	if k, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("certificate request: want an ECDSA P-256 key, got %T", csr.PublicKey)
	}
	return csr, nil
}

func (ca *CA) signKey(pub any, n Name, hosts []string, now time.Time) ([]byte, error) {
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	if n.Cluster != ca.Cluster() {
		return nil, fmt.Errorf("sign certificate of %s: it wants cluster %q, this authority is of %q", n.Node, n.Cluster, ca.Cluster())
	}
	if k, ok := pub.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("sign certificate of %s: want an ECDSA P-256 key, got %T", n.Node, pub)
	}
	dns, ips, err := n.altNames(hosts)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", n.Node, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	life := cmp.Or(ca.Lifetime, hostLifetime)
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               n.subject(),
		NotBefore:             now.Add(-life / (hostLifetime / backdate)),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              dns,
		IPAddresses:           ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", n.Node, err)
	}
	return append(certPEM(der), pemOf(ca.chain)...), nil
}

// sealed is the form in which the store keeps the authority's key.
type sealed struct {
	Schema int    `json:"schema"`
	Cipher string `json:"cipher"` // "aes-256-gcm"
	CA     []byte `json:"ca"`     // certificate, DER; also the additional data
	// Chain is how its predecessors vouch for it, PEM, newest first.
	Chain []byte `json:"chain,omitempty"`
	Nonce []byte `json:"nonce"`
	Box   []byte `json:"box"` // PKCS #8 key, encrypted
}

// SealCAKey encrypts the authority's key with the kek (32 bytes, AES-256-GCM).
// The result is one JSON value; it also holds the authority's certificate, to
// which the encryption is bound.
func SealCAKey(kek []byte, ca *CA) ([]byte, error) {
	aead, err := kekCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("seal key of the authority: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("seal key of the authority: %w", err)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // never fails (crypto/rand)
	return json.Marshal(sealed{
		Schema: 1, Cipher: "aes-256-gcm", CA: ca.Cert.Raw, Chain: pemOf(ca.chain), Nonce: nonce,
		Box: aead.Seal(nil, nonce, der, ca.Cert.Raw),
	})
}

// OpenCAKey undoes SealCAKey.
func OpenCAKey(kek, sealedKey []byte) (*CA, error) {
	aead, err := kekCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("open key of the authority: %w", err)
	}
	var s sealed
	if err := json.Unmarshal(sealedKey, &s); err != nil {
		return nil, fmt.Errorf("open key of the authority: %w", err)
	}
	if s.Schema != 1 || s.Cipher != "aes-256-gcm" || len(s.Nonce) != aead.NonceSize() {
		return nil, fmt.Errorf("open key of the authority: schema %d, cipher %q are not known to this version", s.Schema, s.Cipher)
	}
	der, err := aead.Open(nil, s.Nonce, s.Box, s.CA)
	if err != nil {
		return nil, errors.New("open key of the authority: it was sealed with another kek (the file kek of this host's identity directory is not the herd's)")
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("open key of the authority: %w", err)
	}
	cert, err := x509.ParseCertificate(s.CA)
	if err != nil {
		return nil, fmt.Errorf("open key of the authority: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("open key of the authority: key and certificate do not belong together")
	}
	ca := &CA{Cert: cert, key: ec}
	if len(s.Chain) > 0 {
		if ca.chain, err = parseCerts(s.Chain); err != nil {
			return nil, fmt.Errorf("open key of the authority: %w", err)
		}
	}
	return ca, nil
}

func kekCipher(kek []byte) (cipher.AEAD, error) {
	if len(kek) != kekSize {
		return nil, fmt.Errorf("kek has %d bytes, want %d", len(kek), kekSize)
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("read key: not a private key in PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read key: want ECDSA P-256, got %T", k)
	}
	return ec, nil
}
