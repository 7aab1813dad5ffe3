package scram

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrProof means that the password was wrong, or the role unknown: callers
	// must not tell these apart.
	ErrProof = errors.New("scram: wrong proof")
	// ErrChannelBinding means that the client insists on channel binding.
	ErrChannelBinding = errors.New("scram: channel binding was not offered")
)

// Server checks one client. First, then Final, once each.
type Server struct {
	v     Verifier
	known bool

	nonce      string
	gs2        string
	clientBare string
	first      string
}

// NewServer serves an exchange against a verifier. With known false (a mock
// verifier) the exchange runs as usual and ends in ErrProof whatever the proof.
func NewServer(v Verifier, known bool) *Server {
	return &Server{v: v, known: known, nonce: newNonce()}
}

// First answers the client-first-message with the server-first-message.
func (s *Server) First(msg []byte) ([]byte, error) {
	m := string(msg)
	flag, rest, ok := strings.Cut(m, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	switch {
	case !ok || !ok2:
		return nil, malformed("client-first-message")
	case strings.HasPrefix(flag, "p="):
		return nil, ErrChannelBinding
	case flag != "n" && flag != "y", authzid != "":
		return nil, malformed("channel binding flag")
	}
	user, rest, ok := strings.Cut(bare, ",")
	if !ok || !strings.HasPrefix(user, "n=") { // the name itself is ignored: the start-up packet's counts
		return nil, malformed("user name attribute")
	}
	nonce, _, _ := strings.Cut(rest, ",")
	nonce, ok = strings.CutPrefix(nonce, "r=")
	if !ok || !printable(nonce) {
		return nil, malformed("client nonce")
	}
	s.gs2 = flag + ",,"
	s.clientBare = bare
	s.nonce = nonce + s.nonce
	s.first = "r=" + s.nonce + ",s=" + base64.StdEncoding.EncodeToString(s.v.Salt) + ",i=" + strconv.Itoa(s.v.Iterations)
	return []byte(s.first), nil
}

// Final checks the client-final-message. It returns the server-final-message
// and the keys with which to log in as this client elsewhere.
func (s *Server) Final(msg []byte) ([]byte, Keys, error) {
	m := string(msg)
	i := strings.LastIndex(m, ",p=")
	if i < 0 || s.first == "" {
		return nil, Keys{}, malformed("client-final-message")
	}
	bare := m[:i]
	var proof Key
	if !decodeKey(&proof, m[i+3:]) {
		return nil, Keys{}, malformed("proof")
	}
	cbind, rest, ok := strings.Cut(bare, ",")
	if !ok || cbind != "c="+base64.StdEncoding.EncodeToString([]byte(s.gs2)) {
		return nil, Keys{}, malformed("channel binding")
	}
	nonce, _, _ := strings.Cut(rest, ",")
	if nonce != "r="+s.nonce {
		return nil, Keys{}, malformed("nonce")
	}
	auth := s.clientBare + "," + s.first + "," + bare
	client := xor(proof, mac(s.v.StoredKey[:], auth))
	stored := sha256.Sum256(client[:])
	if subtle.ConstantTimeCompare(stored[:], s.v.StoredKey[:]) != 1 || !s.known {
		return nil, Keys{}, ErrProof
	}
	sig := mac(s.v.ServerKey[:], auth)
	final := "v=" + base64.StdEncoding.EncodeToString(sig[:])
	return []byte(final), Keys{Client: client, Verifier: s.v}, nil
}

func malformed(what string) error { return fmt.Errorf("scram: malformed %s", what) }

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return false
		}
	}
	return s != ""
}

func newNonce() string {
	var b [18]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.StdEncoding.EncodeToString(b[:])
}
