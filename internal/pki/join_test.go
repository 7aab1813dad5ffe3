package pki

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/cluster"
)

// tokenStore is the store's side of tokens.
type tokenStore struct {
	mu   sync.Mutex
	recs map[string]TokenRecord
}

func (s *tokenStore) change(_ context.Context, id string, change func(*TokenRecord) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.recs[id]
	if !ok {
		return ErrNoToken
	}
	// As JSON, as a real store keeps it.
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	var c TokenRecord
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	if err := change(&c); err != nil {
		return err
	}
	s.recs[id] = c
	return nil
}

// gate is a member that takes newcomers.
type gate struct {
	t      *testing.T
	id     *Identity
	ca     *CA
	addr   string
	auth   *Authority
	tokens *tokenStore
	caErr  error
	shared string
	deny   error
}

func newGate(t *testing.T) *gate {
	id, ca, _ := founded(t, "olivo", "master")
	g := &gate{t: t, id: id, ca: ca, tokens: &tokenStore{recs: map[string]TokenRecord{}}}
	g.auth = NewAuthority(AuthorityConfig{
		Identity:     id,
		CA:           func(context.Context) (*CA, error) { return g.ca, g.caErr },
		Tokens:       g.tokens.change,
		SharedSecret: func() (string, error) { return g.shared, nil },
		Allow:        func(context.Context, Newcomer) error { return g.deny },
		Register: func(_ context.Context, c cluster.Certificate) (cluster.Registry, error) {
			list := id.Registry().List()
			list.Rev++
			return list, errors.Join(list.Register(c, time.Now()), id.Registry().Set(list))
		},
		Facts: func(_ context.Context, n Newcomer) (any, error) {
			return map[string]any{"store": []string{"https://10.0.0.1:2379"}, "you": n.Node + "<&>"}, nil
		},
	})
	g.auth.pause = 0
	g.addr = serveTLS(t, id.ServerTLSOptionalClient(), g.auth)
	return g
}

func serveTLS(t *testing.T, c *tls.Config, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Handler: h, TLSConfig: c, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

func (g *gate) token(narrow ...string) string {
	tok, rec := NewToken(time.Now())
	if len(narrow) > 0 {
		rec.Kind = narrow[0]
	}
	g.tokens.recs[rec.ID] = rec
	return tok
}

func (g *gate) opts(node, kind, secret string) JoinOptions {
	return JoinOptions{
		Dir: filepath.Join(g.t.TempDir(), node), Cluster: "olivo", Node: node, Kind: kind,
		Hosts: []string{"db2.example.org"}, Secret: secret,
	}
}

func (g *gate) join(o JoinOptions) (*Joined, error) {
	return Join(g.t.Context(), []string{g.addr}, o)
}

func TestJoinWithToken(t *testing.T) {
	g := newGate(t)
	for _, clusterName := range []string{"olivo", ""} {
		o := g.opts("slave", KindData, g.token())
		o.Cluster = clusterName
		j, err := g.join(o)
		must(t, err)
		s, c := shake(t, g.id.ServerTLS(), j.Identity.ClientTLS("master"))
		must(t, errors.Join(s, c))
		s, c = shake(t, j.Identity.ServerTLS(), g.id.ClientTLS("slave"))
		must(t, errors.Join(s, c))
		if !strings.Contains(string(j.Facts), "10.0.0.1:2379") || j.Via != g.addr {
			t.Errorf("facts %s via %s", j.Facts, j.Via)
		}
		ours, _ := g.id.KEK()
		theirs, err := j.Identity.KEK()
		must(t, err)
		if string(ours) != string(theirs) {
			t.Error("the newcomer got another kek")
		}
		if sec, _ := j.Identity.Secrets(); len(sec) != 5 {
			t.Errorf("a data host got %d passwords, want 5", len(sec))
		}
		if err := j.Identity.cert.Load().Leaf.VerifyHostname("db2.example.org"); err != nil {
			t.Error(err)
		}
	}
}

func TestJoinAsProxyGetsLess(t *testing.T) {
	g := newGate(t)
	j, err := g.join(g.opts("pooler", KindProxy, g.token()))
	must(t, err)
	if _, err := os.Stat(filepath.Join(j.Identity.Dir(), fileKEK)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a proxy has a kek: %v", err)
	}
	if s, _ := j.Identity.Secrets(); len(s) != 2 {
		t.Errorf("a proxy got %d passwords, want 2", len(s))
	}
	if err := j.Identity.cert.Load().Leaf.VerifyHostname(MemberName); err == nil {
		t.Error("a proxy's certificate opens the store")
	}
}

func TestJoinWithSharedSecret(t *testing.T) {
	g := newGate(t)
	g.shared = "replication password\n"
	j, err := g.join(g.opts("slave", KindData, "replication password"))
	must(t, err)
	if j.Identity.Node() != "slave" {
		t.Errorf("joined as %s", j.Identity.Node())
	}
	_, err = g.join(g.opts("third", KindData, "Replication password"))
	refused(t, err, ErrWrongSecret)
	g.shared = ""
	_, err = g.join(g.opts("third", KindData, "replication password"))
	refused(t, err, ErrWrongSecret)
	_, err = g.join(g.opts("third", KindData, ""))
	if err == nil || !strings.Contains(err.Error(), "manada node token") {
		t.Errorf("an empty secret: %v", err)
	}
}

func refused(t *testing.T, err, want error) {
	t.Helper()
	je, ok := errors.AsType[*JoinError](err)
	if !ok || !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
		return
	}
	if je.Hint == "" && want != ErrNotAllowed {
		t.Errorf("%v: no hint", err)
	}
}

