package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	pool *x509.CertPool
	ca   *x509.Certificate

	cert   atomic.Pointer[tls.Certificate]
	mu     sync.Mutex // guards what follows
	stamp  fileStamp
	looked time.Time
}

// lookEvery bounds how often a handshake looks for a renewed certificate.
const lookEvery = 5 * time.Second

type fileStamp struct {
	mod  time.Time
	size int64
}

// Load reads an identity directory.
func Load(dir string) (*Identity, error) {
	id := &Identity{dir: dir, pool: x509.NewCertPool()}
	err := readJSON(dir, fileIdentity, &id.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("load identity: %s holds none; this host has not founded or joined a herd yet: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	pemCA, err := os.ReadFile(filepath.Join(dir, fileCA))
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	if id.ca, err = parseCert(pemCA); err != nil {
		return nil, fmt.Errorf("load identity: %s: %w", filepath.Join(dir, fileCA), err)
	}
	id.pool.AddCert(id.ca)
	if err := id.Reload(); err != nil {
		return nil, err
	}
	return id, nil
}

// Reload reads the host's certificate and key again. On error the identity
// keeps what it had.
func (id *Identity) Reload() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.reload()
}

func (id *Identity) reload() error {
	stamp, err := stampOf(filepath.Join(id.dir, fileCert))
	if err != nil {
		return fmt.Errorf("load identity: %w", err)
	}
	c, err := tls.LoadX509KeyPair(filepath.Join(id.dir, fileCert), filepath.Join(id.dir, fileKey))
	if err != nil {
		return fmt.Errorf("load identity from %s: %w", id.dir, err)
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return fmt.Errorf("load identity from %s: %w", id.dir, err)
		}
	}
	n, err := NameOf(c.Leaf)
	if err != nil {
		return fmt.Errorf("load identity from %s: %w", id.dir, err)
	}
	if n != id.name {
		return fmt.Errorf("load identity from %s: host.crt is of %v, identity.json of %v", id.dir, n, id.name)
	}
	if err := c.Leaf.CheckSignatureFrom(id.ca); err != nil {
		return fmt.Errorf("load identity from %s: host.crt is not signed by ca.crt: %w", id.dir, err)
	}
	id.cert.Store(&c)
	id.stamp, id.looked = stamp, time.Now()
	return nil
}

// certificate returns the newest certificate, looking at the file at most once
// in lookEvery. A file that cannot be used is ignored until it changes again:
// the old certificate is still good for a third of its life.
func (id *Identity) certificate() *tls.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	if time.Since(id.looked) >= lookEvery {
		id.looked = time.Now()
		if s, err := stampOf(filepath.Join(id.dir, fileCert)); err == nil && s != id.stamp {
			if id.reload() != nil {
				id.stamp = s
			}
		}
	}
	return id.cert.Load()
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
func (id *Identity) CAPEM() []byte { return certPEM(id.ca.Raw) }

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
	if !ca.Cert.Equal(id.ca) {
		return nil, errors.New("open key of the authority: the store holds another authority than this host's ca.crt")
	}
	return ca, nil
}

// Files are paths of PEM files.
type Files struct {
	CA, Cert, Key string
	// AllowedHostname is the alternative name that a client of the store has
	// to have in its certificate (etcd: TLSInfo.AllowedHostnames, for the
	// client and for the peer port). Only StoreFiles sets it.
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

// StoreFiles are those of the embedded etcd, client and peer side.
func (id *Identity) StoreFiles() Files {
	f := id.PostgresFiles()
	f.AllowedHostname = MemberName
	return f
}
