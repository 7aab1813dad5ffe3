package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/internal/verb"
)

func TestAnotherAuthorityIsRefused(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master").serve()
	a.beating(cluster.Beat{})
	stranger := newHerd(t, herdName, "slave").host("slave") // the same names
	stranger.SetPeers(map[string]string{"master": a.addr})
	err := stranger.cfg.Hub.cfg.dialer().listen(t.Context(), "master", a.addr, func([]byte) { t.Error("heard") })
	if err == nil || !strings.Contains(err.Error(), "not of this herd") {
		t.Errorf("dialling a host of another authority: %v", err)
	}
	// And the other way round: it shows its certificate to us.
	blind := stranger.id.ClientTLS("master")
	blind.VerifyConnection = nil
	if resp, err := get(t, blind, "GET", "https://"+a.addr+"/v1/view"); err == nil {
		resp.Body.Close()
		t.Errorf("a certificate of another authority was answered %s", resp.Status)
	}
	// Without any certificate all is refused but joining.
	none := &tls.Config{InsecureSkipVerify: true}
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/v1/view", 401}, {"GET", "/v1/beats", 401}, {"POST", "/v1/beats", 401}, {"POST", "/v1/x", 401}, {"POST", "/v1/join", 404}} {
		resp, err := get(t, none, c.method, "https://"+a.addr+c.path)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s without certificate: %s, want %d", c.method, c.path, resp.Status, c.want)
		}
	}
}

func TestAddressOfAnotherNodeIsNotHeard(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a, c := h.host("master").serve(), h.host("third")
	a.beating(cluster.Beat{})
	err := c.Hub.cfg.dialer().listen(t.Context(), "slave", a.addr, func([]byte) { t.Error("heard") })
	if err == nil || !strings.Contains(err.Error(), "is master, not slave") {
		t.Errorf("got %v", err)
	}
}

func TestBeatsUnderAnotherNameAreDropped(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master").serve()
	slave := h.id("slave", pki.KindData)
	// A pusher that claims to be somebody else than its certificate says.
	for _, c := range []struct {
		node, cluster, from string
		count               func(Stats) int64
	}{
		{"third", herdName, FromGuardian, func(s Stats) int64 { return s.WrongNode }},
		{"slave", "almendro", FromGuardian, func(s Stats) int64 { return s.WrongCluster }},
		{"slave", herdName, "oracle", func(s Stats) int64 { return s.Malformed }},
	} {
		cfg := testConfig(slave)
		cfg.Node, cfg.Cluster = c.node, c.cluster
		p := NewPusher(cfg)
		p.SetPeers(map[string]string{"master": a.addr})
		stop := beatEvery(t, 5*time.Millisecond, func() { p.Publish(cluster.Beat{From: c.from}) })
		eventually(t, "dropped and counted", func() bool { return c.count(a.Stats()) > 3 })
		stop()
		p.Close()
	}
	if len(a.Heard())+len(a.HeardGuardian()) != 0 || a.Stats().Accepted != 0 {
		t.Errorf("heard %v, %v", a.Heard(), a.HeardGuardian())
	}
}

func TestProxiesMayOnlyLook(t *testing.T) {
	h := newHerd(t, herdName, "master")
	change := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := CallerOf(r.Context())
		if !ok {
			t.Error("no caller")
		}
		var in struct{ To string }
		if !Take(w, r, &in) {
			return
		}
		if in.To == "nobody" {
			WriteError(w, fmt.Errorf("switch over: %w", Refuse(http.StatusConflict, "no_such_node", "manada status", "no node %q", in.To)))
			return
		}
		WriteJSON(w, map[string]string{"by": who.Node, "kind": who.Kind, "to": in.To})
	})
	a := h.host("master").serve(func(s *Server) { s.Handle(verb.Switchover, change) })
	a.beating(cluster.Beat{})
	ctx := t.Context()
	call := func(id *pki.Identity, in, out any) error {
		return (&Client{TLS: id.TLSFor, DialTimeout: 5 * time.Second}).Call(ctx, a.addr, "master", verb.Switchover, in, out)
	}
	var out map[string]string
	must(t, call(h.id("slave", pki.KindWitness), map[string]string{"to": "slave"}, &out))
	if out["by"] != "slave" || out["kind"] != pki.KindWitness || out["to"] != "slave" {
		t.Errorf("answer %v", out)
	}
	err := call(h.id("slave", pki.KindData), map[string]string{"to": "nobody"}, &out)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != "no_such_node" || e.Hint != "manada status" || e.Status != 409 {
		t.Errorf("refusal arrived as %#v", err)
	}
	err = call(h.id("slave", pki.KindData), "not an object", &out)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 400 {
		t.Errorf("bad request: %v", err)
	}
	proxy := h.id("pooler", pki.KindProxy)
	err = call(proxy, nil, &out)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeForbidden || e.Hint == "" {
		t.Errorf("a proxy's POST: %v", err)
	}
	rows, err := (&Client{TLS: proxy.TLSFor, DialTimeout: 5 * time.Second}).View(ctx, a.addr)
	must(t, err)
	if len(rows) != 1 || rows[0].Node != "master" {
		t.Errorf("a proxy's view: %+v", rows)
	}
}

func TestRemovedHostIsNotAdmitted(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master")
	a.cfg.Admit = func(c *x509.Certificate) error {
		if c.Subject.CommonName == "gone" {
			return errors.New("gone was removed from the herd")
		}
		return nil
	}
	a.serve()
	c := &Client{TLS: h.id("gone", pki.KindData).TLSFor, DialTimeout: 5 * time.Second}
	_, err := c.View(t.Context(), a.addr)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 403 || !strings.Contains(e.Message, "was removed") {
		t.Errorf("got %v", err)
	}
	c.TLS = h.id("slave", pki.KindData).TLSFor
	_, err = c.View(t.Context(), a.addr)
	must(t, err)
}

func TestNewcomerJoinsOverThePeerPort(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master")
	token, rec := pki.NewToken(time.Now())
	a.cfg.Join = pki.NewAuthority(pki.AuthorityConfig{
		Identity: a.id,
		CA:       func(context.Context) (*pki.CA, error) { return h.ca, nil },
		Tokens: func(_ context.Context, id string, change func(*pki.TokenRecord) error) error {
			if id != rec.ID {
				return pki.ErrNoToken
			}
			return change(&rec)
		},
	})
	a.serve()
	a.beating(cluster.Beat{})
	j, err := pki.Join(t.Context(), []string{a.addr}, pki.JoinOptions{
		Dir: t.TempDir(), Cluster: herdName, Node: "slave", Kind: pki.KindData, Secret: token,
	})
	must(t, err)
	b := NewHub(testConfig(j.Identity))
	defer b.Close()
	b.SetPeers(map[string]string{"master": a.addr})
	eventually(t, "the newcomer hears the member", func() bool { return b.Heard()["master"].Beat.Seq > 0 })
}

// What curl sees.
func TestBeatsAreLinesOfJSON(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master").serve()
	a.beating(cluster.Beat{Term: &cluster.Term{Epoch: 4}, TermRev: 9})
	resp, err := get(t, h.id("slave", pki.KindData).ClientTLS("master"), "GET", "https://"+a.addr+"/v1/beats")
	must(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var b cluster.Beat
		must(t, json.Unmarshal(lines.Bytes(), &b))
		if b.Node != "master" || b.TermRev != 9 || (b.Term != nil) != (i == 0) {
			t.Errorf("line %d: %s (the term belongs into the first line only)", i, lines.Text())
		}
	}
}
