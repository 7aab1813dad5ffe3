package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Mechanism is the only one offered and accepted.
const Mechanism = "SCRAM-SHA-256"

// DefaultIterations is PostgreSQL's own count, used for mock exchanges.
const DefaultIterations = 4096

// ErrMD5 means that the role's stored password is an md5 hash, from which no
// SCRAM exchange can be served.
var ErrMD5 = errors.New("the stored password is an md5 hash")

// Key is a SHA-256 sized key.
type Key = [sha256.Size]byte

// Verifier is what pg_authid.rolpassword holds: enough to check a client and to
// prove the server, not enough to log in elsewhere.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  Key
	ServerKey  Key
}

// Keys is what is known once a client has proved itself: enough to log in as it
// where the same verifier is stored. Keep it in memory only.
type Keys struct {
	Client   Key
	Verifier Verifier
}

// ParseVerifier reads PostgreSQL's notation,
// SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.
// It returns ErrMD5 for an md5 hash.
func ParseVerifier(s string) (Verifier, error) {
	if strings.HasPrefix(s, "md5") && len(s) == 35 {
		return Verifier{}, ErrMD5
	}
	bad := errors.New("parse verifier: not in the form SCRAM-SHA-256$iterations:salt$stored:server")
	rest, ok := strings.CutPrefix(s, Mechanism+"$")
	if !ok {
		return Verifier{}, bad
	}
	head, keys, ok1 := strings.Cut(rest, "$")
	iter, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	if !ok1 || !ok2 || !ok3 {
		return Verifier{}, bad
	}
	v := Verifier{}
	var err error
	if v.Iterations, err = strconv.Atoi(iter); err != nil || v.Iterations < 1 {
		return Verifier{}, bad
	}
	if v.Salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(v.Salt) == 0 {
		return Verifier{}, bad
	}
	if !decodeKey(&v.StoredKey, stored) || !decodeKey(&v.ServerKey, server) {
		return Verifier{}, bad
	}
	return v, nil
}

// String is PostgreSQL's notation.
func (v Verifier) String() string {
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", Mechanism, v.Iterations, e(v.Salt), e(v.StoredKey[:]), e(v.ServerKey[:]))
}

// FromPassword derives the keys of a password. The password must be plain
// ASCII: it is not prepared (SASLprep).
func FromPassword(password string, salt []byte, iterations int) (Keys, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return Keys{}, fmt.Errorf("derive scram keys: %w", err)
	}
	k := Keys{Verifier: Verifier{Iterations: iterations, Salt: salt}}
	k.Client = mac(salted, "Client Key")
	k.Verifier.StoredKey = sha256.Sum256(k.Client[:])
	k.Verifier.ServerKey = mac(salted, "Server Key")
	return k, nil
}

// Matches says whether a verifier is of a password (plain ASCII). One that would
// cost seconds to find out is not.
func Matches(v Verifier, password string) bool {
	if v.Iterations > 100*DefaultIterations {
		return false
	}
	k, err := FromPassword(password, v.Salt, v.Iterations)
	return err == nil && hmac.Equal(k.Verifier.StoredKey[:], v.StoredKey[:]) && hmac.Equal(k.Verifier.ServerKey[:], v.ServerKey[:])
}

// Mock makes the verifier that is shown for a role that does not exist or has
// no password. The salt is the same at every attempt, as a real one would be.
// The count of iterations is the one with which passwords are stored now; 0:
// PostgreSQL's own.
func Mock(secret []byte, user string, iterations int) Verifier {
	if iterations <= 0 {
		iterations = DefaultIterations
	}
	m := mac(secret, "mock salt "+user)
	return Verifier{Iterations: iterations, Salt: m[:16]}
}

func decodeKey(k *Key, s string) bool {
	var text [(len(k) + 2) / 3 * 4]byte
	var out [(len(k) + 2) / 3 * 3]byte
	if len(s) != copy(text[:], s) {
		return false
	}
	n, err := base64.StdEncoding.Decode(out[:], text[:len(s)])
	if err != nil || n != len(k) {
		return false
	}
	*k = Key(out[:n])
	return true
}

// mac is HMAC-SHA-256 (RFC 2104), as crypto/hmac has it, without a dozen pieces of memory
// for each.
func mac(key []byte, s string) Key {
	var room [512]byte
	var pad [sha256.BlockSize]byte
	if len(key) > len(pad) {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	copy(pad[:], key)
	for i := range pad {
		pad[i] ^= 0x36
	}
	inner := sha256.Sum256(append(append(room[:0], pad[:]...), s...))
	for i := range pad {
		pad[i] ^= 0x36 ^ 0x5c
	}
	return sha256.Sum256(append(append(room[:0], pad[:]...), inner[:]...))
}

func xor(a, b Key) (c Key) {
	for i := range c {
		c[i] = a[i] ^ b[i]
	}
	return c
}
