package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
)

// ServerTLS is for ports where only hosts of the herd are heard: TLS 1.3, a
// registered client certificate of our authority required and verified.
func (id *Identity) ServerTLS() *tls.Config {
	return id.serverTLS(tls.RequireAndVerifyClientCert, func(c *x509.Certificate, _ Name) error { return id.registry.Admit(c) })
}

// StoreTLS is ServerTLS for data and witness hosts only, as both ports of the
// store want it.
func (id *Identity) StoreTLS() *tls.Config {
	return id.serverTLS(tls.RequireAndVerifyClientCert, func(c *x509.Certificate, n Name) error {
		if !n.Member() {
			return fmt.Errorf("%s is a %s: the store is for data and witness hosts", n.Node, n.Kind)
		}
		return id.registry.Admit(c)
	}, "h2", "http/1.1")
}

// ServerTLSOptionalClient is ServerTLS for a port that also takes newcomers,
// who have no certificate yet, and that tells who is refused why. A certificate
// that is shown is one of our authority; handlers have to ask whether one was
// shown (ConnectionState.VerifiedChains) and whether it is registered
// (Identity.Caller).
func (id *Identity) ServerTLSOptionalClient() *tls.Config {
	return id.serverTLS(tls.VerifyClientCertIfGiven, func(*x509.Certificate, Name) error { return nil })
}

// serverTLS takes the authorities that are believed at each handshake, and
// notes on the connection who called.
func (id *Identity) serverTLS(auth tls.ClientAuthType, admit func(*x509.Certificate, Name) error, protocols ...string) *tls.Config {
	verify := func(s tls.ConnectionState, over net.Conn) error {
		if len(s.PeerCertificates) == 0 {
			return nil // ClientAuth has decided whether that is allowed
		}
		leaf := s.PeerCertificates[0]
		n, err := id.named(leaf)
		if err != nil {
			return err
		}
		if w, ok := over.(*watchedConn); ok {
			w.shown(leaf)
		}
		return admit(leaf, n)
	}
	one := func(t *trust, over net.Conn) *tls.Config {
		return &tls.Config{
			MinVersion:     tls.VersionTLS13,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.certificate(), nil },
			ClientAuth:     auth,
			ClientCAs:      t.pool,
			NextProtos:     protocols,
			// A resumed session would skip the look at the certificate.
			SessionTicketsDisabled: true,
			VerifyConnection:       func(s tls.ConnectionState) error { return verify(s, over) },
		}
	}
	c := one(id.trust.Load(), nil)
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return one(id.believed(), hello.Conn), nil }
	return c
}

// ErrNoCertificate is the refusal of a caller that showed none.
var ErrNoCertificate = errors.New("a certificate of this herd is needed")

// Caller says who is at the other end of a connection to a port of ours, or why
// it may not come in: ErrNoCertificate, ErrNotRegistered, or a certificate that
// is none of this herd's hosts.
func (id *Identity) Caller(s *tls.ConnectionState) (Name, error) {
	if s == nil || len(s.VerifiedChains) == 0 {
		return Name{}, ErrNoCertificate
	}
	n, err := id.named(s.VerifiedChains[0][0])
	if err != nil {
		return Name{}, err
	}
	return n, id.registry.Admit(s.VerifiedChains[0][0])
}

// PublicTLS is for ports that serve people and applications (SQL of the proxy,
// HTTP): this host's certificate, no client certificate, TLS 1.2 or newer.
func (id *Identity) PublicTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, CipherSuites: suites12(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.certificate(), nil },
	}
}

// PublicTLSOptionalClient is PublicTLS for a port where hosts of the herd may see
// more than others: as ServerTLSOptionalClient it verifies a certificate that is
// shown.
func (id *Identity) PublicTLSOptionalClient() *tls.Config {
	c := id.ServerTLSOptionalClient()
	inner := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		one, err := inner(hello)
		if err == nil {
			one.MinVersion, one.CipherSuites = tls.VersionTLS12, suites12()
		}
		return one, err
	}
	c.MinVersion, c.CipherSuites = tls.VersionTLS12, suites12()
	return c
}

