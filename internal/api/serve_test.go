package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// issue makes a certificate signed by parent, or by itself.
func issue(t *testing.T, name string, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	signer, by := tmpl, any(key)
	if parent != nil {
		signer, by = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, signer, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestOverTLS: with a real handshake, a client without a certificate reads; nobody
// writes; a stranger's certificate is turned away.
func TestOverTLS(t *testing.T) {
	ca, other := issue(t, "herd", nil), issue(t, "other", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	conf := &tls.Config{Certificates: []tls.Certificate{issue(t, "master", &ca)}, ClientCAs: pool,
		ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13}
	a := New(Options{Source: seat("master")})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, ln, a.Handler(), conf, slog.New(slog.DiscardHandler), 5*time.Second)
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	ask := func(cert *tls.Certificate, method, path string) int {
		cc := &tls.Config{RootCAs: pool}
		if cert != nil {
			cc.Certificates = []tls.Certificate{*cert}
		}
		tr := &http.Transport{TLSClientConfig: cc, DisableKeepAlives: true}
		r, err := http.NewRequestWithContext(ctx, method, "https://"+ln.Addr().String()+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := (&http.Client{Transport: tr}).Do(r)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	member, stranger := issue(t, "slave", &ca), issue(t, "slave", &other)
	for _, c := range []struct {
		name   string
		cert   *tls.Certificate
		method string
		path   string
		want   int
	}{
		{"nobody reads", nil, "GET", "/primary", 200},
		{"nobody writes", nil, "POST", "/v1/pause", 403},
		{"member reads", &member, "GET", "/v1/status", 200},
		{"member writes", &member, "POST", "/v1/pause", 403},
		{"stranger writes", &stranger, "POST", "/v1/pause", 0}, // the client finds no CA it could satisfy or the server hangs up
	} {
		got := ask(c.cert, c.method, c.path)
		if got != c.want && !(c.want == 0 && got == 403) {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
