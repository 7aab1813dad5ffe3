package pki

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"manada/internal/cluster"
)

const (
	failurePause   = time.Second // a slot is held that long after each wrong secret
	maxJoinRequest = 64 << 10
)

// Newcomer is who wants to join, after its secret has proved good.
type Newcomer struct {
	Name
	Hosts   []string
	Version string // of its binary
	Shared  bool   // by the shared secret, not by a token
	Key     string // of its request, as in cluster.Certificate
}

// AuthorityConfig is what a member needs to take newcomers in.
type AuthorityConfig struct {
	Identity *Identity
	// CA opens the authority's key as the store holds it (Identity.OpenCA).
	CA func(context.Context) (*CA, error)
	// Tokens reads and changes the records of join tokens. nil: no tokens.
	Tokens Tokens
	// SharedSecret is the content of join_secret_file; empty: none. It is asked
	// for at every exchange.
	SharedSecret func() (string, error)
	// Allow may refuse a newcomer whose secret is good, for instance because
	// its name is that of another host; the text goes to the newcomer,
	// as ErrNotAllowed unless it is a *JoinError.
	// nil: all are allowed.
	Allow func(context.Context, Newcomer) error
	// Register writes a certificate that is about to be handed out into the
	// herd's list and returns the list. nil: there is none (tests).
	Register func(context.Context, cluster.Certificate) (cluster.Registry, error)
	// Facts is what the newcomer is told of the herd (store endpoints, peers),
	// opaque to this package. nil: nothing.
	Facts func(context.Context, Newcomer) (any, error)
	Log   *slog.Logger
}

// Authority takes newcomers in: it is the handler of POST /v1/join. It needs
// the connection's TLS state in the request and no client certificate.
type Authority struct {
	cfg   AuthorityConfig
	slots slots
	pause time.Duration

	mu     sync.Mutex
	shared string // the shared secret that key was derived from
	key    []byte
}

// NewAuthority makes the handler.
func NewAuthority(cfg AuthorityConfig) *Authority {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Authority{cfg: cfg, pause: failurePause}
}

// ServeHTTP answers one exchange.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	slot, ok := a.slots.take(r.RemoteAddr)
	if !ok {
		a.answerError(w, refuse(ErrBusy, ""))
		return
	}
	defer slot.free()
	env, who, err := a.exchange(r)
	if err == nil {
		a.cfg.Log.Info("newcomer joined", "peer", who.Node, "kind", who.Kind, "remote", r.RemoteAddr)
		w.Header().Set("Content-Type", "application/json")
		w.Write(env)
		return
	}
	a.cfg.Log.Warn("newcomer refused", "peer", who.Node, "kind", who.Kind, "remote", r.RemoteAddr, "err", err)
	if errors.Is(err, ErrWrongSecret) || errors.Is(err, ErrWrongCluster) {
		slot.hold(a.pause)
	}
	a.answerError(w, err)
}

func (a *Authority) answerError(w http.ResponseWriter, err error) {
	je, ok := errors.AsType[*JoinError](err)
	if !ok {
		// What exactly went wrong inside stays in this host's log.
		je = refuse(ErrNotNow, "")
	}
	refuseJoin(w, je)
}

