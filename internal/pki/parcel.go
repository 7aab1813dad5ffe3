package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
)

// Parcel is something that only one host can open: it is encrypted to the key
// of that host's certificate, so it may lie in the store and be handed to
// anybody.
type Parcel struct {
	// To is the hash of the host's public key, Eph the sender's one-time key
	// (P-256, uncompressed), Box AES-256-GCM under what the two agree on.
	To  []byte `json:"to"`
	Eph []byte `json:"eph"`
	Box []byte `json:"box"`
}

// contents of a host's parcel.
type contents struct {
	Held Held   `json:"held"`
	KEK  []byte `json:"kek,omitempty"`
}

// KeyHash names a public key: SHA-256 of its uncompressed point.
func KeyHash(pub *ecdsa.PublicKey) ([]byte, error) {
	k, err := pub.ECDH()
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256(k.Bytes())
	return h[:], nil
}

// sealTo encrypts v for the owner of a key. what says what it is and is
// needed to open it.
func sealTo(pub *ecdsa.PublicKey, what string, v any) (Parcel, error) {
	to, err := pub.ECDH()
	if err != nil {
		return Parcel{}, fmt.Errorf("seal %s: %w", what, err)
	}
	eph, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return Parcel{}, fmt.Errorf("seal %s: %w", what, err)
	}
	secret, err := eph.ECDH(to)
	if err != nil {
		return Parcel{}, fmt.Errorf("seal %s: %w", what, err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return Parcel{}, fmt.Errorf("seal %s: %w", what, err)
	}
	hash := sha256.Sum256(to.Bytes())
	p := Parcel{To: hash[:], Eph: eph.PublicKey().Bytes()}
	aead, err := parcelCipher(secret, p, what)
	if err != nil {
		return Parcel{}, fmt.Errorf("seal %s: %w", what, err)
	}
	// Each parcel has a key of its own, so the nonce may be fixed.
	p.Box = aead.Seal(nil, make([]byte, aead.NonceSize()), text, []byte(what))
	return p, nil
}

func openWith(key *ecdsa.PrivateKey, what string, p Parcel, v any) error {
	mine, err := KeyHash(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("open %s: %w", what, err)
	}
	if !bytes.Equal(mine, p.To) {
		return fmt.Errorf("open %s: %w", what, errNotOurs)
	}
	own, err := key.ECDH()
	if err != nil {
		return fmt.Errorf("open %s: %w", what, err)
	}
	eph, err := ecdh.P256().NewPublicKey(p.Eph)
	if err != nil {
		return fmt.Errorf("open %s: %w", what, err)
	}
	secret, err := own.ECDH(eph)
	if err != nil {
		return fmt.Errorf("open %s: %w", what, err)
	}
	aead, err := parcelCipher(secret, p, what)
	if err != nil {
		return fmt.Errorf("open %s: %w", what, err)
	}
	text, err := aead.Open(nil, make([]byte, aead.NonceSize()), p.Box, []byte(what))
	if err != nil {
		return fmt.Errorf("open %s: it is damaged or was meant for something else", what)
	}
	return json.Unmarshal(text, v)
}

var errNotOurs = errors.New("it is sealed for another key than this host's")

func parcelCipher(secret []byte, p Parcel, what string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, append(bytes.Clone(p.Eph), p.To...), "manada parcel 1 "+what, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
