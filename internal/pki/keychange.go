package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"manada/internal/durable"
)

// A host's key and its certificate are two files, and PostgreSQL reads them as
// such. Both new ones are on disk, complete, before either takes its place; a
// change that was interrupted between the two is finished by the next Load.
const (
	fileNextKey  = "host.key.next"
	fileNextCert = "host.crt.next"
)

// installPair replaces key and certificate.
func installPair(dir string, key *ecdsa.PrivateKey, cert []byte) error {
	text, err := keyPEM(key)
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair(cert, text); err != nil {
		return err
	}
	if err := writeFile(dir, fileNextKey, text, 0o600); err != nil {
		return err
	}
	if err := writeFile(dir, fileNextCert, cert, 0o644); err != nil {
		return err
	}
	return finishKeyChange(dir)
}

// finishKeyChange moves a new pair into its place. A key without its
// certificate, which was not signed yet, stays for the next try.
func finishKeyChange(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	cert, err := os.ReadFile(at(fileNextCert))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	key, err := os.ReadFile(at(fileNextKey))
	if errors.Is(err, os.ErrNotExist) { // it is in its place already
		key, err = os.ReadFile(at(fileKey))
	}
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		return durable.Remove(at(fileNextCert)) // left over from an older change
	}
	if err := writeFile(dir, fileKey, key, 0o600); err != nil {
		return err
	}
	if err := writeFile(dir, fileCert, cert, 0o644); err != nil {
		return err
	}
	for _, f := range []string{fileNextCert, fileNextKey} {
		if err := durable.Remove(at(f)); err != nil {
			return err
		}
	}
	return nil
}

// nextKey is the key that a new certificate is to be made for: an answer that was
// lost is asked for again with the same.
func nextKey(dir string) (*ecdsa.PrivateKey, error) { return lastingKey(dir, fileNextKey) }

// lastingKey is the key in a file, made where there is none: it is on disk before
// it is used.
func lastingKey(dir, name string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err == nil {
		return parseKey(b)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(dir, name, text, 0o600)
}
