package process

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"manada/internal/config"
	"manada/internal/guardian"
	"manada/internal/pki"
	"manada/internal/store"
	"manada/internal/store/voter"
)

// Store runs this host's voter until ctx ends.
func Store(ctx context.Context, c *config.Config, log *slog.Logger) error {
	id, f, err := loadHost(c)
	if err != nil {
		return err
	}
	files := id.StoreFiles()
	sockets, _, err := guardian.SocketDir(c.RunDir, len("store-client.sock"))
	if err != nil {
		return err
	}
	cfg := voter.Config{
		Name: c.Node, Dir: c.StoreDir(), SocketDir: sockets,
		ServerTLS: id.StoreTLS(), Watch: func(l net.Listener) net.Listener { return id.Listener(l, log) },
		ListenClient: listenIP(c, c.Ports.StoreCli), ListenPeer: listenIP(c, c.Ports.StorePeer),
		AdvertiseClient: "https://" + c.AdvertiseOn(c.Ports.StoreCli),
		AdvertisePeer:   "https://" + c.AdvertiseOn(c.Ports.StorePeer),
		CertFile:        files.Cert, KeyFile: files.Key, CAFile: files.CA, AllowedHostname: files.AllowedHostname,
		Found: f.Founder, MayFound: func(context.Context) error { return mayFound(c, f) },
		Join: others(f.Endpoints, c.Addresses().Store), JoinTimeout: 2 * time.Minute, Log: log,
	}
	for {
		trust, err := noteTrust(c, id)
		if err != nil {
			return err
		}
		run, end := context.WithCancel(ctx)
		go func() { awaitOtherTrust(run, c, id, trust); end() }()
		err = voter.Run(run, cfg)
		end()
		if err != nil || ctx.Err() != nil {
			return err
		}
		log.Info("the voter starts again: the authorities that it believes have changed")
	}
}

// turn is how long a voter has to start again before the next one does, when
// nobody can say whether it has.
const turn = 5 * time.Second

// awaitOtherTrust returns when the voter is to start again because ca.crt has
// changed: etcd reads it only then. One host of the herd after the other, so that
// most of the votes are always there.
func awaitOtherTrust(ctx context.Context, c *config.Config, id *pki.Identity, trust string) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var due time.Time
	last := trust
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b, err := os.ReadFile(id.StoreFiles().CA)
		if err != nil {
			continue
		}
		if now := pki.TrustOf(b); now != last {
			last, due = now, time.Now().Add(turn*time.Duration(2+place(c)))
		}
		if last != trust && (time.Now().After(due) || askTurn(ctx, c, id, last)) {
			return
		}
	}
}

// askTurn asks the store whether this host's voter is the next to start again.
func askTurn(ctx context.Context, c *config.Config, id *pki.Identity, trust string) bool {
	st, err := store.Open(ctx, store.Config{Cluster: c.Cluster, Endpoints: []string{c.Addresses().Store}, TLS: id.ClientTLSAny()})
	if err != nil {
		return false
	}
	defer st.Close()
	b, err := st.Secret(ctx)
	if err != nil {
		return false
	}
	v, err := pki.ReadVault(b)
	if err != nil {
		return false
	}
	s, err := st.Status(ctx)
	return err == nil && inTurn(v, s, c.Node, trust)
}

// inTurn says whether all voters before this one, by name, have started again and
// every voter is up: the herd can do without this one for a moment.
func inTurn(v *pki.Vault, s store.Status, node, trust string) bool {
	late := v.Voters()
	return v.Trust() == trust && len(late) > 0 && late[0] == node && s.Up == s.Voters
}

// place is this host's among the herd's members, by name.
func place(c *config.Config) int {
	f, err := ReadFacts(c)
	if err != nil {
		return 0
	}
	n := 0
	for name := range f.Peers {
		if name < c.Node {
			n++
		}
	}
	return n
}

func listenIP(c *config.Config, port int) string {
	host := c.Listen
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, fmt.Sprint(port))
}

func others(urls []string, self string) []string {
	var out []string
	for _, u := range urls {
		if u != self {
			out = append(out, u)
		}
	}
	return out
}

// mayFound: a new store is founded only where nothing of the herd exists yet
// (C6): this host has obeyed no epoch, and no other voter is known.
func mayFound(c *config.Config, f Facts) error {
	high, err := store.OpenHighWater(filepath.Join(c.StateDir(), "store-highwater.json"))
	if err != nil {
		return err
	}
	if e := high.Marks().Epoch; e > 0 {
		return fmt.Errorf("this host has obeyed epoch %d of this herd, so there was a store before; its folder %s is empty now. Bring the other voters up and let this one join anew: remove %s and `manada join`", e, c.StoreDir(), c.IdentityDir())
	}
	if n := len(others(f.Endpoints, c.Addresses().Store)); n > 0 {
		return fmt.Errorf("%d other voters of this herd are known: this host joins them", n)
	}
	return nil
}
