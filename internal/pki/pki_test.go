package pki

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"manada/internal/cluster"
)

func TestMain(m *testing.M) {
	sharedRounds = 1000
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// founded makes a herd of one host and opens its CA.
func founded(t testing.TB, name, node string) (*Identity, *CA, []byte) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), node)
	sealed, err := Found(dir, name, node, KindData, []string{"db1.example.org", "10.1.2.3"})
	must(t, err)
	id, err := Load(dir)
	must(t, err)
	ca, err := id.OpenCA(sealed)
	must(t, err)
	return id, ca, sealed
}

func TestFoundMakesACompleteDirectory(t *testing.T) {
	id, ca, sealed := founded(t, "olivo", "master")
	for name, mode := range map[string]fs.FileMode{
		"ca.crt": 0o644, "host.crt": 0o644, "host.key": 0o600, "kek": 0o600, "secrets.json": 0o600, "identity.json": 0o644,
	} {
		fi, err := os.Stat(filepath.Join(id.Dir(), name))
		must(t, err)
		if fi.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), mode)
		}
	}
	s, err := id.Secrets()
	must(t, err)
	seen := map[string]bool{}
	for _, r := range secretRoles() {
		if len(s[r]) < 32 || seen[s[r]] {
			t.Errorf("password of %s is short or not its own", r)
		}
		seen[s[r]] = true
	}
	leaf := id.cert.Load().Leaf
	for _, h := range []string{"master", "db1.example.org", "10.1.2.3", "localhost", "127.0.0.1", "::1"} {
		if err := leaf.VerifyHostname(h); err != nil {
			t.Errorf("certificate does not name %s: %v", h, err)
		}
	}
	if d := ca.Cert.NotAfter.Sub(time.Now()); d < 3649*24*time.Hour || d > 3651*24*time.Hour {
		t.Errorf("authority is valid for %v, want ten years", d)
	}
	if !json.Valid(sealed) {
		t.Error("sealed key is not a JSON value")
	}
	keyInClear(t, id.Dir(), ca)
}

// keyInClear fails if the authority's private key lies in the directory.
func keyInClear(t *testing.T, dir string, ca *CA) {
	t.Helper()
	raw := ca.key.D.FillBytes(make([]byte, 32))
	text, err := keyPEM(ca.key)
	must(t, err)
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, raw) || bytes.Contains(b, text) {
			t.Errorf("%s holds the authority's key in clear", p)
		}
		return err
	}))
}

func TestFoundIsResumedUntilTheStoreHasTheKey(t *testing.T) {
	id, _, sealed := founded(t, "olivo", "master")
	again, err := Found(id.Dir(), "olivo", "master", KindData, nil)
	must(t, err)
	if !bytes.Equal(again, sealed) {
		t.Error("founding resumed gives another key")
	}
	if _, err := Found(id.Dir(), "olivo", "slave", KindData, nil); !errors.Is(err, ErrExists) {
		t.Errorf("founding over another node's identity: %v", err)
	}
	must(t, FinishFounding(id.Dir()))
	must(t, FinishFounding(id.Dir()))
	if _, err := Found(id.Dir(), "olivo", "master", KindData, nil); !errors.Is(err, ErrExists) {
		t.Errorf("founding twice: %v", err)
	}
}

func TestFoundAfterACrashHalfWay(t *testing.T) {
	dir := t.TempDir()
	_, err := Found(dir, "olivo", "master", KindData, nil)
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, fileIdentity))) // as if it had never come to be
	if _, err := Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half an identity was loaded: %v", err)
	}
	sealed, err := Found(dir, "olivo", "master", KindData, nil)
	must(t, err)
	id, err := Load(dir)
	must(t, err)
	_, err = id.OpenCA(sealed)
	must(t, err)
}

