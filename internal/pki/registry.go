package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"manada/internal/cluster"
)

// fileRegistry holds the list of good certificates as this host knows it. A
// host without it comes from a release that had none: its list is open.
const fileRegistry = "registry.json"

const (
	// registryLook is how often a listener compares its open connections with
	// the list, and the most that a check lags behind the file.
	registryLook = 250 * time.Millisecond
	// registryFresh is how old the host's last news of the list may be before
	// it believes a server that the list does not know: it may have been away
	// while all the others got new certificates, and then no one else can tell
	// it. A caller is never believed so.
	registryFresh = 30 * time.Second
)

// ErrNotRegistered is the refusal of a certificate that the herd's authority
// signed and that is not, or no longer, one of the herd's.
var ErrNotRegistered = errors.New("the certificate is not registered with the herd")

// CertificateOf says what the list of certificates keeps of one.
func CertificateOf(c *x509.Certificate) (cluster.Certificate, error) {
	n, err := NameOf(c)
	if err != nil {
		return cluster.Certificate{}, err
	}
	return cluster.Certificate{
		Fingerprint: digest(c.Raw), Serial: c.SerialNumber.Text(16), Key: digest(c.RawSubjectPublicKeyInfo),
		Node: n.Node, Kind: n.Kind, Hosts: hostsOf(c), NotAfter: c.NotAfter.UTC(), Own: true,
	}, nil
}

// Registered is CertificateOf of one in PEM.
func Registered(pemCert []byte) (cluster.Certificate, error) {
	c, err := parseCert(pemCert)
	if err != nil {
		return cluster.Certificate{}, err
	}
	return CertificateOf(c)
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Registry is the list of certificates as the processes of a host know it: a
// file of the identity directory, which the agent (on a host that is only a
// proxy: the proxy) keeps up to date and every process reads again when it
// changes. What a file of this host once refused stays refused on it, whatever
// it is told later. Safe for concurrent use.
type Registry struct {
	dir string

	mu      sync.Mutex // guards what follows
	stamp   fileStamp
	looked  time.Time
	list    cluster.Registry
	good    map[string]bool // by fingerprint
	refused map[string]bool
}

func openRegistry(dir string) (*Registry, error) {
	r := &Registry{dir: dir}
	return r, r.read()
}

// read reads the file again. Without one the list is open.
func (r *Registry) read() error {
	list := cluster.Registry{Schema: 1, Open: true}
	stamp, err := stampOf(filepath.Join(r.dir, fileRegistry))
	if err == nil {
		list.Open = false
		err = readJSON(r.dir, fileRegistry, &list)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the list of certificates: %w", err)
	}
	r.take(list)
	r.stamp, r.looked = stamp, time.Now()
	return nil
}

func (r *Registry) take(list cluster.Registry) {
	r.list, r.good, r.refused = list, map[string]bool{}, map[string]bool{}
	for _, c := range list.Good {
		r.good[c.Fingerprint] = true
	}
	for _, c := range list.Refused {
		r.refused[c.Fingerprint] = true
	}
}

// look reads the file again if it changed, at most once in registryLook. A file
// that cannot be read changes nothing: the last list goes on.
func (r *Registry) look() {
	if time.Since(r.looked) < registryLook {
		return
	}
	r.looked = time.Now()
	s, err := stampOf(filepath.Join(r.dir, fileRegistry))
	if err != nil || s == r.stamp {
		return
	}
	_ = r.read()
}

// List returns the list as this host knows it.
func (r *Registry) List() cluster.Registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	l := r.list
	l.Good, l.Refused = slices.Clone(l.Good), slices.Clone(l.Refused)
	return l
}

