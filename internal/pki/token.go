package pki

import (
	"context"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"manada/internal/cluster"
)

// TokenLifetime is how long a join token is good.
const TokenLifetime = time.Hour

const (
	tokenPrefix = "mt1"
	idBytes     = 5
	secretBytes = 20 // 160 bits: nothing is won by guessing offline
)

// TokenRecord is what the store keeps of a join token. Whoever reads it could
// join with it while it is good, as with the token itself; the store is only
// open to hosts of the herd.
type TokenRecord struct {
	Schema int    `json:"schema"`
	ID     string `json:"id"`
	// Verifier is the key with which both sides of a join prove that they know
	// the token.
	Verifier []byte    `json:"verifier"`
	Expires  time.Time `json:"expires"`
	// Kind and Node narrow what may join with it; empty: anything.
	Kind string `json:"kind,omitempty"`
	Node string `json:"node,omitempty"`
	// UsedBy is the node that joined with it and UsedKey the hash of the key
	// in its request: the same newcomer may ask again when the answer got lost.
	UsedBy  string     `json:"used_by,omitempty"`
	UsedAt  *time.Time `json:"used_at,omitempty"`
	UsedKey []byte     `json:"used_key,omitempty"`
}

// Tokens is the store's side of join tokens: it reads the record of a token,
// lets change modify it, and writes it back if nobody else did in between,
// else begins again. An error of change is returned as it is and nothing is
// written. A token that does not exist is ErrNoToken.
type Tokens func(ctx context.Context, id string, change func(*TokenRecord) error) error

// ErrNoToken is what Tokens returns for an id that the store does not know.
var ErrNoToken = errors.New("no such token")

var tokenText = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// NewToken makes a join token for one host, "mt1.<id>.<secret>", and what the
// store has to keep of it. The token itself is to be shown once.
func NewToken(now time.Time) (token string, rec TokenRecord) {
	b := make([]byte, idBytes+secretBytes)
	rand.Read(b) // never fails (crypto/rand)
	id, secret := tokenText.EncodeToString(b[:idBytes]), tokenText.EncodeToString(b[idBytes:])
	return tokenPrefix + "." + id + "." + secret, TokenRecord{
		Schema: 1, ID: id, Verifier: tokenKey(id, secret), Expires: now.Add(TokenLifetime).UTC(),
	}
}

// Narrow limits the token to a node, a kind, or both.
func (rec *TokenRecord) Narrow(node, kind string) error {
	if node != "" {
		if err := cluster.CheckNodeName(node); err != nil {
			return err
		}
	}
	switch kind {
	case "", KindData, KindWitness, KindProxy:
		rec.Node, rec.Kind = node, kind
		return nil
	}
	return fmt.Errorf("kind %q: want data, witness or proxy", kind)
}

// secret is what proves that a newcomer may join: the key, and which token it
// belongs to (none: the shared secret).
type secret struct {
	id  string
	key []byte
}

// parseSecret reads a token or takes the text for a shared secret.
func parseSecret(text, clusterName string) (secret, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, tokenPrefix+".") {
		if text == "" {
			return secret{}, errors.New("join secret is empty: give a token (manada node token, typed on a member) or join_secret_file")
		}
		if err := CheckShared(text); err != nil {
			return secret{}, err
		}
		return secret{key: sharedKey(text, clusterName)}, nil
	}
	part := strings.Split(text, ".")
	if len(part) != 3 || len(part[1]) != tokenText.EncodedLen(idBytes) || len(part[2]) != tokenText.EncodedLen(secretBytes) {
		return secret{}, errors.New("join token is not whole: want mt1.<8 characters>.<32 characters>, as manada node token printed it")
	}
	return secret{id: part[1], key: tokenKey(part[1], part[2])}, nil
}

func tokenKey(id, secret string) []byte {
	k, err := hkdf.Key(sha256.New, []byte(secret), []byte(id), "manada join token", sha256.Size)
	if err != nil {
		panic(fmt.Sprintf("pki: derive key of token: %v", err)) // only for absurd lengths
	}
	return k
}

// sharedRounds makes guessing a shared secret slow for a man in the middle,
// who gets one proof of a newcomer to guess against. People choose such
// secrets; a token needs no such thing. OWASP's figure for PBKDF2-SHA256.
var sharedRounds = 600_000 // tests lower it

// minShared is the shortest shared secret, in characters: a man in the middle who
// gets one proof may guess at it for as long as he likes, and joining is as good
// as any member's rights. It refuses what is really weak; a token is better.
const minShared = 8

// CheckShared refuses a shared secret that is too easily guessed.
func CheckShared(secret string) error {
	if n := len([]rune(strings.TrimSpace(secret))); n < minShared {
		return fmt.Errorf("the join secret has %d characters, fewer than %d: whoever guesses it becomes a host of the herd. Choose a longer one, the same on every host (join.secret_file; in containers REPMGR_PASSWORD)", n, minShared)
	}
	return nil
}

// lastShared is the key that was derived last: a newcomer asks again and again
// with the same secret.
var lastShared struct {
	sync.Mutex
	text, cluster string
	key           []byte
}

// SecretPrint tells one shared join secret from another, and is no use for
// joining.
func SecretPrint(secret, clusterName string) []byte {
	h := sha256.Sum256(append([]byte("print of "), sharedKey(strings.TrimSpace(secret), clusterName)...))
	return h[:]
}

func sharedKey(text, clusterName string) []byte {
	l := &lastShared
	l.Lock()
	defer l.Unlock()
	if l.key != nil && l.text == text && l.cluster == clusterName {
		return l.key
	}
	k, err := pbkdf2.Key(sha256.New, text, []byte("manada join secret of "+clusterName), sharedRounds, sha256.Size)
	if err != nil {
		panic(fmt.Sprintf("pki: derive key of join secret: %v", err)) // only for absurd lengths
	}
	l.text, l.cluster, l.key = text, clusterName, k
	return k
}