// exchange verifies the newcomer's proof and makes the reply with ours.
func (a *Authority) exchange(r *http.Request) ([]byte, Newcomer, error) {
	bind, err := binding(r.TLS)
	if err != nil {
		return nil, Newcomer{}, err
	}
	var env envelope
	var req joinRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, maxJoinRequest)).Decode(&env); err != nil {
		return nil, Newcomer{}, refuse(ErrWrongSecret, "the request cannot be read")
	}
	if err := json.Unmarshal(env.Body, &req); err != nil {
		return nil, Newcomer{}, refuse(ErrWrongSecret, "the request cannot be read")
	}
	who := Newcomer{
		Name:  Name{Cluster: req.Cluster, Node: req.Node, Kind: req.Kind},
		Hosts: req.Hosts, Version: req.Version, Shared: req.Token == "",
	}
	if csr, err := parseRequest([]byte(req.CSR)); err == nil {
		who.Key = digest(csr.RawSubjectPublicKeyInfo)
	}
	if req.Cluster != a.cfg.Identity.Cluster() {
		// No secret: our certificate says it to everybody who connects.
		return nil, who, refuse(ErrWrongCluster, fmt.Sprintf("it is of %q, not %q", a.cfg.Identity.Cluster(), req.Cluster))
	}
	key, body, err := a.takeIn(r.Context(), bind, env, req, who)
	if err != nil {
		return nil, who, err
	}
	out, err := json.Marshal(envelope{Body: body, MAC: replyProof(key, bind, env.MAC, body)})
	return out, who, err
}

// takeIn checks the proof, makes the reply and only then uses up the token, so
// that a member that could not sign costs nobody a token. It returns the key
// of the secret, with which the reply has to be proved.
func (a *Authority) takeIn(ctx context.Context, bind []byte, env envelope, req joinRequest, who Newcomer) (key, body []byte, err error) {
	check := func(k []byte) error {
		if !hmac.Equal(env.MAC, requestProof(k, bind, env.Body)) {
			return refuse(ErrWrongSecret, "")
		}
		key = bytes.Clone(k)
		return a.allow(ctx, who)
	}
	if req.Token == "" {
		shared, err := a.sharedKey()
		if err != nil {
			return nil, nil, err
		}
		if shared == nil {
			return nil, nil, refuse(ErrWrongSecret, "this herd takes join tokens only")
		}
		if err := check(shared); err != nil {
			return nil, nil, err
		}
		body, err = a.reply(ctx, req, who)
		return key, body, err
	}
	if a.cfg.Tokens == nil {
		return nil, nil, refuse(ErrWrongSecret, "this herd takes no join tokens")
	}
	err = a.cfg.Tokens(ctx, req.Token, func(rec *TokenRecord) error {
		if err := check(rec.Verifier); err != nil {
			return err
		}
		// On a copy: an error leaves the record as it was.
		used := *rec
		if err := used.use(who, []byte(req.CSR), time.Now()); err != nil {
			return err
		}
		if body, err = a.reply(ctx, req, who); err != nil {
			return err
		}
		*rec = used
		return nil
	})
	if errors.Is(err, ErrNoToken) {
		return nil, nil, refuse(ErrWrongSecret, "")
	}
	return key, body, err
}

// use marks the token as used. Only the newcomer that used it, with the same
// key, may use it again, while it is good: its answer may have been lost.
func (rec *TokenRecord) use(who Newcomer, csrPEM []byte, now time.Time) error {
	csr, err := parseRequest(csrPEM)
	if err != nil {
		return refuse(ErrNotAllowed, err.Error())
	}
	if !now.Before(rec.Expires) {
		return refuse(ErrTokenExpired, "at "+rec.Expires.UTC().Format(time.RFC3339))
	}
	if rec.Kind != "" && rec.Kind != who.Kind || rec.Node != "" && rec.Node != who.Node {
		return refuse(ErrTokenNarrow, fmt.Sprintf("made for %s", strings.TrimSpace(rec.Kind+" "+rec.Node)))
	}
	hash := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	if rec.UsedAt != nil && (rec.UsedBy != who.Node || !bytes.Equal(rec.UsedKey, hash[:])) {
		return refuse(ErrTokenUsed, fmt.Sprintf("by %s at %s", rec.UsedBy, rec.UsedAt.UTC().Format(time.RFC3339)))
	}
	if rec.UsedAt == nil {
		now = now.UTC()
		rec.UsedBy, rec.UsedAt, rec.UsedKey = who.Node, &now, hash[:]
	}
	return nil
}

