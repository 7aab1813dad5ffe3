package pki

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"

	"manada/internal/cluster"
)

// Secrets are the passwords of PostgreSQL roles, by role.
type Secrets map[string]string

// Roles that get a generated password.
func secretRoles() []string {
	return []string{cluster.RoleSuperuser, cluster.RoleReplication, cluster.RoleRewind, cluster.RoleMonitor, cluster.RoleProxy}
}

func newSecrets() Secrets {
	s := Secrets{}
	for _, r := range secretRoles() {
		s[r] = randomText(24)
	}
	return s
}

// randomText gives n random bytes in letters, digits, - and _.
func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// For leaves only what a host of that kind may know. Data and witness hosts
// hold the kek and could sign themselves any certificate, so they know all; a
// proxy knows the two roles under which it connects.
func (s Secrets) For(kind string) Secrets {
	if kind != KindProxy {
		return maps.Clone(s)
	}
	out := Secrets{}
	for _, r := range []string{cluster.RoleProxy, cluster.RoleMonitor} {
		if p, ok := s[r]; ok {
			out[r] = p
		}
	}
	return out
}

type secretsFile struct {
	Schema    int     `json:"schema"`
	Passwords Secrets `json:"passwords"`
}

// ReadSecrets reads the passwords of an identity directory.
func ReadSecrets(dir string) (Secrets, error) {
	var f secretsFile
	err := readJSON(dir, fileSecrets, &f)
	if errors.Is(err, os.ErrNotExist) {
		return Secrets{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	return f.Passwords, nil
}

// WriteSecrets replaces the passwords of an identity directory, 0600.
func WriteSecrets(dir string, s Secrets) error {
	return writeJSON(dir, fileSecrets, secretsFile{Schema: 1, Passwords: s}, 0o600)
}

// NewPassword makes one that nobody guesses.
func NewPassword() string { return randomText(24) }
