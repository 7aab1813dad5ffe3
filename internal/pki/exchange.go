package pki

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"

	"manada/internal/cluster"
)

// The join exchange, over one TLS 1.3 connection on which nobody has verified
// anybody's certificate:
//
//	newcomer -> member  envelope{joinRequest}  mac = HMAC(key, "newcomer" | binding | body)
//	member -> newcomer  envelope{joinReply}    mac = HMAC(key, "member"   | binding | request's mac | body)
//
// key comes from the token or the shared secret. binding is keying material
// exported from that very TLS session (RFC 8446, 7.5), so a man in the middle,
// who has two sessions, can pass on neither proof; and without key nobody can
// make one. The member says nothing before it has verified the newcomer.

const (
	joinLabel = "EXPORTER-manada-join"
	joinAbout = "manada join 1" // version of the exchange
)

type envelope struct {
	Body json.RawMessage `json:"body"` // the bytes that were signed
	MAC  []byte          `json:"mac"`
}

type joinRequest struct {
	Cluster string   `json:"cluster"`
	Node    string   `json:"node"`
	Kind    string   `json:"kind"`
	Hosts   []string `json:"hosts"`
	Token   string   `json:"token,omitempty"` // its id; none: the shared secret
	CSR     string   `json:"csr"`             // PEM
	Version string   `json:"version,omitempty"`
}

type joinReply struct {
	CA    string          `json:"ca"`   // PEM, all that are believed
	Cert  string          `json:"cert"` // PEM, with the chain behind it
	KEK   []byte          `json:"kek,omitempty"`
	Held  Held            `json:"held"`
	Facts json.RawMessage `json:"facts,omitempty"`
	// Registry is the list of certificates, with the newcomer's among them;
	// none from a member of a release without one.
	Registry *cluster.Registry `json:"registry,omitempty"`
}

// binding ties a proof to one TLS session.
func binding(s *tls.ConnectionState) ([]byte, error) {
	if s == nil || s.Version < tls.VersionTLS13 {
		return nil, errors.New("join: the connection is not TLS 1.3")
	}
	b, err := s.ExportKeyingMaterial(joinLabel, []byte(joinAbout), 32)
	if err != nil {
		return nil, fmt.Errorf("join: bind to the connection: %w", err)
	}
	return b, nil
}

// proof covers every part with its length, so that no two lists of parts have
// the same bytes.
func proof(key []byte, direction string, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range append([][]byte{[]byte(joinAbout), []byte(direction)}, parts...) {
		fmt.Fprintf(m, "%d:", len(p))
		m.Write(p)
	}
	return m.Sum(nil)
}

func requestProof(key, bind, body []byte) []byte { return proof(key, "newcomer", bind, body) }

func replyProof(key, bind, requestMAC, body []byte) []byte {
	return proof(key, "member", bind, requestMAC, body)
}
