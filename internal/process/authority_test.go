package process

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/store"
	"manada/internal/store/storetest"
	"manada/internal/store/voter"
	"manada/internal/verb"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// member is the founding host of a herd with a real store, and its peers' port.
type member struct {
	*hostAgent
	addr string
}

func newMember(t *testing.T) *member {
	t.Helper()
	dir := t.TempDir()
	c := &config.Config{Cluster: "olivo", Node: "pg1", Roles: []string{"database", "store"}, DataDir: dir, Listen: "127.0.0.1", Advertise: "127.0.0.1"}
	sealed, err := pki.Found(c.IdentityDir(), c.Cluster, c.Node, c.Kind(), []string{"127.0.0.1"})
	must(t, err)
	id, err := pki.Load(c.IdentityDir())
	must(t, err)
	log := slog.New(slog.DiscardHandler)
	client, other := storetest.FreePort(t), storetest.FreePort(t)
	files := id.StoreFiles()
	v, err := voter.Start(t.Context(), voter.Config{
		Name: c.Node, Dir: c.StoreDir(), SocketDir: storetest.SocketDir(t), ListenClient: client, ListenPeer: other,
		AdvertiseClient: "https://" + client, AdvertisePeer: "https://" + other,
		CertFile: files.Cert, KeyFile: files.Key, CAFile: files.CA, AllowedHostname: files.AllowedHostname,
		ServerTLS: id.StoreTLS(), Watch: func(l net.Listener) net.Listener { return id.Listener(l, log) },
		Found: true, MayFound: func(context.Context) error { return nil },
	})
	must(t, err)
	t.Cleanup(func() { v.Close() })
	st, err := store.Open(t.Context(), store.Config{Cluster: c.Cluster, Endpoints: []string{"https://" + client}, TLS: id.ClientTLSAny()})
	must(t, err)
	t.Cleanup(func() { st.Close() })
	hub := peer.NewHub(peer.Config{Cluster: c.Cluster, Node: c.Node, Kind: c.Kind(), TLS: id.ClientTLS, Log: log})
	t.Cleanup(hub.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	m := &member{&hostAgent{cfg: c, id: id, store: st, hub: hub, repo: &repository{cfg: c, id: id, log: log}, log: log, facts: Facts{Founder: true}}, l.Addr().String()}
	_, err = m.openRegistry(t.Context())
	must(t, err)
	must(t, st.CreateSecret(t.Context(), sealed))
	m.secrets = m.keeper()
	authority := m.authority()
	srv := peer.NewServer(peer.ServerConfig{Self: id.Name(), Hub: hub, TLS: id.ServerTLSOptionalClient(), Join: authority, Admit: m.admit(t.Context()),
		Watch: func(l net.Listener) net.Listener { return id.Listener(l, log) }, Log: log})
	m.mount(srv, authority)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-ended })
	return m
}

// token makes one that is good until then.
func (m *member) token(t *testing.T, until time.Time) string {
	t.Helper()
	text, rec := pki.NewToken(until.Add(-pki.TokenLifetime))
	data, err := json.Marshal(rec)
	must(t, err)
	must(t, m.store.CreateToken(t.Context(), store.Token{ID: rec.ID, Data: data, Expires: rec.Expires}))
	return text
}

func (m *member) join(t *testing.T, dir, node, kind, token string) (*pki.Identity, error) {
	t.Helper()
	j, err := pki.Join(t.Context(), []string{m.addr}, pki.JoinOptions{Dir: dir, Cluster: "olivo", Node: node, Kind: kind, Hosts: []string{"127.0.0.1"}, Secret: token})
	if err != nil {
		return nil, err
	}
	return j.Identity, nil
}

func (m *member) call(t *testing.T, id *pki.Identity, v verb.Verb) error {
	t.Helper()
	cl := peer.Client{TLS: func(string) *tls.Config { return id.ClientTLSAny() }, DialTimeout: 5 * time.Second}
	return cl.Call(t.Context(), m.addr, "", v, nil, nil)
}

func wantRefusal(t *testing.T, err, want error, text string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want %v with %q", err, want, text)
	}
}

func TestTokensStayUntilTheyExpire(t *testing.T) {
	m := newMember(t)
	good := m.token(t, time.Now().Add(time.Hour))
	dir := t.TempDir()
	first, err := m.join(t, dir, "pg2", pki.KindData, good)
	must(t, err)
	must(t, m.call(t, first, verb.Facts))
	// Somebody else is told that it was used, and by whom.
	_, err = m.join(t, t.TempDir(), "pg3", pki.KindData, good)
	wantRefusal(t, err, pki.ErrTokenUsed, "by pg2")
	// The same newcomer, whose answer got lost, asks again with its key.
	must(t, os.Remove(filepath.Join(dir, "identity.json")))
	_, err = m.join(t, dir, "pg2", pki.KindData, good)
	must(t, err)
	// A refusal costs nobody a token.
	next := m.token(t, time.Now().Add(time.Hour))
	_, err = m.join(t, t.TempDir(), "pg1", pki.KindData, next)
	wantRefusal(t, err, pki.ErrNotAllowed, "this host")
	_, err = m.join(t, t.TempDir(), "pg3", pki.KindData, next)
	must(t, err)
	// An expired one is not called unknown, and an unknown one not expired.
	_, err = m.join(t, t.TempDir(), "pg4", pki.KindData, m.token(t, time.Now().Add(-time.Minute)))
	wantRefusal(t, err, pki.ErrTokenExpired, "")
	unknown, _ := pki.NewToken(time.Now())
	_, err = m.join(t, t.TempDir(), "pg4", pki.KindData, unknown)
	wantRefusal(t, err, pki.ErrWrongSecret, "")
}

