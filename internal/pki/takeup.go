package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// TakenUp says what TakeUp changed.
type TakenUp struct {
	Passwords bool // those that PostgreSQL has, or will have
	Trust     bool // ca.crt or the chain in host.crt
}

// TakeUp makes this host hold what the vault says, as far as it differs. It may
// be repeated at any time: the number of the generation is written last.
func (id *Identity) TakeUp(v *Vault) (TakenUp, error) {
	id.taking.Lock()
	defer id.taking.Unlock()
	done, err := id.takeUp(v)
	if err != nil {
		return done, fmt.Errorf("take up generation %d of the herd's secrets: %w", v.Generation, err)
	}
	if done.Trust {
		return done, id.Reload()
	}
	return done, nil
}

func (id *Identity) takeUp(v *Vault) (done TakenUp, err error) {
	held, err := ReadHeld(id.dir)
	if err != nil || held.Generation > v.Generation {
		return done, err
	}
	was := held
	if held.Generation < v.Generation {
		if held, err = id.unpack(v, held); err != nil {
			return done, err
		}
		done.Passwords = true
	}
	if done.Trust, err = id.believe(v); err != nil {
		return done, err
	}
	if !v.Spreading && held.Next != nil {
		held.Passwords, held.Next = held.Next, nil
		done.Passwords = true
	}
	if !done.Passwords {
		return done, nil
	}
	held.CertGeneration = was.CertGeneration
	return done, writeHeld(id.dir, held)
}

// unpack opens this host's parcel and keeps the kek in it.
func (id *Identity) unpack(v *Vault, held Held) (Held, error) {
	p, ok := v.Parcels[id.Node()]
	if !ok {
		return held, errors.New("there is no parcel for this host yet")
	}
	key, err := id.key()
	if err != nil {
		return held, err
	}
	var c contents
	if err := openWith(key, parcelName(id.Node(), v.Generation), p, &c); err != nil {
		return held, err
	}
	if len(c.KEK) > 0 {
		if err := writeFile(id.dir, fileKEK, c.KEK, 0o600); err != nil {
			return held, err
		}
	}
	return c.Held, nil
}

