package voter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"manada/internal/cluster"
)

// Config says what the voter is and where it listens.
type Config struct {
	// Name is the node's name.
	Name string
	// Dir is the voter's own folder (made with 0700): etcd's data lies in
	// Dir/etcd, what we know about it in Dir/voter.json.
	Dir string
	// ListenClient and ListenPeer are "IP:PORT" (or "localhost:PORT").
	ListenClient, ListenPeer string
	// ServerTLS says who may connect to either port; it must ask for
	// certificates. Watch, unless nil, wraps both listeners (to end
	// connections of whom ServerTLS would not let in any more).
	ServerTLS *tls.Config
	Watch     func(net.Listener) net.Listener
	// SocketDir is a folder that only this account can enter, for the sockets
	// between those ports and etcd; its path is short (see check).
	SocketDir string
	// AdvertiseClient and AdvertisePeer are the URLs under which others reach
	// it, "https://HOST:PORT". The peer URL must not change later.
	AdvertiseClient, AdvertisePeer string
	// CertFile, KeyFile and CAFile are for calling other voters. They are read
	// again at every handshake.
	CertFile, KeyFile, CAFile string
	// AllowedHostname is an alternative name that the certificate of a voter
	// that is called must carry; empty: any certificate of the CA is good.
	AllowedHostname string

	// Found allows this host to start a new store when it has no data. It is
	// harmless when there is data. MayFound must then be set: it is asked right
	// before founding and returns an error unless it knows that no host of the
	// herd has a store or a data directory with a term.
	Found    bool
	MayFound func(context.Context) error
	// Join are client URLs of running members, used when there is no data and
	// Found is false. A join that has to wait (for another newcomer, for the
	// members to have been healthy for 5 s) goes on until JoinTimeout (1 min).
	Join        []string
	JoinTimeout time.Duration
	// Recover makes this voter's data a store of one member, whatever the
	// others are. It forgets what only they knew: last resort when a quorum of
	// voters is gone for good.
	Recover bool

	// Heartbeat and Election default to 100 ms and 1 s. They should be the same
	// everywhere.
	Heartbeat, Election time.Duration
	// QuotaBytes limits the database; default 512 MiB.
	QuotaBytes int64

	// Log gets etcd's log, too: its info as debug.
	Log *slog.Logger

	joined bool // this start made it a learner
	// Ready is called once when the voter serves clients (optional).
	Ready func()
}

const (
	defaultQuota = 512 << 20
	// walSegment is what etcd preallocates for its log, twice; its own 64 MB
	// are meant for larger databases than some hundred kilobytes.
	walSegment = 16 << 20
)

func (c *Config) check() error {
	if err := cluster.CheckNodeName(c.Name); err != nil {
		return err
	}
	for what, v := range map[string]string{
		"folder": c.Dir, "client listener": c.ListenClient, "peer listener": c.ListenPeer,
		"certificate": c.CertFile, "key": c.KeyFile, "CA": c.CAFile, "folder for sockets": c.SocketDir,
	} {
		if v == "" {
			return fmt.Errorf("no %s given", what)
		}
	}
	for _, u := range []string{c.AdvertiseClient, c.AdvertisePeer} {
		if p, err := url.Parse(u); err != nil || p.Scheme != "https" || p.Port() == "" {
			return fmt.Errorf("advertised URL %q: want https://HOST:PORT", u)
		}
	}
	if c.ServerTLS == nil {
		return errors.New("no TLS configuration of its ports given")
	}
	if n := len(c.socket(clientSocket)); n > maxSocketPath {
		return fmt.Errorf("path of a socket in %s: %d bytes, the system allows %d", c.SocketDir, n, maxSocketPath)
	}
	if c.Found && c.MayFound == nil {
		return errors.New("founding wants MayFound, the check that there is no other store")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.Heartbeat, 100*time.Millisecond)
	setDefault(&c.Election, time.Second)
	setDefault(&c.JoinTimeout, time.Minute)
	setDefault(&c.QuotaBytes, defaultQuota)
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Names of the sockets, and the longest path of one.
const (
	clientSocket  = "store-client.sock"
	peerSocket    = "store-peer.sock"
	maxSocketPath = 107
)

func (c *Config) socket(name string) string { return filepath.Join(c.SocketDir, name) }

func (c *Config) dataDir() string { return filepath.Join(c.Dir, "etcd") }

// hasData says whether etcd has written its log here, which is the moment from
// which it has an identity.
func (c *Config) hasData() bool { return wal.Exist(filepath.Join(c.dataDir(), "member", "wal")) }

// etcd renders the configuration. initialCluster, state and token matter only
// to a server without data.
func (c *Config) etcd(initialCluster, state, token string) (*embed.Config, error) {
	e := embed.NewConfig()
	e.Name, e.Dir = c.Name, c.dataDir()
	// In Host, not in Path: for its peers etcd reads nothing else.
	e.ListenClientUrls = []url.URL{{Scheme: "unix", Host: c.socket(clientSocket)}}
	e.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: c.socket(peerSocket)}}
	e.AdvertiseClientUrls, e.AdvertisePeerUrls = mustURLs(c.AdvertiseClient), mustURLs(c.AdvertisePeer)
	e.InitialCluster, e.ClusterState, e.InitialClusterToken = initialCluster, state, token
	// A learner changes no quorum, so it need not wait until all members have been
	// connected for five seconds; who may be removed is looked at in package store.
	e.StrictReconfigCheck = false
	e.ForceNewCluster = c.Recover && c.hasData()

	// Only for calling others: who calls us meets the front.
	e.PeerTLSInfo.CertFile, e.PeerTLSInfo.KeyFile, e.PeerTLSInfo.TrustedCAFile = c.CertFile, c.KeyFile, c.CAFile
	if c.AllowedHostname != "" {
		e.PeerTLSInfo.AllowedHostnames = []string{c.AllowedHostname}
	}

	e.TickMs, e.ElectionMs = uint(c.Heartbeat.Milliseconds()), uint(c.Election.Milliseconds())
	e.QuotaBackendBytes = c.QuotaBytes
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, "1h" // M8
	e.BootstrapDefragThresholdMegabytes = 64
	e.SnapshotCount, e.SnapshotCatchUpEntries = 5000, 2000
	e.EnableGRPCGateway = false
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(c.Log))
	return e, nil
}

func mustURLs(s string) []url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // check has parsed it
	}
	return []url.URL{*u}
}

// clientTLS is what this voter itself calls the other members with.
func (c *Config) clientTLS() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the certificate: %w", err)
	}
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("load the CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("load the CA: %s holds no certificate", c.CAFile)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}
