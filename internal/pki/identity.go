package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Identity is a host's, loaded from its directory. Several processes of a host
// share the directory; each notices a renewed certificate by itself. Safe for
// concurrent use.
type Identity struct {
	dir  string
	name Name

	registry *Registry

	cert   atomic.Pointer[tls.Certificate]
	trust  atomic.Pointer[trust]
	taking sync.Mutex // one change of the directory's secrets at a time
	mu     sync.Mutex // guards what follows
	stamp  fileStamp
	looked time.Time
}

// lookEvery bounds how often a handshake looks for a new certificate and new
// authorities.
const lookEvery = time.Second

type fileStamp struct {
	mod  time.Time
	size int64
}

// Load reads an identity directory.
func Load(dir string) (*Identity, error) {
	id := &Identity{dir: dir}
	err := readJSON(dir, fileIdentity, &id.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("load identity: %s holds none; this host has not founded or joined a herd yet: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	if err := finishKeyChange(dir); err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	if err := id.Reload(); err != nil {
		return nil, err
	}
	if id.registry, err = openRegistry(dir); err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	return id, nil
}

// Reload reads the authorities and the host's certificate and key again. On
// error the identity keeps what it had.
func (id *Identity) Reload() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.reload()
}

func (id *Identity) reload() error {
	t, err := loadTrust(id.dir)
	if err != nil {
		return fmt.Errorf("load identity: %w", err)
	}
	stamp, err := stampOf(filepath.Join(id.dir, fileCert))
	if err != nil {
		return fmt.Errorf("load identity: %w", err)
	}
	c, err := tls.LoadX509KeyPair(filepath.Join(id.dir, fileCert), filepath.Join(id.dir, fileKey))
	if err != nil {
		return fmt.Errorf("load identity from %s: %w", id.dir, err)
	}
	chain := make([]*x509.Certificate, len(c.Certificate))
	for i, der := range c.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("load identity from %s: %w", id.dir, err)
		}
	}
	c.Leaf = chain[0]
	n, err := NameOf(c.Leaf)
	if err != nil {
		return fmt.Errorf("load identity from %s: %w", id.dir, err)
	}
	if n != id.name {
		return fmt.Errorf("load identity from %s: host.crt is of %v, identity.json of %v", id.dir, n, id.name)
	}
	// Authorities that this certificate is none of are believed all the same:
	// the host gets a certificate of theirs next (Refresh).
	id.trust.Store(t)
	id.cert.Store(&c)
	id.stamp, id.looked = stamp, time.Now()
	return nil
}

// look reads the files again when they have changed, at most once in lookEvery.
// A file that cannot be used is ignored until it changes again: the old
// certificate is still good for a third of its life.
func (id *Identity) look() {
	id.mu.Lock()
	defer id.mu.Unlock()
	if time.Since(id.looked) < lookEvery {
		return
	}
	id.looked = time.Now()
	cert, err := stampOf(filepath.Join(id.dir, fileCert))
	if err != nil {
		return
	}
	ca, err := stampOf(filepath.Join(id.dir, fileCA))
	if err != nil || cert == id.stamp && ca == id.trust.Load().stamp {
		return
	}
	if id.reload() != nil {
		id.stamp = cert
		t := *id.trust.Load()
		t.stamp = ca
		id.trust.Store(&t)
	}
}

// certificate returns the newest certificate.
func (id *Identity) certificate() *tls.Certificate {
	id.look()
	return id.cert.Load()
}

// believed are the authorities of now.
func (id *Identity) believed() *trust {
	id.look()
	return id.trust.Load()
}

func stampOf(path string) (fileStamp, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{fi.ModTime(), fi.Size()}, nil
}

// Name is who this host is.
func (id *Identity) Name() Name { return id.name }

// Cluster is the herd's name.
func (id *Identity) Cluster() string { return id.name.Cluster }

// Node is the host's name in the herd.
func (id *Identity) Node() string { return id.name.Node }

// Kind is "data", "witness" or "proxy".
func (id *Identity) Kind() string { return id.name.Kind }

// Dir is the directory.
func (id *Identity) Dir() string { return id.dir }

// NotAfter is when the host's certificate ends.
func (id *Identity) NotAfter() time.Time { return id.cert.Load().Leaf.NotAfter }

// CAPEM is the content of ca.crt.
func (id *Identity) CAPEM() []byte { return pemOf(id.believed().cas) }

// Orphaned says that none of the authorities of now has signed this host's
// certificate: it was off while they were changed, and Refresh is needed.
func (id *Identity) Orphaned() bool { return !id.trust.Load().signed(id.cert.Load().Leaf) }

// Registry is the list of the herd's certificates as this host knows it.
func (id *Identity) Registry() *Registry { return id.registry }

// Certificate is this host's own.
func (id *Identity) Certificate() *x509.Certificate { return id.certificate().Leaf }

// Secrets reads the roles' passwords from the directory.
func (id *Identity) Secrets() (Secrets, error) { return ReadSecrets(id.dir) }

// KEK reads the key-encryption key. A proxy has none.
func (id *Identity) KEK() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(id.dir, fileKEK))
	if errors.Is(err, os.ErrNotExist) && id.name.Kind == KindProxy {
		return nil, errors.New("read kek: a proxy has none; ask a data or witness host")
	}
	if err != nil {
		return nil, fmt.Errorf("read kek: %w", err)
	}
	return b, nil
}

// OpenCA opens the authority's key as the store holds it, with this host's kek,
// and checks that it is the authority that this host trusts.
func (id *Identity) OpenCA(sealedCAKey []byte) (*CA, error) {
	kek, err := id.KEK()
	if err != nil {
		return nil, err
	}
	ca, err := OpenCAKey(kek, sealedCAKey)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(id.believed().cas, ca.Cert.Equal) {
		return nil, errors.New("open key of the authority: the store holds another authority than this host's ca.crt")
	}
	return ca, nil
}

// Files are paths of PEM files.
type Files struct {
	CA, Cert, Key string
	// AllowedHostname is the alternative name that a voter has to have in its
	// certificate when another one calls it (etcd: TLSInfo.AllowedHostnames).
	// Only StoreFiles sets it.
	AllowedHostname string
}

// PostgresFiles are ssl_ca_file, ssl_cert_file and ssl_key_file.
func (id *Identity) PostgresFiles() Files {
	return Files{
		CA:   filepath.Join(id.dir, fileCA),
		Cert: filepath.Join(id.dir, fileCert),
		Key:  filepath.Join(id.dir, fileKey),
	}
}

// StoreFiles are those with which the embedded etcd calls the other voters;
// who calls it meets StoreTLS.
func (id *Identity) StoreFiles() Files {
	f := id.PostgresFiles()
	f.AllowedHostname = MemberName
	return f
}