func TestJoinRefusals(t *testing.T) {
	g := newGate(t)
	good := g.token()
	wrong := good[:len(good)-1] + "a"
	if wrong == good {
		wrong = good[:len(good)-1] + "b"
	}
	_, err := g.join(g.opts("slave", KindData, wrong))
	refused(t, err, ErrWrongSecret)
	unknown, _ := NewToken(time.Now())
	_, err = g.join(g.opts("slave", KindData, unknown))
	refused(t, err, ErrWrongSecret)

	o := g.opts("slave", KindData, good)
	o.Cluster = "almendro"
	_, err = g.join(o)
	refused(t, err, ErrWrongCluster)

	g.deny = errors.New("slave is the name of a living host")
	_, err = g.join(g.opts("slave", KindData, good))
	refused(t, err, ErrNotAllowed)
	g.deny = nil

	_, err = g.join(g.opts("slave", KindData, g.token(KindProxy)))
	refused(t, err, ErrTokenNarrow)

	old, rec := NewToken(time.Now().Add(-TokenLifetime - time.Second))
	g.tokens.recs[rec.ID] = rec
	_, err = g.join(g.opts("slave", KindData, old))
	refused(t, err, ErrTokenExpired)

	_, err = g.join(g.opts("slave", KindData, good[:20]))
	if err == nil || !strings.Contains(err.Error(), "not whole") {
		t.Errorf("half a token: %v", err)
	}
	// None of that has used the good one up.
	o = g.opts("slave", KindData, good)
	_, err = g.join(o)
	must(t, err)
	_, err = g.join(g.opts("slave", KindData, good)) // another directory: another key
	refused(t, err, ErrTokenUsed)
	_, err = g.join(o)
	if !errors.Is(err, ErrExists) {
		t.Errorf("joining over an identity: %v", err)
	}
}

func TestMemberThatCannotSignKeepsTheToken(t *testing.T) {
	g := newGate(t)
	g.caErr = errors.New("store has no quorum: secret detail")
	tok := g.token()
	_, err := g.join(g.opts("slave", KindData, tok))
	refused(t, err, ErrNotNow)
	if strings.Contains(err.Error(), "secret detail") {
		t.Errorf("the member's inner error went out: %v", err)
	}
	g.caErr = nil
	_, err = g.join(g.opts("slave", KindData, tok))
	must(t, err)
}

