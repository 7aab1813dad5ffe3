package pki

import (
	"errors"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// The embedded etcd is configured with files and a name, not with our
// tls.Config: its own configuration has to keep proxies and strangers out.
func TestStoreAdmitsMembersOnly(t *testing.T) {
	master, ca, _ := founded(t, "olivo", "master")
	proxy, err := Issue(master, ca, filepath.Join(t.TempDir(), "p"), "pooler", KindProxy, nil)
	must(t, err)
	witness, err := Issue(master, ca, filepath.Join(t.TempDir(), "w"), "backup", KindWitness, nil)
	must(t, err)
	stranger, _, _ := founded(t, "olivo", "master")
	f := master.StoreFiles()
	info := transport.TLSInfo{
		CertFile: f.Cert, KeyFile: f.Key, TrustedCAFile: f.CA, ClientCertAuth: true,
		AllowedHostnames: []string{f.AllowedHostname},
	}
	for _, c := range []struct {
		who  *Identity
		want bool
	}{{witness, true}, {master, true}, {proxy, false}, {stranger, false}} {
		server, err := info.ServerConfig()
		must(t, err)
		s, cl := shake(t, server, insecure(c.who.ClientTLSAny()))
		if err := errors.Join(s, cl); (err == nil) != c.want {
			t.Errorf("%v: admitted %v, want %v (%v)", c.who.Name(), err == nil, c.want, err)
		}
	}
}