func TestNamesThatCannotBe(t *testing.T) {
	for _, c := range []struct{ cluster, node, kind, host string }{
		{"olivo", "Master", KindData, ""},
		{"olivo", "localhost", KindData, ""},
		{"", "master", KindData, ""},
		{"olivo", "master", "king", ""},
		{"olivo", "master", KindProxy, ""},
		{"olivo", "master", KindData, MemberName},
		{"olivo", "master", KindData, "*.example.org"},
		{"olivo", "master", KindData, "db1:5432"},
		{"olivo", "master", KindData, "a b"},
	} {
		hosts := []string{}
		if c.host != "" {
			hosts = append(hosts, c.host)
		}
		if _, err := Found(t.TempDir(), c.cluster, c.node, c.kind, hosts); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestSealedKeyNeedsItsKEK(t *testing.T) {
	id, ca, sealed := founded(t, "olivo", "master")
	kek, err := id.KEK()
	must(t, err)
	other := bytes.Clone(kek)
	other[0] ^= 1
	if _, err := OpenCAKey(other, sealed); err == nil {
		t.Error("opened with another kek")
	}
	stranger, err := NewCA("olivo", time.Now())
	must(t, err)
	swapped := bytes.Replace(sealed, b64(t, ca.Cert.Raw), b64(t, stranger.Cert.Raw), 1)
	if bytes.Equal(swapped, sealed) {
		t.Fatal("test did not swap the certificate")
	}
	if _, err := OpenCAKey(kek, swapped); err == nil {
		t.Error("opened beside another certificate")
	}
	theirs, err := SealCAKey(kek, stranger)
	must(t, err)
	if _, err := id.OpenCA(theirs); err == nil {
		t.Error("another authority was taken for ours")
	}
}

func b64(t *testing.T, b []byte) []byte {
	j, err := json.Marshal(b)
	must(t, err)
	return j
}

func TestSecretsByKind(t *testing.T) {
	s := newSecrets()
	if got := s.For(KindProxy); len(got) != 2 || got[cluster.RoleProxy] == "" || got[cluster.RoleMonitor] == "" {
		t.Errorf("a proxy gets %d passwords, want those of the proxy and monitor roles", len(got))
	}
	if got := s.For(KindData); len(got) != 5 {
		t.Errorf("a data host gets %d passwords, want 5", len(got))
	}
}

// shake connects the two configurations and returns what either side says.
func shake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("!"))
		}
		a.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		// With TLS 1.3 a client learns of its own refusal when it reads.
		_, clientErr = c.Read(make([]byte, 1))
	}
	b.Close()
	return <-done, clientErr
}