func TestLostAnswerCostsNoToken(t *testing.T) {
	g := newGate(t)
	o := g.opts("slave", KindData, g.token())
	// A member whose answer never arrives.
	lossy := serveTLS(t, g.id.ServerTLSOptionalClient(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.auth.ServeHTTP(discard{}, r)
		panic(http.ErrAbortHandler)
	}))
	if _, err := Join(t.Context(), []string{lossy}, o); err == nil {
		t.Fatal("joined without an answer")
	}
	if ok, _ := Exists(o.Dir); ok {
		t.Fatal("an identity without an answer")
	}
	_, err := g.join(o) // as after a restart: only the directory is left
	must(t, err)
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// relay terminates TLS on both sides and passes everything on. seen ends it and
// returns what the target said.
func relay(t *testing.T, target string) (addr string, seen func() string) {
	t.Helper()
	evil, _, _ := founded(t, "olivo", "master") // the right names, its own authority
	return relayAs(t, target, evil.ServerTLSOptionalClient())
}

func relayAs(t *testing.T, target string, as *tls.Config) (addr string, seen func() string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", as)
	must(t, err)
	var said strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := tls.Dial("tcp", target, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				in.Close()
				continue
			}
			up := make(chan struct{})
			go func() { defer close(up); io.Copy(out, in); out.Close() }()
			io.Copy(io.MultiWriter(in, &said), out)
			in.Close()
			<-up
		}
	}()
	stop := func() { l.Close(); <-done }
	t.Cleanup(stop)
	return l.Addr().String(), func() string { stop(); return said.String() }
}

func TestManInTheMiddleGetsNothing(t *testing.T) {
	g := newGate(t)
	g.shared = "a shared secret"
	tok := g.token()
	for _, secret := range []string{tok, g.shared} {
		addr, seen := relay(t, g.addr)
		o := g.opts("slave", KindData, secret)
		_, err := Join(t.Context(), []string{addr}, o)
		refused(t, err, ErrWrongSecret) // what the member said of the relayed proof
		if !strings.Contains(err.Error(), "somebody may be in between") {
			t.Errorf("nothing is said of a man in the middle: %v", err)
		}
		if ok, _ := Exists(o.Dir); ok {
			t.Error("an identity through a man in the middle")
		}
		if s := seen(); !strings.Contains(s, "wrong_secret") || strings.Contains(s, "BEGIN CERT") || strings.Contains(s, "kek") {
			t.Errorf("the relay saw %q", s)
		}
	}
	_, err := g.join(g.opts("slave", KindData, tok)) // the token is unharmed
	must(t, err)
}

// A host that accepts every request but does not know the secret.
func TestImpostorIsNotBelieved(t *testing.T) {
	g := newGate(t)
	evil, evilCA, _ := founded(t, "olivo", "master")
	addr := serveTLS(t, evil.ServerTLSOptionalClient(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var env envelope
		var req joinRequest
		json.NewDecoder(r.Body).Decode(&env)
		json.Unmarshal(env.Body, &req)
		m, err := evil.sign(evilCA, []byte(req.CSR), Name{req.Cluster, req.Node, req.Kind}, req.Hosts)
		if err != nil {
			t.Error(err)
		}
		body, _ := json.Marshal(joinReply{CA: string(m.ca), Cert: string(m.cert), KEK: m.kek, Held: m.held})
		bind, _ := binding(r.TLS)
		b, _ := json.Marshal(envelope{Body: body, MAC: replyProof([]byte("guessed"), bind, env.MAC, body)})
		w.Write(b)
	}))
	o := g.opts("slave", KindData, g.token())
	_, err := Join(t.Context(), []string{addr}, o)
	if err == nil || !strings.Contains(err.Error(), "cannot prove") {
		t.Errorf("got %v", err)
	}
	if ok, _ := Exists(o.Dir); ok {
		t.Error("an identity from an impostor")
	}
	// The next address is a real member: it is tried too.
	j, err := Join(t.Context(), []string{addr, g.addr}, o)
	must(t, err)
	if j.Via != g.addr {
		t.Errorf("joined via %s", j.Via)
	}
}

