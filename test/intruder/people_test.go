package intruder

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

// person is somebody who tries: with a certificate or none, and the passwords
// that came with it.
type person struct {
	name    string
	pair    *tls.Certificate
	secrets pki.Secrets
	kek     []byte
}

// tls is what the person calls with. Whom it talks to is all the same to it.
func (p person) tls(protocols ...string) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	if p.pair != nil { // also where the server names other authorities
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.pair, nil }
	}
	return c
}

// copied is who copied the identity folder of a host.
func copied(s *site, name, dir string) person {
	s.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "host.crt"), filepath.Join(dir, "host.key"))
	must(s, err)
	secrets, err := pki.ReadSecrets(dir)
	must(s, err)
	kek, err := os.ReadFile(filepath.Join(dir, "kek"))
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	return person{name, &pair, secrets, kek}
}

// stranger is the first host of another herd.
func stranger(s *site, name, cluster string) person {
	s.Helper()
	dir := filepath.Join(s.TempDir(), "stranger")
	_, err := pki.Found(dir, cluster, "master", pki.KindData, []string{"127.0.0.1"})
	must(s, err)
	return copied(s, name, dir)
}

// joined makes a host that joined with a token and never ran.
func (s *site) joined(node, kind string) person {
	s.Helper()
	member, err := pki.Load(s.cfgs["backup"].IdentityDir())
	must(s, err)
	var answer struct {
		Token string `json:"token"`
	}
	c := peer.Client{TLS: member.TLSFor, DialTimeout: 5 * time.Second}
	must(s, c.Call(s.ctx, s.at("backup", peerPort), "backup", verb.Token, map[string]string{"node": node, "kind": kind}, &answer))
	dir, err := s.join(node, kind, answer.Token)
	must(s, err)
	p := copied(s, node, dir)
	if kind == pki.KindProxy {
		return p
	}
	for _, host := range []string{"master", "slave", "backup"} { // they hear of it within a second or so
		for end := time.Now().Add(10 * time.Second); s.knock(p, host) != nil; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				s.Fatalf("%s joined, and the store of %s does not let it in", node, host)
			}
		}
	}
	return p
}

// authority is a copy of the key that signs the herd's certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// steal takes the authority's key out of the store with what a data host has.
// It is written without the program's own code, as an intruder would.
func (s *site) steal(p person) authority {
	s.Helper()
	kvs, err := s.readStore(p, "master")
	must(s, err)
	a, err := openAuthority(kvs, p.kek)
	must(s, err)
	return a
}

// openAuthority opens the authority's key among what the store holds.
func openAuthority(kvs map[string][]byte, kek []byte) (a authority, err error) {
	var vault struct {
		Authority struct {
			CA    []byte `json:"ca"`
			Nonce []byte `json:"nonce"`
			Box   []byte `json:"box"`
		} `json:"authority"`
	}
	box := &vault.Authority
	for key, value := range kvs {
		if !strings.HasSuffix(key, "/secret") {
			continue
		}
		if err := json.Unmarshal(value, &vault); err == nil && box.CA == nil {
			err = json.Unmarshal(value, box) // as the herd was founded
		} else if err != nil {
			return a, err
		}
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return a, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return a, err
	}
	der, err := aead.Open(nil, box.Nonce, box.Box, box.CA)
	if err != nil {
		return a, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return a, err
	}
	if a.cert, err = x509.ParseCertificate(box.CA); err != nil {
		return a, err
	}
	a.key = key.(*ecdsa.PrivateKey)
	return a, nil
}

// mint signs a certificate in a host's name. serial nil: a new one.
func (a authority) mint(s *site, node, kind string, serial *big.Int, from, until time.Time) person {
	s.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s, err)
	if serial == nil {
		serial, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		must(s, err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, NotBefore: from, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		Subject:     pkix.Name{CommonName: node, Organization: []string{s.cfgs["master"].Cluster}, OrganizationalUnit: []string{kind}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{node, "localhost", pki.MemberName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	must(s, err)
	return person{name: fmt.Sprintf("minted as %s (%s)", node, kind), pair: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// mints is everything worth trying with a copied key.
func (a authority) mints(s *site) []person {
	day := 24 * time.Hour
	now := time.Now()
	copyOf := copied(s, "", s.cfgs["slave"].IdentityDir())
	leaf, err := x509.ParseCertificate(copyOf.pair.Certificate[0])
	must(s, err)
	twin := a.mint(s, "slave", pki.KindData, leaf.SerialNumber, now.Add(-day), now.Add(day))
	twin.name = "minted with the serial number of slave"
	return []person{
		a.mint(s, "db9", pki.KindData, nil, now.Add(-day), now.Add(day)),
		a.mint(s, "slave", pki.KindData, nil, now.Add(-day), now.Add(day)),
		a.mint(s, "backup", pki.KindWitness, nil, now.Add(-day), now.Add(day)),
		a.mint(s, "proxy", pki.KindProxy, nil, now.Add(-day), now.Add(day)),
		twin,
	}
}

func peerPort(p *config.Ports) int      { return p.Peer }
func clientPort(p *config.Ports) int    { return p.StoreCli }
func storePeerPort(p *config.Ports) int { return p.StorePeer }
func backupPort(p *config.Ports) int    { return p.Backup }
func httpPort(p *config.Ports) int      { return p.HTTP }
func proxyPort(p *config.Ports) int     { return p.ProxyHTTP }
func pgPort(p *config.Ports) int        { return p.PostgreSQL }
func sqlPort(p *config.Ports) int       { return p.SQL }