// Set is for the one process of a host that learns the list from the herd: it
// replaces the file when something changed and notes that the list is fresh.
func (r *Registry) Set(list cluster.Registry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.list.Refused {
		if time.Now().Before(c.NotAfter) && !slices.ContainsFunc(list.Refused, func(o cluster.Certificate) bool { return o.Fingerprint == c.Fingerprint }) {
			list.Refused = append(slices.Clip(list.Refused), c)
		}
	}
	path := filepath.Join(r.dir, fileRegistry)
	if list.Rev == r.list.Rev && len(list.Refused) == len(r.list.Refused) && !r.stamp.mod.IsZero() {
		now := time.Now()
		if err := os.Chtimes(path, now, now); err == nil {
			r.stamp, err = stampOf(path)
			return err
		}
	}
	if err := writeRegistry(r.dir, list); err != nil {
		return err
	}
	return r.read()
}

func writeRegistry(dir string, list cluster.Registry) error {
	b, err := json.Marshal(list)
	if err == nil {
		err = writeFile(dir, fileRegistry, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("keep the list of certificates: %w", err)
	}
	return nil
}

// Admit says whether the bearer of a certificate that TLS has verified may come
// in. The error says why not, and what to do if it should.
func (r *Registry) Admit(c *x509.Certificate) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	return r.admit(c, digest(c.Raw))
}

// Unknown says whether a certificate is admitted only because the list is open.
func (r *Registry) Unknown(c *x509.Certificate) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list.Open && !r.good[digest(c.Raw)]
}

func (r *Registry) admit(c *x509.Certificate, print string) error {
	switch {
	case r.refused[print]:
		return fmt.Errorf("%w: %s was removed from the herd, or got a new certificate since; to bring it back remove its data_dir and join anew: manada node token, manada join", ErrNotRegistered, c.Subject.CommonName)
	case r.good[print] || r.list.Open:
		return nil
	}
	return fmt.Errorf("%w: no member of the herd gave it to %s; if that is a host of yours remove its data_dir and join anew: manada node token, manada join", ErrNotRegistered, c.Subject.CommonName)
}

// admitServer is Admit for the certificate of a host that we called.
func (r *Registry) admitServer(c *x509.Certificate) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	print := digest(c.Raw)
	err := r.admit(c, print)
	if err != nil && !r.refused[print] && time.Since(r.stamp.mod) > registryFresh {
		return nil
	}
	return err
}

// Listener makes the connections of l end when the certificate that their
// caller showed is taken back. The server on it needs a TLS configuration of
// the same Identity.
func (id *Identity) Listener(l net.Listener, log *slog.Logger) net.Listener {
	w := &watched{Listener: l, registry: id.registry, log: log, open: map[*watchedConn]struct{}{}, done: make(chan struct{})}
	go w.watch()
	return w
}

type watched struct {
	net.Listener
	registry *Registry
	log      *slog.Logger
	done     chan struct{}
	once     sync.Once

	mu   sync.Mutex
	open map[*watchedConn]struct{}
}

// watchedConn is a connection whose caller is known once TLS has verified it.
type watchedConn struct {
	net.Conn
	of *watched

	mu   sync.Mutex
	cert *x509.Certificate
}

func (w *watched) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	wc := &watchedConn{Conn: c, of: w}
	w.mu.Lock()
	w.open[wc] = struct{}{}
	w.mu.Unlock()
	return wc, nil
}

func (w *watched) Close() error {
	w.once.Do(func() { close(w.done) })
	return w.Listener.Close()
}

func (c *watchedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (c *watchedConn) shown(cert *x509.Certificate) {
	c.mu.Lock()
	c.cert = cert
	c.mu.Unlock()
}

func (c *watchedConn) caller() *x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert
}

// watch closes the connections of callers that are not admitted any more.
func (w *watched) watch() {
	tick := time.NewTicker(registryLook)
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		w.mu.Lock()
		open := make([]*watchedConn, 0, len(w.open))
		for c := range w.open {
			open = append(open, c)
		}
		w.mu.Unlock()
		for _, c := range open {
			cert := c.caller()
			if cert == nil || w.registry.Admit(cert) == nil {
				continue
			}
			w.log.Warn("ended a connection of a host that is not of the herd any more", "peer", cert.Subject.CommonName, "remote", c.RemoteAddr().String())
			_ = c.Close()
		}
	}
}
