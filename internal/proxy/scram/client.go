package scram

import (
	"bytes"
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

var (
	// ErrStale means that PostgreSQL's verifier is no longer the one that the
	// keys belong to: the password was changed meanwhile.
	ErrStale = errors.New("scram: the server's verifier has changed")
	// ErrServer means that the server does not know the verifier: it is not the
	// server that it claims to be.
	ErrServer = errors.New("scram: the server's signature is wrong")
)

// Client logs in to PostgreSQL, by keys or by password. First, Final, Check.
type Client struct {
	keys     Keys
	password string
	nonce    string
	bare     string
	sig      Key
}

// NewKeyClient logs in with keys recovered by a Server.
func NewKeyClient(k Keys) *Client { return &Client{keys: k, nonce: newNonce()} }

// NewPasswordClient logs in with a password (ASCII).
func NewPasswordClient(password string) *Client {
	return &Client{password: password, nonce: newNonce()}
}

// First is the client-first-message. The user name is left empty, as libpq
// does: PostgreSQL takes it from the start-up packet.
func (c *Client) First() []byte {
	c.bare = "n=,r=" + c.nonce
	return []byte("n,," + c.bare)
}

// Final answers the server-first-message with the client-final-message.
func (c *Client) Final(msg []byte) ([]byte, error) {
	first := string(msg)
	f := strings.Split(first, ",")
	if len(f) < 3 || !strings.HasPrefix(f[0], "r="+c.nonce) || len(f[0]) == len("r="+c.nonce) ||
		!strings.HasPrefix(f[1], "s=") || !strings.HasPrefix(f[2], "i=") {
		return nil, malformed("server-first-message")
	}
	salt, err := base64.StdEncoding.DecodeString(f[1][2:])
	if err != nil {
		return nil, malformed("salt")
	}
	iter, err := strconv.Atoi(f[2][2:])
	if err != nil || iter < 1 {
		return nil, malformed("iteration count")
	}
	if c.keys.Verifier.Iterations == 0 {
		if c.keys, err = FromPassword(c.password, salt, iter); err != nil {
			return nil, err
		}
	}
	v := c.keys.Verifier
	if v.Iterations != iter || !bytes.Equal(v.Salt, salt) {
		return nil, ErrStale
	}
	bare := "c=biws," + f[0]
	auth := c.bare + "," + first + "," + bare
	c.sig = mac(v.ServerKey[:], auth)
	proof := xor(c.keys.Client, mac(v.StoredKey[:], auth))
	return []byte(bare + ",p=" + base64.StdEncoding.EncodeToString(proof[:])), nil
}

// Check verifies the server-final-message.
func (c *Client) Check(msg []byte) error {
	var sig Key
	v, ok := strings.CutPrefix(string(msg), "v=")
	if !ok || !decodeKey(&sig, v) {
		return malformed("server-final-message")
	}
	if !hmac.Equal(sig[:], c.sig[:]) {
		return ErrServer
	}
	return nil
}
