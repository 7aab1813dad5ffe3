package postgres

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testTLS makes a CA and a host certificate of it in dir.
func testTLS(t *testing.T, dir string) TLSFiles {
	t.Helper()
	make := func(name string, ca bool, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
		if parent == nil {
			parent, parentKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
		must(t, err)
		k, err := x509.MarshalPKCS8PrivateKey(key)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), 0o600))
		return c, key
	}
	ca, key := make("ca", true, nil, nil)
	make("host", false, ca, key)
	p := func(f string) string { return filepath.Join(dir, f) }
	return TLSFiles{Cert: p("host.crt"), Key: p("host.key"), CA: p("ca.crt")}
}

func TestReplicationOverVerifiedTLS_H4_EndSenders(t *testing.T) {
	tlsDir := t.TempDir()
	files := testTLS(t, tlsDir)
	with := func(c *Config) { c.TLS = files }
	a := leader(t, "a", with)
	b := standby(t, a, "b", 1, 1, with)
	if v := a.sql("select ssl from pg_stat_ssl join pg_stat_replication using (pid)"); v != "t" {
		t.Fatalf("replication over TLS: %q", v)
	}
	// Raising k: every older walsender is ended, a younger one takes its place.
	old := a.observe().Senders[0]
	must(t, a.EndSenders(deadline(t, 5*time.Second), []int{old.PID}))
	until(t, "a younger walsender", func() bool {
		s := a.observe().Senders
		return len(s) == 1 && s[0].PID != old.PID && s[0].BackendStart.After(old.BackendStart) && s[0].State == "streaming"
	})
	// Another CA's server is not followed, and says nothing of the password.
	other := t.TempDir()
	bad := b.cfg
	bad.TLS.CA = testTLS(t, other).CA
	b.cfg = bad
	c, err := b.connectSource(deadline(t, 5*time.Second), a.source(1), "x")
	if err == nil {
		c.Conn().Close()
		t.Fatal("a server of another CA was believed")
	}
	if strings.Contains(err.Error(), b.cfg.Passwords.Rewind+"\"") {
		t.Fatal("password in the error")
	}
}

// served is the serial number of the certificate that a PostgreSQL shows.
func served(t *testing.T, port int) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}) // SSLRequest
	must(t, err)
	yes := make([]byte, 1)
	if _, err := c.Read(yes); err != nil || yes[0] != 'S' {
		t.Fatalf("no TLS: %q %v", yes, err)
	}
	s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	must(t, s.Handshake())
	return s.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestRenewedCertificateIsShown(t *testing.T) {
	dir := t.TempDir()
	files := testTLS(t, dir)
	a := leader(t, "a", func(c *Config) { c.TLS = files })
	before := served(t, a.cfg.Port)
	testTLS(t, dir)
	must(t, a.ReloadCertificate(deadline(t, 5*time.Second)))
	until(t, "the renewed certificate", func() bool { return served(t, a.cfg.Port) != before })
}