// ClientTLS is for a connection to that data or witness host: TLS 1.3, our
// certificate shown, the server's certificate signed by our authority and
// naming the node in its CN, under whatever address it was reached. Also good
// for its PostgreSQL.
func (id *Identity) ClientTLS(node string) *tls.Config {
	return id.clientTLS(func(n Name) error {
		if n.Node != node {
			return fmt.Errorf("the host that answers is %s, not %s: check the address of %s", n.Node, node, node)
		}
		return nil
	})
}

// ClientTLSAny is for a connection to whichever data or witness host of the
// herd answers: the store, or the first question of a command line.
func (id *Identity) ClientTLSAny() *tls.Config {
	return id.clientTLS(func(Name) error { return nil })
}

// TLSFor is ClientTLS of a node, or ClientTLSAny when the name is empty.
func (id *Identity) TLSFor(node string) *tls.Config {
	if node == "" {
		return id.ClientTLSAny()
	}
	return id.ClientTLS(node)
}

// UnnamedTLS is TLSFor without a certificate of ours: for a host whose own is
// not believed any more.
func (id *Identity) UnnamedTLS(node string) *tls.Config {
	c := id.TLSFor(node)
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	return c
}

// ProxyTLS is for a connection to that host with nothing but a proxy, whose word on
// the herd counts for nothing: it is asked for its own tables and given orders.
func (id *Identity) ProxyTLS(node string) *tls.Config {
	return id.anyClientTLS(func(n Name) error {
		if n.Kind != KindProxy || n.Node != node {
			return fmt.Errorf("the host that answers is the %s %s, not the proxy %s", n.Kind, n.Node, node)
		}
		return nil
	})
}

func (id *Identity) clientTLS(want func(Name) error) *tls.Config {
	return id.anyClientTLS(func(n Name) error {
		if !n.Member() {
			// Less is asked of who may become a proxy: it must never pass
			// for a host that is believed, whatever its name.
			return fmt.Errorf("the host that answers, %s, is a %s: give the address of a data or witness host", n.Node, n.Kind)
		}
		return want(n)
	})
}

func (id *Identity) anyClientTLS(want func(Name) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.certificate(), nil
		},
		// Verified in VerifyConnection: who a host is stands in the CN, which
		// the library would not look at.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			n, err := id.verifyServer(s)
			if err != nil {
				return err
			}
			return want(n)
		},
	}
}

func (id *Identity) verifyServer(s tls.ConnectionState) (Name, error) {
	if len(s.PeerCertificates) == 0 {
		return Name{}, errors.New("verify host: it shows no certificate")
	}
	opts := x509.VerifyOptions{
		Roots:         id.believed().pool,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leaf := s.PeerCertificates[0]
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c) // an authority that an older one vouches for
	}
	if _, err := leaf.Verify(opts); err != nil {
		return Name{}, fmt.Errorf("verify host: its certificate (%s) is not of this herd: %w", leaf.Subject.CommonName, err)
	}
	if err := id.registry.admitServer(leaf); err != nil {
		return Name{}, fmt.Errorf("verify host: %w", err)
	}
	return id.named(leaf)
}

func (id *Identity) named(c *x509.Certificate) (Name, error) {
	n, err := NameOf(c)
	if err != nil {
		return Name{}, fmt.Errorf("verify host: %w", err)
	}
	if n.Cluster != id.name.Cluster {
		return Name{}, fmt.Errorf("verify host: %s belongs to cluster %q, not %q", n.Node, n.Cluster, id.name.Cluster)
	}
	return n, nil
}

// ServerTLSFromFiles is for public ports with a certificate of the user's own.
// The files are read once.
func ServerTLSFromFiles(certFile, keyFile string) (*tls.Config, error) {
	c, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s: %w", certFile, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites12(), Certificates: []tls.Certificate{c}}, nil
}

// ClientTLSFromFiles is for services outside the herd (an existing etcd): the
// server is verified by the authorities in caFile (the system's when empty)
// under the name it is dialled by; certFile and keyFile may both be empty.
func ClientTLSFromFiles(caFile, certFile, keyFile string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites12()}
	if caFile != "" {
		b, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("load authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("load authority: %s holds no certificate in PEM", caFile)
		}
	}
	if certFile != "" || keyFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("load certificate %s: %w", certFile, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// suites12 are the cipher suites of TLS 1.2 that our ports take: those with
// forward secrecy that authenticate what they encrypt (no CBC).
func suites12() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

func parseCert(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("not a certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