// believe writes ca.crt, and takes the former authority's word out of host.crt
// when it is not wanted any more.
func (id *Identity) believe(v *Vault) (changed bool, err error) {
	if v.Believed == "" {
		return false, nil
	}
	old, err := os.ReadFile(filepath.Join(id.dir, fileCA))
	if err != nil {
		return false, err
	}
	if string(old) != v.Believed {
		if err := writeFile(id.dir, fileCA, []byte(v.Believed), 0o644); err != nil {
			return false, err
		}
		changed = true
	}
	if c := id.cert.Load(); !v.Vouched && len(c.Certificate) > 1 {
		if err := writeFile(id.dir, fileCert, certPEM(c.Leaf.Raw), 0o644); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// key reads the host's private key.
func (id *Identity) key() (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(filepath.Join(id.dir, fileKey))
	if err != nil {
		return nil, err
	}
	return parseKey(b)
}

// Refresh is what a host asks another for: what it lacks of the herd's secrets,
// and a certificate for a new key. It is signed with the key of the host's
// registered certificate and needs no other proof, for that certificate may be
// of an authority that is believed no more.
type Refresh struct {
	Body []byte `json:"body"` // refreshBody, as it was signed
	Sig  []byte `json:"sig"`
}

// RefreshBody is what a Refresh says.
type RefreshBody struct {
	Node           string `json:"node"`
	Key            []byte `json:"key"` // public, PKIX
	Generation     uint64 `json:"generation"`
	CertGeneration uint64 `json:"cert_generation"`
	Store          string `json:"store,omitempty"` // as in Hold
	CSR            []byte `json:"csr,omitempty"`   // PEM; none: no certificate is wanted
}

// Refreshed is the answer.
type Refreshed struct {
	Vault *Vault `json:"vault"`
	Cert  string `json:"cert,omitempty"` // PEM
}

const refreshLabel = "manada refresh 1"

// NewRefresh makes a request; with certificate it asks for one, for the key that
// InstallRefreshed then puts in place.
func (id *Identity) NewRefresh(certificate bool, storeTrust string) (Refresh, error) {
	held, err := ReadHeld(id.dir)
	if err != nil {
		return Refresh{}, err
	}
	key, err := id.key()
	if err != nil {
		return Refresh{}, fmt.Errorf("ask for the herd's secrets: %w", err)
	}
	b := RefreshBody{Node: id.Node(), Generation: held.Generation, CertGeneration: held.CertGeneration, Store: storeTrust}
	if b.Key, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		return Refresh{}, fmt.Errorf("ask for the herd's secrets: %w", err)
	}
	if certificate {
		next, err := nextKey(id.dir)
		if err != nil {
			return Refresh{}, fmt.Errorf("ask for a certificate: %w", err)
		}
		req, err := requestWith(next, id.name, nil)
		if err != nil {
			return Refresh{}, err
		}
		b.CSR = req.CSR
	}
	var r Refresh
	if r.Body, err = json.Marshal(b); err != nil {
		return Refresh{}, err
	}
	hash := sha256.Sum256(append([]byte(refreshLabel), r.Body...))
	r.Sig, err = ecdsa.SignASN1(rand.Reader, key, hash[:])
	return r, err
}

// Open checks the signature. Whether the key is one of the node's registered
// certificates is the caller's to find out: key is how the list names it.
func (r Refresh) Open() (b RefreshBody, key string, err error) {
	if err := json.Unmarshal(r.Body, &b); err != nil {
		return b, "", fmt.Errorf("read a request for the herd's secrets: %w", err)
	}
	pub, err := publicKey(b.Key)
	if err != nil {
		return b, "", fmt.Errorf("read a request for the herd's secrets: %w", err)
	}
	hash := sha256.Sum256(append([]byte(refreshLabel), r.Body...))
	if !ecdsa.VerifyASN1(pub, hash[:], r.Sig) {
		return b, "", fmt.Errorf("the request for the secrets of %s is not signed by its key", b.Node)
	}
	return b, KeyDigest(b.Key), nil
}

// WantsCertificate says whether the vault asks this host for a new key.
func (id *Identity) WantsCertificate(v *Vault) (bool, error) {
	held, err := ReadHeld(id.dir)
	return held.CertGeneration < v.CertGeneration, err
}

// InstallRefreshed puts the new key and its certificate in place, and notes for
// which generation.
func (id *Identity) InstallRefreshed(pemCert []byte, generation uint64) error {
	id.taking.Lock()
	defer id.taking.Unlock()
	fail := func(err error) error { return fmt.Errorf("install new certificate: %w", err) }
	chain, err := parseCerts(pemCert)
	if err != nil {
		return fail(err)
	}
	key, err := nextKey(id.dir)
	if err != nil {
		return fail(err)
	}
	if n, err := NameOf(chain[0]); err != nil || n != id.name {
		return fail(fmt.Errorf("it is of %q, this host is %q", chain[0].Subject.CommonName, id.name.Node))
	}
	t, err := loadTrust(id.dir)
	if err != nil {
		return fail(err)
	}
	if err := t.believes(chain); err != nil {
		return fail(err)
	}
	if err := installPair(id.dir, key, pemCert); err != nil {
		return fail(err)
	}
	held, err := ReadHeld(id.dir)
	if err != nil {
		return fail(err)
	}
	held.CertGeneration = generation
	if err := writeHeld(id.dir, held); err != nil {
		return fail(err)
	}
	return id.Reload()
}

// HasKey says whether this host's certificate is for that public key (PKIX).
func (id *Identity) HasKey(key []byte) bool {
	return bytes.Equal(id.certificate().Leaf.RawSubjectPublicKeyInfo, key)
}
