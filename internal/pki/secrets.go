package pki

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"manada/internal/cluster"
)

// Secrets are the passwords of PostgreSQL roles, by role.
type Secrets map[string]string

// secretRoles get a generated password.
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
	if kind != KindProxy || s == nil {
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

// For is Secrets.For of all that is held.
func (h Held) For(kind string) Held {
	h.Passwords, h.Next = h.Passwords.For(kind), h.Next.For(kind)
	return h
}

// Held is what a host holds, the content of secrets.json.
type Held struct {
	Schema int `json:"schema"`
	// Generation is that of the newest secrets that were taken up here, 0 since
	// the founding. CertGeneration is that for which the host's key was made.
	Generation     uint64 `json:"generation,omitempty"`
	CertGeneration uint64 `json:"cert_generation,omitempty"`
	// Passwords are those that PostgreSQL has, and Next those that it gets as
	// soon as every host holds them; in between either may be right.
	Passwords Secrets `json:"passwords"`
	Next      Secrets `json:"next,omitempty"`
	// Mock is what the proxies show of roles that do not exist is made of. It is
	// no password and never changes, as the salts of roles that exist do not.
	Mock string `json:"mock,omitempty"`
	// Chosen are the roles whose password people gave: it is never changed by
	// a rotation.
	Chosen []string `json:"chosen,omitempty"`
}

// Candidates are the passwords of a role that may be right, the likeliest first.
func (h Held) Candidates(role string) []string {
	var out []string
	for _, s := range []Secrets{h.Passwords, h.Next} {
		if p, ok := s[role]; ok && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// ReadHeld reads what the host of an identity directory holds.
func ReadHeld(dir string) (Held, error) {
	h := Held{Schema: 1, Passwords: Secrets{}}
	err := readJSON(dir, fileSecrets, &h)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return h, fmt.Errorf("read secrets: %w", err)
	}
	return h, nil
}

func writeHeld(dir string, h Held) error {
	h.Schema = 1
	return writeJSON(dir, fileSecrets, h, 0o600)
}

// ReadSecrets reads the passwords of an identity directory that PostgreSQL has.
func ReadSecrets(dir string) (Secrets, error) {
	h, err := ReadHeld(dir)
	return h.Passwords, err
}

// GiveSecrets replaces the passwords of a host that has not started yet; those
// of the chosen roles were given by people.
func GiveSecrets(dir string, s Secrets, chosen []string) error {
	h, err := ReadHeld(dir)
	if err != nil {
		return err
	}
	h.Passwords, h.Chosen = s, chosen
	return writeHeld(dir, h)
}

// NewPassword makes one that nobody guesses.
func NewPassword() string { return randomText(24) }
