package postgres

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/internal/postgres/pgtest"
)

// testHerd hands out identities of one authority.
type testHerd struct {
	t     *testing.T
	dir   string
	ca    *pki.CA
	first *pki.Identity
}

func newHerd(t *testing.T) *testHerd {
	t.Helper()
	h := &testHerd{t: t, dir: pgtest.Dir(t)}
	sealed, err := pki.Found(h.path("w"), "test", "w", pki.KindWitness, nil)
	must(t, err)
	h.first, err = pki.Load(h.path("w"))
	must(t, err)
	h.ca, err = h.first.OpenCA(sealed)
	must(t, err)
	return h
}

func (h *testHerd) path(node string) string { return filepath.Join(h.dir, "identity-"+node) }

func (h *testHerd) identity(node, kind string) *pki.Identity {
	h.t.Helper()
	id, err := pki.Issue(h.first, h.ca, h.path(node), node, kind, []string{"127.0.0.1"})
	must(h.t, err)
	return id
}

// of makes an instance a data host of the herd.
func (h *testHerd) of(id *pki.Identity) func(*Config) {
	f := id.PostgresFiles()
	return func(c *Config) {
		c.TLS, c.ClientTLS = TLSFiles{Cert: f.Cert, Key: f.Key, CA: f.CA}, id.ClientTLS
		c.Members = []cluster.MemberAccess{{Node: "a", Addrs: []string{"127.0.0.1"}}}
	}
}

func TestReplicationOverVerifiedTLS_H4_EndSenders(t *testing.T) {
	h := newHerd(t)
	a := leader(t, "a", h.of(h.identity("a", pki.KindData)))
	b := standby(t, a, "b", 1, 1, h.of(h.identity("b", pki.KindData)))
	if v := a.sql("select ssl and client_dn like '%CN=b%' from pg_stat_ssl join pg_stat_replication using (pid)"); v != "t" {
		t.Fatalf("replication over TLS, with the standby's certificate: %q", v)
	}
	// Raising k: every older walsender is ended, a younger one takes its place.
	old := a.observe().Senders[0]
	must(t, a.EndSenders(deadline(t, 5*time.Second), []int{old.PID}))
	until(t, "a younger walsender", func() bool {
		s := a.observe().Senders
		return len(s) == 1 && s[0].PID != old.PID && s[0].BackendStart.After(old.BackendStart) && s[0].State == "streaming"
	})
	// Another herd's server is not followed, and says nothing of the password.
	other := newHerd(t)
	bad := b.cfg
	bad.ClientTLS = other.identity("b", pki.KindData).ClientTLS
	b.cfg = bad
	c, err := b.connectSource(deadline(t, 5*time.Second), a.source(1), "x")
	if err == nil {
		c.Conn().Close()
		t.Fatal("a server of another herd was believed")
	}
	if strings.Contains(err.Error(), b.cfg.Passwords.Rewind+"\"") {
		t.Fatal("password in the error")
	}
}

// falsePrimary answers on a port as PostgreSQL would, with somebody's
// certificate, and asks for a password in clear. It keeps what it was told
// inside of TLS.
type falsePrimary struct {
	l     net.Listener
	mu    sync.Mutex
	tries int
	told  []byte
}

func startFalsePrimary(t *testing.T, id *pki.Identity) *falsePrimary {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f := &falsePrimary{l: l}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { f.serve(c, id.PublicTLS()) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return f
}

func (f *falsePrimary) serve(c net.Conn, cfg *tls.Config) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil { // SSLRequest
		return
	}
	f.mu.Lock()
	f.tries++
	f.mu.Unlock()
	if _, err := c.Write([]byte("S")); err != nil {
		return
	}
	s := tls.Server(c, cfg)
	head := make([]byte, 4)
	if _, err := io.ReadFull(s, head); err != nil {
		return
	}
	startup := make([]byte, binary.BigEndian.Uint32(head)-4)
	_, _ = io.ReadFull(s, startup)
	_, _ = s.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}) // AuthenticationCleartextPassword
	password := make([]byte, 64)
	n, _ := s.Read(password)
	f.mu.Lock()
	f.told = append(append(f.told, startup...), password[:n]...)
	f.mu.Unlock()
}

func (f *falsePrimary) heard() (tries int, told string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries, string(f.told)
}

// Whoever answers at the primary's address with a valid certificate of the herd,
// but not the primary's, is told nothing: not by the walreceiver, nor by
// pg_basebackup, pg_rewind, or our own questions.
func TestNobodyElseIsBelievedToBeThePrimary(t *testing.T) {
	h := newHerd(t)
	a := leader(t, "a", h.of(h.identity("a", pki.KindData)))
	b := standby(t, a, "b", 1, 1, h.of(h.identity("b", pki.KindData)))
	for _, who := range []struct{ node, kind string }{{"x2", pki.KindProxy}, {"c", pki.KindData}, {"x", pki.KindWitness}} {
		t.Run(who.kind, func(t *testing.T) {
			f := startFalsePrimary(t, h.identity(who.node, who.kind))
			at := a.endpoint()
			at.Port = f.l.Addr().(*net.TCPAddr).Port
			src := Source{Endpoint: at, Timeline: 1}
			ctx := deadline(t, 30*time.Second)

			before := 0
			tried := func(what string, err error) {
				t.Helper()
				tries, told := f.heard()
				if err == nil || tries == before || told != "" {
					t.Errorf("%s: error %v, %d connections, told %q", what, err, tries-before, told)
				}
				before = tries
			}
			_, err := b.connectSource(ctx, src, "x")
			tried("our own question", err)
			tried("pg_basebackup", b.runBasebackup(ctx, src, "x", filepath.Join(pgtest.Dir(t), "copy"), nil, nil))
			said, err := rewindNowhere(b, src)
			tried("pg_rewind", errors.Join(err, errors.New(said)))
			up := Upstream{Endpoint: at, Name: cluster.CertifiedName("b", 1), Epoch: 1}
			must(t, b.Follow(ctx, up))
			until(t, "the walreceiver has tried twice", func() bool { n, _ := f.heard(); return n >= before+2 })
			tried("walreceiver", errors.New("see above"))
			up.Endpoint = a.endpoint() // and it still finds the true one
			must(t, b.Readdress(ctx, up))
			until(t, "b streams again", func() bool { return b.observe().Streaming })
		})
	}
}

// rewindNowhere runs pg_rewind on a stopped copy of the instance's directory
// that is thrown away.
func rewindNowhere(n *node, src Source) (string, error) {
	n.t.Helper()
	c := newNode(n.t, n.cfg.Node, func(c *Config) { c.TLS, c.ClientTLS = n.cfg.TLS, n.cfg.ClientTLS })
	c.foundFromTemplate()
	return c.runRewind(deadline(n.t, 20*time.Second), src, "x", nil)
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
	h := newHerd(t)
	id := h.identity("a", pki.KindData)
	a := leader(t, "a", h.of(id))
	before := served(t, a.cfg.Port)
	done, err := id.Renew(h.ca, id.NotAfter().Add(-time.Hour), func(cluster.Certificate) error { return nil })
	if err != nil || !done {
		t.Fatal("not renewed", err)
	}
	must(t, a.ReloadCertificate(deadline(t, 5*time.Second)))
	until(t, "the renewed certificate", func() bool { return served(t, a.cfg.Port) != before })
}