// allow checks the names and asks the herd.
func (a *Authority) allow(ctx context.Context, who Newcomer) error {
	if err := who.Name.check(); err != nil {
		return refuse(ErrNotAllowed, err.Error())
	}
	if _, _, err := who.Name.altNames(who.Hosts); err != nil {
		return refuse(ErrNotAllowed, err.Error())
	}
	if a.cfg.Allow == nil {
		return nil
	}
	err := a.cfg.Allow(ctx, who)
	if je, ok := errors.AsType[*JoinError](err); ok {
		return je
	}
	if err != nil {
		return refuse(ErrNotAllowed, err.Error())
	}
	return nil
}

func (a *Authority) reply(ctx context.Context, req joinRequest, who Newcomer) ([]byte, error) {
	if _, err := parseRequest([]byte(req.CSR)); err != nil {
		return nil, refuse(ErrNotAllowed, err.Error())
	}
	ca, err := a.cfg.CA(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the authority's key: %w", err)
	}
	m, err := a.cfg.Identity.sign(ca, []byte(req.CSR), who.Name, who.Hosts)
	if err != nil {
		return nil, err
	}
	out := joinReply{CA: string(m.ca), Cert: string(m.cert), KEK: m.kek, Held: m.held}
	if a.cfg.Facts != nil {
		facts, err := a.cfg.Facts(ctx, who)
		if err != nil {
			return nil, fmt.Errorf("collect facts for a newcomer: %w", err)
		}
		if out.Facts, err = json.Marshal(facts); err != nil {
			return nil, fmt.Errorf("encode facts for a newcomer: %w", err)
		}
	}
	// After Facts, which ends the removal of a host of that name.
	if out.Registry, err = a.register(ctx, m.cert); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

func (a *Authority) register(ctx context.Context, pemCert []byte) (*cluster.Registry, error) {
	if a.cfg.Register == nil {
		return nil, nil
	}
	c, err := Registered(pemCert)
	if err != nil {
		return nil, err
	}
	list, err := a.cfg.Register(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("register the certificate of %s: %w", c.Node, err)
	}
	return &list, nil
}

// sharedKey derives the key of the shared secret, once for each secret: it is
// slow on purpose.
func (a *Authority) sharedKey() ([]byte, error) {
	if a.cfg.SharedSecret == nil {
		return nil, nil
	}
	text, err := a.cfg.SharedSecret()
	if err != nil {
		return nil, fmt.Errorf("read join secret: %w", err)
	}
	if text = strings.TrimSpace(text); text == "" {
		return nil, nil
	}
	if err := CheckShared(text); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if text != a.shared || a.key == nil {
		a.shared, a.key = text, sharedKey(text, a.cfg.Identity.Cluster())
	}
	return a.key, nil
}

// Renewed is the answer of RenewHandler; give Cert to Identity.InstallCertificate.
type Renewed struct {
	Cert string `json:"cert"` // PEM
}

// RenewHandler answers GET /v1/renew, mounted behind the check of client
// certificates: the caller's own certificate signed anew, in PEM. It is for
// proxies, which cannot open the CA themselves.
func (a *Authority) RenewHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			a.answerError(w, refuse(ErrNotAllowed, "no certificate was shown"))
			return
		}
		old := r.TLS.VerifiedChains[0][0]
		ca, err := a.cfg.CA(r.Context())
		var cert []byte
		if err == nil {
			cert, err = ca.Resign(old, time.Now())
		}
		if err == nil {
			_, err = a.register(r.Context(), cert)
		}
		if err != nil {
			a.cfg.Log.Warn("certificate not renewed", "peer", old.Subject.CommonName, "err", err)
			a.answerError(w, refuse(ErrNotNow, ""))
			return
		}
		a.cfg.Log.Info("certificate renewed", "peer", old.Subject.CommonName)
		w.Header().Set("Content-Type", "application/json")
		b, _ := json.Marshal(Renewed{Cert: string(cert)})
		w.Write(append(b, '\n'))
	})
}