func TestWhoMayTalkToWhom(t *testing.T) {
	master, ca, _ := founded(t, "olivo", "master")
	slave, err := Issue(master, ca, filepath.Join(t.TempDir(), "s"), "slave", KindData, nil)
	must(t, err)
	proxy, err := Issue(master, ca, filepath.Join(t.TempDir(), "p"), "pooler", KindProxy, nil)
	must(t, err)
	stranger, _, _ := founded(t, "olivo", "master") // same names, other authority

	namesake, err := Issue(master, ca, filepath.Join(t.TempDir(), "n"), "master", KindProxy, nil)
	must(t, err)
	expired, err := Issue(master, ca, filepath.Join(t.TempDir(), "e"), "late", KindData, nil)
	must(t, err)
	lapsed, err := ca.Resign(expired.cert.Load().Leaf, time.Now().Add(-2*hostLifetime))
	must(t, err)
	must(t, expired.InstallCertificate(lapsed))

	old := slave.ClientTLS("master")
	old.MaxVersion = tls.VersionTLS12
	old.MinVersion = tls.VersionTLS12
	for _, c := range []struct {
		what           string
		server, client *tls.Config
		want           string // in the error of either side; "" for success
	}{
		{"member to member", master.ServerTLS(), slave.ClientTLS("master"), ""},
		{"by any name", master.ServerTLS(), slave.ClientTLSAny(), ""},
		{"proxy to member", master.ServerTLS(), proxy.TLSFor(""), ""},
		{"optional, shown", master.ServerTLSOptionalClient(), slave.TLSFor("master"), ""},
		{"optional, none", master.ServerTLSOptionalClient(), &tls.Config{InsecureSkipVerify: true}, ""},
		{"none", master.ServerTLS(), &tls.Config{InsecureSkipVerify: true}, "certificate"},
		{"another node answers", slave.ServerTLS(), master.ClientTLS("third"), "is slave, not third"},
		{"a proxy poses as a member", proxy.ServerTLS(), slave.ClientTLSAny(), "is a proxy"},
		{"a proxy of a member's name", namesake.ServerTLS(), slave.ClientTLS("master"), "is a proxy"},
		{"server whose certificate has expired", expired.ServerTLS(), slave.ClientTLS("late"), "expired"},
		{"client whose certificate has expired", master.ServerTLS(), expired.ClientTLS("master"), "expired"},
		{"server of another authority", stranger.ServerTLS(), slave.ClientTLS("master"), "not of this herd"},
		{"client of another authority", master.ServerTLS(), insecure(stranger.ClientTLS("master")), "unknown authority"},
		{"the same where optional", master.ServerTLSOptionalClient(), insecure(stranger.ClientTLS("master")), "unknown authority"},
		{"TLS 1.2", master.ServerTLS(), old, "protocol version"},
		{"TLS 1.2 in public", master.PublicTLS(), old, ""},
	} {
		s, cl := shake(t, c.server, c.client)
		err := errors.Join(s, cl)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.want != "" && (cl == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want an error with %q", c.what, err, c.want)
		}
	}
}

// insecure does not look at the server, so that the server's refusal is seen.
func insecure(c *tls.Config) *tls.Config {
	c.VerifyConnection = nil
	return c
}

func TestRenewalIsSeenWithoutRestart(t *testing.T) {
	id, ca, _ := founded(t, "olivo", "master")
	other, err := Load(id.Dir()) // another process of the host
	must(t, err)
	now := time.Now()
	if done, err := id.Renew(ca, now, func(cluster.Certificate) error { return nil }); done || err != nil {
		t.Fatalf("renewed a fresh certificate: %v, %v", done, err)
	}
	first := id.NotAfter()
	later := now.Add(hostLifetime * 2 / 3)
	if !id.NeedsRenewal(later.Add(24 * time.Hour)) {
		t.Fatal("no renewal wanted with less than a third left")
	}
	done, err := id.Renew(ca, later.Add(24*time.Hour), func(cluster.Certificate) error { return nil })
	must(t, err)
	if !done || !id.NotAfter().After(first) {
		t.Fatalf("renewed: %v; valid until %v, before until %v", done, id.NotAfter(), first)
	}
	if got, want := hostsOf(id.cert.Load().Leaf), hostsOf(other.cert.Load().Leaf); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("renewal changed the names: %v, before %v", got, want)
	}
	cfg := other.PublicTLS()
	other.mu.Lock()
	other.looked = time.Now().Add(-lookEvery) // its next look is due
	other.mu.Unlock()
	c, err := cfg.GetCertificate(nil)
	must(t, err)
	if !c.Leaf.NotAfter.Equal(id.NotAfter()) {
		t.Error("the other process still serves the old certificate")
	}
}

func TestBadRenewalIsIgnored(t *testing.T) {
	id, _, _ := founded(t, "olivo", "master")
	good, err := os.ReadFile(filepath.Join(id.Dir(), fileCert))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(id.Dir(), fileCert), good[:len(good)/2], 0o644))
	id.looked = time.Time{}
	if c := id.certificate(); c == nil || c.Leaf.Subject.CommonName != "master" {
		t.Error("a damaged file took the good certificate away")
	}
	stranger, _, _ := founded(t, "olivo", "master")
	theirs, err := os.ReadFile(filepath.Join(stranger.Dir(), fileCert))
	must(t, err)
	if err := id.InstallCertificate(theirs); err == nil {
		t.Error("installed a certificate of another authority")
	}
}
