package process

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/pki"
	"manada/internal/store"
	"manada/internal/verb"
)

// line is a connection to a member's peers' port that stays open.
type line struct {
	*tls.Conn
	in *bufio.Reader
}

func (m *member) line(t *testing.T, id *pki.Identity) line {
	t.Helper()
	c, err := tls.Dial("tcp", m.addr, id.ClientTLSAny())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return line{c, bufio.NewReader(c)}
}

// ask is nil when the member answers on the same connection.
func (l line) ask() error {
	_ = l.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := l.Write([]byte("GET /v1/registry HTTP/1.1\r\nHost: pg1\r\n\r\n")); err != nil {
		return err
	}
	r, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return errors.New(r.Status)
	}
	return nil
}

// short gives a host a registered certificate that has lived for age already.
func (m *member) short(t *testing.T, id *pki.Identity, life, age time.Duration) *pki.Identity {
	t.Helper()
	ca, err := m.openCA(t.Context())
	must(t, err)
	ca.Lifetime = life
	cert, err := ca.Resign(id.Certificate(), time.Now().Add(-age))
	must(t, err)
	c, err := pki.Registered(cert)
	must(t, err)
	_, err = m.register(t.Context(), c)
	must(t, err)
	must(t, id.InstallCertificate(cert))
	return id
}

// Certificates and tokens end while everything runs. Who renews does so when a
// third is left, and nothing that is open is cut; who does not gets in nowhere any
// more.
func TestCertificatesEndWhileItRuns(t *testing.T) {
	const life, age = 21 * time.Second, 11 * time.Second
	m := newMember(t)
	join := func(node, kind string) *pki.Identity {
		t.Helper()
		id, err := m.join(t, t.TempDir(), node, kind, m.token(t, time.Now().Add(time.Hour)))
		must(t, err)
		return id
	}
	pooler, late := join("pooler", pki.KindProxy), join("late", pki.KindWitness)
	kept := []*pki.Identity{m.short(t, m.id, life, age), m.short(t, pooler, life, age)}
	m.short(t, late, life, age)
	var learned time.Time
	learn := func() { // as hosts do all the time
		if time.Since(learned) < registryEvery {
			return
		}
		learned = time.Now()
		for _, id := range []*pki.Identity{pooler, late} {
			must(t, id.Registry().Set(m.id.Registry().List()))
		}
	}
	learn()
	end, due := late.NotAfter(), pooler.RenewalDue()
	first := pooler.Certificate().SerialNumber
	if left := time.Until(due); left <= 0 || left > life*2/3-age {
		t.Fatalf("renewal is due in %s of %s", left, life)
	}
	token, once := m.token(t, end), m.token(t, end)
	_, err := m.join(t, t.TempDir(), "pg2", pki.KindData, once)
	must(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { m.keepCertificate(ctx) })
	wg.Go(func() {
		keepRenewing(ctx, pooler, m.log, func(ctx context.Context) error {
			_, err := renewThrough(ctx, pooler, map[string]string{"pg1": m.addr}, time.Now())
			return err
		})
	})
	open := map[string]line{"member": m.line(t, m.id), "proxy": m.line(t, pooler), "late": m.line(t, late)}
	var renewed time.Time
	for time.Now().Before(end.Add(time.Second)) {
		for who, l := range open {
			if err := l.ask(); err != nil {
				t.Fatalf("the open connection of the %s, %s after the renewal was due: %v", who, time.Since(due), err)
			}
		}
		learn()
		if err := m.call(t, pooler, verb.Facts); err != nil {
			t.Fatalf("a new connection, %s after the renewal was due: %v", time.Since(due), err)
		}
		if _, err := m.store.Nodes(ctx); err != nil {
			t.Fatalf("the store: %v", err)
		}
		if renewed.IsZero() && pooler.Certificate().SerialNumber.Cmp(first) != 0 {
			renewed = time.Now()
		}
		time.Sleep(100 * time.Millisecond)
	}
	if renewed.Before(due) || !renewed.Before(end) {
		t.Fatalf("renewed at %s; it was due at %s and ended at %s", renewed, due, end)
	}
	list, err := m.store.Registry(ctx)
	must(t, err)
	for _, id := range kept {
		if !id.NotAfter().After(end.Add(time.Hour)) {
			t.Errorf("%s was not renewed", id.Node())
		}
		c, err := pki.CertificateOf(id.Certificate())
		must(t, err)
		if _, ok := list.Find(c.Fingerprint); !ok {
			t.Errorf("the new certificate of %s is not registered", id.Node())
		}
		must(t, m.call(t, id, verb.Facts))
	}
	m.tooLate(t, late, open["late"], token)
}

// tooLate: the host whose certificate has ended gets in nowhere, and what it had
// open ends with the next change of the list; nor does the token's newcomer.
func (m *member) tooLate(t *testing.T, late *pki.Identity, open line, token string) {
	t.Helper()
	if err := m.call(t, late, verb.Facts); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("with a certificate that has ended: %v", err)
	}
	reads := func(id *pki.Identity) error {
		st, err := store.Open(t.Context(), store.Config{Cluster: "olivo", Endpoints: m.store.Endpoints(), TLS: id.ClientTLSAny()})
		must(t, err)
		defer st.Close()
		_, err = st.Nodes(t.Context())
		return err
	}
	if err := reads(m.id); err != nil {
		t.Errorf("the store with the renewed certificate: %v", err)
	}
	if reads(late) == nil {
		t.Error("the store with a certificate that has ended was read")
	}
	_, err := m.join(t, t.TempDir(), "pg3", pki.KindData, token)
	wantRefusal(t, err, pki.ErrTokenExpired, "the join token has expired: at ")
	if !strings.Contains(err.Error(), "manada node token") {
		t.Errorf("nothing is said of a new token: %v", err)
	}
	_, err = m.join(t, t.TempDir(), "pg3", pki.KindData, m.token(t, time.Now().Add(time.Hour)))
	must(t, err)
	for until := time.Now().Add(20 * time.Second); open.ask() == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("its open connection lives on")
		}
	}
}
