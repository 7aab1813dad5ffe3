package pki

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"manada/internal/cluster"
)

// door is a port of a host that only hosts of the herd get into: it answers one
// byte for each that it reads.
func door(t *testing.T, id *Identity, c *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l = id.Listener(l, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				s := tls.Server(conn, c)
				_, _ = io.Copy(s, s)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// knock says whether somebody with that identity gets an answer.
func knock(t *testing.T, id *Identity, addr string) (*tls.Conn, error) {
	t.Helper()
	c, err := tls.Dial("tcp", addr, id.ClientTLSAny())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c, echo(c)
}

func echo(c *tls.Conn) error {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// minted is an identity that somebody with a copy of the authority's key makes
// for himself, without the herd.
func minted(t *testing.T, ca *CA, as *Identity, node, kind string) *Identity {
	t.Helper()
	n := Name{Cluster: as.Cluster(), Node: node, Kind: kind}
	req, err := NewRequest(n, nil)
	must(t, err)
	cert, err := ca.Sign(req.CSR, n, nil, time.Now())
	must(t, err)
	dir := t.TempDir()
	must(t, material{name: n, ca: ca.PEM(), cert: cert}.write(dir, req))
	id, err := Load(dir)
	must(t, err)
	return id
}

func TestTrustOnlyRegisteredCertificatesComeIn(t *testing.T) {
	id, ca, _ := founded(t, "olivo", "master")
	slave, err := Issue(id, ca, t.TempDir(), "slave", KindData, nil)
	must(t, err)
	proxy, err := Issue(id, ca, t.TempDir(), "pooler", KindProxy, nil)
	must(t, err)
	peers, storePort := door(t, id, id.ServerTLS()), door(t, id, id.StoreTLS())

	refused := map[string]*Identity{
		"minted for a new name":  minted(t, ca, id, "db9", KindData),
		"minted for slave":       minted(t, ca, id, "slave", KindData),
		"minted for master":      minted(t, ca, id, "master", KindData),
		"minted for a new proxy": minted(t, ca, id, "p9", KindProxy),
	}
	for what, who := range refused {
		for _, addr := range []string{peers, storePort} {
			if _, err := knock(t, who, addr); err == nil {
				t.Errorf("%s got in", what)
			}
		}
	}
	for _, who := range []*Identity{id, slave} {
		for _, addr := range []string{peers, storePort} {
			if _, err := knock(t, who, addr); err != nil {
				t.Errorf("%s is kept out: %v", who.Node(), err)
			}
		}
	}
	if _, err := knock(t, proxy, peers); err != nil {
		t.Errorf("a proxy is kept out: %v", err)
	}
	if _, err := knock(t, proxy, storePort); err == nil {
		t.Error("a proxy gets into the store")
	}

	// Removed: what it opened before ends, and nothing opens any more.
	open, err := knock(t, slave, storePort)
	must(t, err)
	list := id.Registry().List()
	list.Rev++
	if list.Remove("slave") != 1 {
		t.Fatal("nothing to remove")
	}
	must(t, id.Registry().Set(list))
	start := time.Now()
	if echo(open) == nil { // one more may pass before the listener looks
		_ = open.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := open.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a removed host's connection lives on")
		}
	}
	t.Logf("cut after %s", time.Since(start))
	if _, err := knock(t, slave, peers); err == nil {
		t.Error("a removed host got in")
	}
	if err := id.Registry().Admit(slave.Certificate()); !errors.Is(err, ErrNotRegistered) {
		t.Errorf("got %v", err)
	}
}

// What was refused stays refused on this host, whatever it is told, and over a
// restart.
func TestRefusedStaysRefused(t *testing.T) {
	id, ca, _ := founded(t, "olivo", "master")
	slave, err := Issue(id, ca, t.TempDir(), "slave", KindData, nil)
	must(t, err)
	before := id.Registry().List()
	list := id.Registry().List()
	list.Rev++
	list.Remove("slave")
	must(t, id.Registry().Set(list))
	must(t, id.Registry().Set(before)) // a store that was rolled back
	again, err := Load(id.Dir())
	must(t, err)
	for _, x := range []*Identity{id, again} {
		if x.Registry().Admit(slave.Certificate()) == nil {
			t.Error("a removed host is good again")
		}
		if err := x.Registry().Admit(id.Certificate()); err != nil {
			t.Error(err)
		}
	}
}

// A host that comes from a release without a list admits as that did, until it
// is told one.
func TestOpenList(t *testing.T) {
	id, ca, _ := founded(t, "olivo", "master")
	must(t, os.Remove(filepath.Join(id.Dir(), fileRegistry)))
	old, err := Load(id.Dir())
	must(t, err)
	slave := minted(t, ca, id, "slave", KindData)
	if err := old.Registry().Admit(slave.Certificate()); err != nil || !old.Registry().Unknown(slave.Certificate()) {
		t.Fatalf("an old host is kept out: %v", err)
	}
	own, err := CertificateOf(id.Certificate())
	must(t, err)
	must(t, old.Registry().Set(cluster.Registry{Schema: 1, Rev: 3, Good: []cluster.Certificate{own}}))
	if old.Registry().Admit(slave.Certificate()) == nil {
		t.Fatal("the list is closed and it still gets in")
	}
}

// A server that the list does not know is believed only by a host that has had
// no news for long.
func TestServersOfAHostThatWasAway(t *testing.T) {
	id, ca, _ := founded(t, "olivo", "master")
	slave := minted(t, ca, id, "slave", KindData)
	if id.Registry().admitServer(slave.Certificate()) == nil {
		t.Fatal("believed a certificate that nobody registered")
	}
	long := time.Now().Add(-2 * registryFresh)
	must(t, os.Chtimes(filepath.Join(id.Dir(), fileRegistry), long, long))
	away, err := Load(id.Dir())
	must(t, err)
	if err := away.Registry().admitServer(slave.Certificate()); err != nil {
		t.Fatal(err)
	}
	if away.Registry().Admit(slave.Certificate()) == nil {
		t.Fatal("let it in as a caller")
	}
}

func TestNoWeakSuites(t *testing.T) {
	id, _, _ := founded(t, "olivo", "master")
	strong := map[uint16]bool{}
	for _, s := range suites12() {
		strong[s] = true
	}
	addr := door(t, id, id.PublicTLS())
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{s.ID}})
		if err == nil {
			c.Close()
		}
		if err == nil && !strong[s.ID] {
			t.Errorf("%s is taken", s.Name)
		}
	}
}
