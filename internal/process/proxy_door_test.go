package process

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/store/storetest"
	"manada/internal/verb"
)

// A host with nothing but a proxy answers the herd: hosts read, data and witness hosts
// give orders, strangers and removed hosts get nowhere. A port that is taken is opened
// when it is free, and whoever calls knows that it is that host's proxy which answers.
func TestProxyAloneAnswersTheHerd(t *testing.T) {
	m := newMember(t)
	host := func(node, kind string) *pki.Identity {
		id, err := m.join(t, t.TempDir(), node, kind, m.token(t, time.Now().Add(time.Hour)))
		must(t, err)
		return id
	}
	pooler, other, data := host("pooler", pki.KindProxy), host("other", pki.KindProxy), host("pg2", pki.KindData)
	list, err := m.store.Registry(t.Context())
	must(t, err)
	must(t, pooler.Registry().Set(list))
	addr := storetest.FreePort(t)
	_, port, _ := net.SplitHostPort(addr)
	taken, err := net.Listen("tcp", addr)
	must(t, err)

	c := &config.Config{Cluster: "olivo", Node: "pooler", Roles: []string{"proxy"}, RunDir: t.TempDir(), Listen: "127.0.0.1"}
	c.Ports.Peer, _ = strconv.Atoi(port)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&proxyHost{cfg: c, id: pooler, log: slog.New(slog.DiscardHandler)}).servePeers(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	time.Sleep(50 * time.Millisecond)
	taken.Close()

	call := func(tlsOf *tls.Config, v verb.Verb) string {
		err := (&peer.Client{TLS: func(string) *tls.Config { return tlsOf.Clone() }, DialTimeout: 5 * time.Second}).Call(t.Context(), addr, "pooler", v, nil, nil)
		if err == nil {
			t.Fatal("there is no proxy behind it that could answer")
		}
		return err.Error()
	}
	const heard = "the proxy of pooler does not answer" // who was let in hears of the missing socket
	pause, _ := verb.Order("pause")
	for end := time.Now().Add(10 * time.Second); !strings.Contains(call(data.ProxyTLS("pooler"), verb.ProxyIndex), heard); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the port was not opened when it was free again")
		}
	}
	for _, x := range []struct {
		name string
		tls  *tls.Config
		verb verb.Verb
		says string
	}{
		{"a data host orders", data.ProxyTLS("pooler"), pause, heard},
		{"the founder shows", m.id.ProxyTLS("pooler"), verb.ProxyShow.At("pools"), heard},
		{"another proxy shows", other.ProxyTLS("pooler"), verb.ProxyShow.At("pools"), heard},
		{"another proxy orders", other.ProxyTLS("pooler"), pause, "other is a proxy and may not change the herd"},
		{"what only agents answer", data.ProxyTLS("pooler"), verb.Switchover, "pooler answers no POST /v1/switchover"},
		{"a proxy is no host that is believed", data.ClientTLS("pooler"), verb.ProxyIndex, "is a proxy: give the address of a data or witness host"},
		{"another proxy is expected", data.ProxyTLS("other"), verb.ProxyIndex, "not the proxy other"},
	} {
		if got := call(x.tls, x.verb); !strings.Contains(got, x.says) {
			t.Errorf("%s: %s, want %q", x.name, got, x.says)
		}
	}
	bare := data.ProxyTLS("pooler")
	bare.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	if got := call(bare, verb.ProxyIndex); strings.Contains(got, heard) {
		t.Errorf("somebody without a certificate was heard: %s", got)
	}
	_, err = m.store.UpdateRegistry(t.Context(), func(r *cluster.Registry) error { r.Remove("pg2"); return nil })
	must(t, err)
	list, err = m.store.Registry(t.Context())
	must(t, err)
	must(t, pooler.Registry().Set(list))
	if got := call(data.ProxyTLS("pooler"), pause); strings.Contains(got, heard) {
		t.Errorf("a removed host was heard: %s", got)
	}
}
