package pki

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// Hosts that belong to no herd yet find out of each other, over one TLS 1.3
// connection on which nobody has verified anybody's certificate, as in a join:
//
//	asker -> host   envelope{Stranger}  mac = HMAC(key, "asker"    | binding | body)
//	host -> asker   envelope{Stranger}  mac = HMAC(key, "stranger" | binding | asker's mac | body)
//
// Only who knows the join secret can say that it is new, and nobody in between
// can pass it on.

// Stranger is what a host says of itself while it belongs to no herd: it has
// neither an identity nor a database nor a voter's data.
type Stranger struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	// Founder is the address of the host that may found the herd, as this one
	// was told. Two that were told different things found nothing.
	Founder string `json:"founder"`
}

// ErrMember says that the host that answers belongs to a herd. Nobody has
// proved it: joining does.
var ErrMember = errors.New("the host belongs to a herd already")

const pathStranger = "/v1/stranger"

// Meeting is a host that belongs to no herd yet: it asks others and answers
// them. Its secret is read at every exchange and may change.
type Meeting struct {
	self   Stranger
	secret func() (string, error)
	log    *slog.Logger
	slots  slots
	pause  time.Duration
}

// NewMeeting makes one.
func NewMeeting(self Stranger, secret func() (string, error), log *slog.Logger) *Meeting {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Meeting{self: self, secret: secret, log: log, pause: failurePause}
}

// derive gives the key of the secret as it is now.
func (m *Meeting) derive() ([]byte, error) {
	text, err := m.secret()
	if err != nil {
		return nil, fmt.Errorf("read join secret: %w", err)
	}
	if text = strings.TrimSpace(text); text == "" {
		return nil, errors.New("the join secret is empty")
	}
	if err := CheckShared(text); err != nil {
		return nil, err
	}
	return sharedKey(text, m.self.Cluster), nil
}

// Serve answers on the listener until ctx ends, and closes it.
func (m *Meeting) Serve(ctx context.Context, l net.Listener) error {
	cert, err := throwaway(m.self)
	if err != nil {
		l.Close()
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathStranger, m.answer)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuseJoin(w, &JoinError{Err: ErrNotNow, Detail: "this host belongs to no herd yet"})
	})
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 3 * time.Second, ReadTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.ServeTLS(l, "", ""); err != nil && ctx.Err() == nil {
		return fmt.Errorf("answer other new hosts on %s: %w", l.Addr(), err)
	}
	return nil
}

// throwaway is a certificate that proves nothing; a connection needs one.
func throwaway(s Stranger) (tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-backdate), NotAfter: now.Add(hostLifetime)}
	tmpl.Subject.CommonName = s.Node // and no organization: it is of no herd
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func (m *Meeting) answer(w http.ResponseWriter, r *http.Request) {
	slot, ok := m.slots.take(r.RemoteAddr)
	if !ok {
		refuseJoin(w, refuse(ErrBusy, ""))
		return
	}
	defer slot.free()
	out, who, err := m.reply(r)
	if err == nil {
		w.Header().Set("Content-Type", "application/json")
		w.Write(out)
		return
	}
	m.log.Warn("another host was not answered", "peer", who.Node, "remote", r.RemoteAddr, "error", err.Error())
	if errors.Is(err, ErrWrongSecret) {
		slot.hold(m.pause)
	}
	je, ok := errors.AsType[*JoinError](err)
	if !ok {
		je = refuse(ErrNotNow, "")
	}
	refuseJoin(w, je)
}

func (m *Meeting) reply(r *http.Request) (out []byte, who Stranger, err error) {
	bind, err := binding(r.TLS)
	if err != nil {
		return nil, who, err
	}
	key, err := m.derive()
	if err != nil {
		return nil, who, err
	}
	var env envelope
	if err := json.NewDecoder(io.LimitReader(r.Body, maxJoinRequest)).Decode(&env); err != nil {
		return nil, who, refuse(ErrWrongSecret, "the request cannot be read")
	}
	if !hmac.Equal(env.MAC, proof(key, "asker", bind, env.Body)) {
		return nil, who, refuse(ErrWrongSecret, "")
	}
	if err := json.Unmarshal(env.Body, &who); err != nil {
		return nil, who, refuse(ErrWrongSecret, "the request cannot be read")
	}
	if who.Node == m.self.Node {
		return nil, who, refuse(ErrNotAllowed, "both hosts are named "+who.Node)
	}
	body, err := json.Marshal(m.self)
	if err != nil {
		return nil, who, err
	}
	out, err = json.Marshal(envelope{Body: body, MAC: proof(key, "stranger", bind, env.MAC, body)})
	return out, who, err
}

func refuseJoin(w http.ResponseWriter, je *JoinError) {
	c := codeOf(je.Err)
	b, _ := json.Marshal(joinRefusal{Error: strings.TrimSuffix(je.Err.Error()+": "+je.Detail, ": "), Hint: je.Hint, Code: c.code})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(c.status)
	w.Write(append(b, '\n'))
}

// Ask asks the host at addr. A nil error means that it proved to be new, too;
// ErrMember that it belongs to a herd.
func (m *Meeting) Ask(ctx context.Context, addr string) (Stranger, error) {
	var who Stranger
	key, err := m.derive()
	if err != nil {
		return who, err
	}
	conn, err := dialUnverified(ctx, addr)
	if err != nil {
		return who, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	state := conn.ConnectionState()
	if isMember(&state) {
		return who, ErrMember
	}
	bind, err := binding(&state)
	if err != nil {
		return who, err
	}
	body, err := json.Marshal(m.self)
	if err != nil {
		return who, err
	}
	mac := proof(key, "asker", bind, body)
	out, err := json.Marshal(envelope{Body: body, MAC: mac})
	if err != nil {
		return who, err
	}
	answer, err := post(ctx, conn, addr, pathStranger, out)
	if err != nil {
		return who, err
	}
	var env envelope
	if err := json.Unmarshal(answer, &env); err != nil {
		return who, fmt.Errorf("read answer of %s: %w", addr, err)
	}
	if !hmac.Equal(env.MAC, proof(key, "stranger", bind, mac, env.Body)) {
		return who, fmt.Errorf("%s answers but cannot prove that it knows the join secret; nothing was believed", addr)
	}
	if err := json.Unmarshal(env.Body, &who); err != nil {
		return who, fmt.Errorf("read answer of %s: %w", addr, err)
	}
	if who.Cluster != m.self.Cluster {
		return who, fmt.Errorf("%s is to be of the herd %q, not %q", addr, who.Cluster, m.self.Cluster)
	}
	return who, nil
}

// isMember says whether the certificate is that of a data or witness host.
func isMember(s *tls.ConnectionState) bool {
	if len(s.PeerCertificates) == 0 {
		return false
	}
	n, err := NameOf(s.PeerCertificates[0])
	return err == nil && n.Member()
}