func TestGuessingIsSlow(t *testing.T) {
	g := newGate(t)
	g.auth.pause = 150 * time.Millisecond
	o := g.opts("slave", KindData, "")
	o.Secret, _ = NewToken(time.Now())
	start := time.Now()
	_, err := g.join(o)
	refused(t, err, ErrWrongSecret)
	if d := time.Since(start); d < g.auth.pause {
		t.Errorf("a wrong secret was answered in %v", d)
	}
	for range perAddress { // every slot of this address is being held
		if _, ok := g.auth.slots.take("127.0.0.1:1"); !ok {
			t.Fatal("a slot is not free")
		}
	}
	_, err = g.join(g.opts("slave", KindData, g.token()))
	refused(t, err, ErrBusy)
}

// On a public port hosts are known by their certificate, others get in without
// one, and with one of another herd nobody.
func TestPublicTLSOptionalClient(t *testing.T) {
	g := newGate(t)
	other := newGate(t)
	addr := serveTLS(t, g.id.PublicTLSOptionalClient(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d %x", len(r.TLS.VerifiedChains), r.TLS.Version)
	}))
	get := func(c *tls.Config) (string, error) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + addr)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	stranger := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
	if got, err := get(stranger); err != nil || got != "0 303" {
		t.Errorf("without a certificate: %s, %v", got, err)
	}
	if got, err := get(g.id.ClientTLSAny()); err != nil || got != "1 304" {
		t.Errorf("a host: %s, %v", got, err)
	}
	foreign := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*other.id.cert.Load()}}
	if got, err := get(foreign); err == nil {
		t.Errorf("a host of another herd: %s", got)
	}
}

// Whoever guesses holds the slots of his own address only, and hanging up gives
// none of them back.
func TestSlots(t *testing.T) {
	var s slots
	var held []*slot
	for range perAddress {
		one, ok := s.take("10.0.0.1:5")
		if !ok {
			t.Fatal("no slot")
		}
		one.hold(time.Millisecond)
		held = append(held, one)
	}
	if _, ok := s.take("10.0.0.1:6"); ok {
		t.Error("one more of the address")
	}
	for i := range maxWorking {
		if _, ok := s.take(fmt.Sprintf("10.0.1.%d:5", i)); !ok {
			t.Errorf("another address is kept out, %d", i)
		}
	}
	if _, ok := s.take("10.0.2.1:5"); ok {
		t.Error("more at work than is good")
	}
	for _, one := range held {
		one.free()
	}
	if s.working != maxWorking || len(s.hosts) != maxWorking {
		t.Errorf("%d at work from %d addresses", s.working, len(s.hosts))
	}
}

func TestJoinAtAnotherPort(t *testing.T) {
	g := newGate(t)
	addr := serveTLS(t, g.id.PublicTLS(), http.NotFoundHandler())
	_, err := Join(t.Context(), []string{addr}, g.opts("slave", KindData, g.token()))
	if err == nil || !strings.Contains(err.Error(), "7400") {
		t.Errorf("got %v, want a hint at the port", err)
	}
}

func TestProxyRenewsThroughAMember(t *testing.T) {
	g := newGate(t)
	j, err := g.join(g.opts("pooler", KindProxy, g.token()))
	must(t, err)
	addr := serveTLS(t, g.id.ServerTLS(), g.auth.RenewHandler())
	before := j.Identity.cert.Load().Leaf.SerialNumber
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: j.Identity.ClientTLSAny(), DisableKeepAlives: true}}
	resp, err := c.Get("https://" + addr + "/v1/renew")
	must(t, err)
	defer resp.Body.Close()
	var r Renewed
	must(t, json.NewDecoder(resp.Body).Decode(&r))
	must(t, j.Identity.InstallCertificate([]byte(r.Cert)))
	leaf := j.Identity.cert.Load().Leaf
	if leaf.SerialNumber.Cmp(before) == 0 {
		t.Error("the certificate is the old one")
	}
	if n, err := NameOf(leaf); err != nil || n != j.Identity.Name() {
		t.Errorf("renewed as %v, %v", n, err)
	}
}