func TestNamesOfOtherHosts(t *testing.T) {
	m := newMember(t)
	join := func(node string) (*pki.Identity, error) {
		return m.join(t, t.TempDir(), node, pki.KindData, m.token(t, time.Now().Add(time.Hour)))
	}
	old, err := join("pg2")
	must(t, err)
	register := func() error {
		return m.store.PutNode(t.Context(), store.Node{Name: "pg2", Kind: "data", Addrs: cluster.Addresses{Peer: "192.0.2.9:7400"}})
	}
	must(t, register())
	must(t, m.call(t, old, verb.Facts))
	// It is down, but belongs to the herd.
	_, err = join("pg2")
	wantRefusal(t, err, pki.ErrNotAllowed, "manada node remove pg2")
	if err := sameName("pg2", true); !strings.Contains(err.Error(), "answers") {
		t.Fatalf("the name of a host that answers: %v", err)
	}
	// Removed: its old identity is good for nothing, its name is free again.
	must(t, m.store.RemoveNode(t.Context(), "pg2"))
	m.askRegistry(t.Context(), 0)
	if err := m.call(t, old, verb.Facts); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Fatalf("a removed host was answered: %v", err)
	}
	if err := m.call(t, old, verb.Renew); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Fatalf("a removed host's certificate was renewed: %v", err)
	}
	if err := register(); !errors.Is(err, store.ErrRemoved) {
		t.Fatalf("a removed host registered: %v", err)
	}
	fresh, err := join("pg2")
	must(t, err)
	must(t, m.call(t, fresh, verb.Facts)) // at once, whatever this member still remembers
	must(t, register())
}

func TestRenewal(t *testing.T) {
	m := newMember(t)
	pooler, err := m.join(t, t.TempDir(), "pooler", pki.KindProxy, m.token(t, time.Now().Add(time.Hour)))
	must(t, err)
	peers := map[string]string{"gone": storetest.FreePort(t), "pg1": m.addr}
	if done, err := renewThrough(t.Context(), pooler, peers, time.Now()); done || err != nil {
		t.Fatalf("renewed too early: %v %v", done, err)
	}
	late := time.Now().Add(300 * 24 * time.Hour)
	serial := func(id *pki.Identity) string {
		must(t, id.Reload())
		b, err := os.ReadFile(id.PostgresFiles().Cert)
		must(t, err)
		return string(b)
	}
	before := serial(pooler)
	if done, err := renewThrough(t.Context(), pooler, peers, late); !done || err != nil {
		t.Fatalf("a proxy was not renewed: %v %v", done, err)
	}
	if serial(pooler) == before {
		t.Fatal("the same certificate")
	}
	must(t, m.call(t, pooler, verb.Facts))
	before = serial(m.id)
	if done, err := m.renew(t.Context(), late); !done || err != nil {
		t.Fatalf("a member was not renewed: %v %v", done, err)
	}
	if serial(m.id) == before {
		t.Fatal("the same certificate")
	}
	if done, err := renewThrough(t.Context(), pooler, map[string]string{"gone": peers["gone"]}, late); done || err == nil {
		t.Fatal("renewed by nobody")
	}
}

func TestStoreKeepsProxiesOut(t *testing.T) {
	m := newMember(t)
	for kind, good := range map[string]bool{pki.KindProxy: false, pki.KindWitness: true} {
		id, err := m.join(t, t.TempDir(), "a-"+kind, kind, m.token(t, time.Now().Add(time.Hour)))
		must(t, err)
		st, err := store.Open(t.Context(), store.Config{Cluster: "olivo", Endpoints: m.store.Endpoints(), TLS: id.ClientTLSAny()})
		must(t, err)
		_, err = st.Nodes(t.Context())
		if (err == nil) != good {
			t.Errorf("%s reads the store: %v", kind, err)
		}
		st.Close()
	}
}

// A newcomer that comes before the authority's key is in the store is asked to come
// again: its token is good.
func TestATokenBeforeTheKeyOfTheAuthority(t *testing.T) {
	h := newMember(t)
	ctx := t.Context()
	if err := h.store.CreateToken(ctx, store.Token{ID: "t1", Data: []byte("{}"), Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	early := fmt.Errorf("open the authority's key: %w", store.ErrNotFound)
	if err := h.tokens(ctx, "t1", func(*pki.TokenRecord) error { return early }); !errors.Is(err, early) {
		t.Errorf("the key is not there yet: %v", err)
	}
	if err := h.tokens(ctx, "t2", func(*pki.TokenRecord) error { return early }); !errors.Is(err, pki.ErrNoToken) {
		t.Errorf("no such token: %v", err)
	}
}
