package pki

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// JoinOptions is what a newcomer knows.
type JoinOptions struct {
	Dir     string // identity directory to be made
	Cluster string // name of the herd; empty: whatever the member says
	Node    string
	Kind    string
	Hosts   []string // names and addresses under which others reach this host
	Secret  string   // a token, or the content of join_secret_file
	Version string   // of this binary
	// Timeout bounds the exchange with one address. Default 30 s: a slow
	// machine may need seconds to derive a key from a shared secret.
	Timeout time.Duration
}

// Joined is what a newcomer got.
type Joined struct {
	Identity *Identity
	Facts    json.RawMessage // of the herd, as the member's Facts gave them
	Via      string          // the address that took us in
}

// Join asks the addresses of members, one after the other, to take this host
// in, and makes its identity directory. It ends at the first member that
// accepts or that refuses the secret; refusals are *JoinError. A directory that
// holds an identity is left alone: ErrExists.
func Join(ctx context.Context, addrs []string, o JoinOptions) (*Joined, error) {
	if there, err := Exists(o.Dir); err != nil {
		return nil, fmt.Errorf("join herd: %w", err)
	} else if there {
		return nil, fmt.Errorf("join herd: %w in %s", ErrExists, o.Dir)
	}
	if len(addrs) == 0 {
		return nil, errors.New("join herd: no address of a member was given")
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	n := &newcomer{opts: o}
	var errs []error
	for _, addr := range addrs {
		j, err := n.try(ctx, addr)
		if err == nil {
			return j, nil
		}
		errs = append(errs, err)
		if je, ok := errors.AsType[*JoinError](err); ok && !errors.Is(je, ErrBusy) && !errors.Is(je, ErrNotNow) {
			break // another member would say the same
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("join herd: %w", errors.Join(errs...))
}

// newcomer keeps its request from one address to the next.
type newcomer struct {
	opts    JoinOptions
	req     *Request
	sec     secret
	madeFor string // the cluster that req and sec were made for
}

func (n *newcomer) try(ctx context.Context, addr string) (*Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.Timeout)
	defer cancel()
	conn, err := dialUnverified(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	state := conn.ConnectionState()
	if err := n.prepare(&state); err != nil {
		return nil, err
	}
	reply, err := n.exchange(ctx, conn, &state, addr)
	if err != nil {
		return nil, err
	}
	id, err := n.install(reply)
	if err != nil {
		return nil, err
	}
	return &Joined{Identity: id, Facts: reply.Facts, Via: addr}, nil
}

// dialUnverified connects without looking at the certificate: the exchange
// itself proves who answers. Nothing that was not proved so is used, save the
// name of the herd, which the proof then covers.
func dialUnverified(ctx context.Context, addr string) (*tls.Conn, error) {
	raw, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	c := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c, nil
}

// prepare makes the key and the request, for the herd that is asked.
func (n *newcomer) prepare(s *tls.ConnectionState) error {
	clusterName := n.opts.Cluster
	if clusterName == "" {
		org := s.PeerCertificates[0].Subject.Organization
		if len(org) != 1 {
			return errors.New("the host that answers is no host of a herd: check the address and port (7400 unless changed)")
		}
		clusterName = org[0]
	}
	if n.req != nil && n.madeFor == clusterName {
		return nil
	}
	sec, err := parseSecret(n.opts.Secret, clusterName)
	if err != nil {
		return err
	}
	name := Name{Cluster: clusterName, Node: n.opts.Node, Kind: n.opts.Kind}
	if err := name.check(); err != nil {
		return err
	}
	if _, _, err := name.altNames(n.opts.Hosts); err != nil {
		return err
	}
	key, err := pendingKey(n.opts.Dir)
	if err != nil {
		return err
	}
	req, err := requestWith(key, name, n.opts.Hosts)
	if err != nil {
		return err
	}
	n.req, n.sec, n.madeFor = req, sec, clusterName
	return nil
}

// pendingKey is the key of an identity that is about to be made. It is on disk
// before it is used: a token that was used up by an exchange whose answer got
// lost, in a crash even, still works for the same key.
func pendingKey(dir string) (*ecdsa.PrivateKey, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	return lastingKey(dir, fileKey)
}

func (n *newcomer) exchange(ctx context.Context, conn *tls.Conn, s *tls.ConnectionState, addr string) (*joinReply, error) {
	bind, err := binding(s)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(joinRequest{
		Cluster: n.madeFor, Node: n.opts.Node, Kind: n.opts.Kind, Hosts: n.opts.Hosts,
		Token: n.sec.id, CSR: string(n.req.CSR), Version: n.opts.Version,
	})
	if err != nil {
		return nil, fmt.Errorf("encode join request: %w", err)
	}
	mac := requestProof(n.sec.key, bind, body)
	out, err := json.Marshal(envelope{Body: body, MAC: mac})
	if err != nil {
		return nil, fmt.Errorf("encode join request: %w", err)
	}
	answer, err := post(ctx, conn, addr, pathJoin, out)
	if err != nil {
		return nil, err
	}
	var env envelope
	if err := json.Unmarshal(answer, &env); err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", addr, err)
	}
	if !hmac.Equal(env.MAC, replyProof(n.sec.key, bind, mac, env.Body)) {
		return nil, fmt.Errorf("%s took the request but cannot prove that it knows the join secret: it is not a host of this herd, or somebody listens in between; nothing was accepted from it", addr)
	}
	var reply joinReply
	if err := json.Unmarshal(env.Body, &reply); err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", addr, err)
	}
	return &reply, nil
}

const pathJoin = "/v1/join"

// post sends the request over this very connection and returns the body of the
// answer.
func post(ctx context.Context, conn *tls.Conn, addr, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, cause(ctx, err))
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, cause(ctx, err))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, cause(ctx, err))
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	return nil, refusalFrom(addr, resp.Status, b)
}

func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// refusalFrom reads a refusal. Nobody has proved who wrote it, so it is quoted
// and the hint is ours.
func refusalFrom(addr, status string, b []byte) error {
	var r joinRefusal
	if json.Unmarshal(b, &r) == nil {
		for _, c := range joinCodes {
			if c.code == r.Code {
				return &JoinError{Err: c.err, Detail: fmt.Sprintf("%s says %.300q", addr, r.Error), Hint: c.hint}
			}
		}
		if r.Error != "" {
			return fmt.Errorf("ask %s: it says %.300q", addr, r.Error)
		}
	}
	return fmt.Errorf("ask %s: it answered %.100q; is that the peer port of a herd's host (7400 unless changed)?", addr, status)
}

// install checks what was given and makes the identity directory.
func (n *newcomer) install(r *joinReply) (*Identity, error) {
	cas, err := parseCerts([]byte(r.CA))
	if err != nil {
		return nil, fmt.Errorf("install identity: authority: %w", err)
	}
	cert, err := parseCert([]byte(r.Cert))
	if err != nil {
		return nil, fmt.Errorf("install identity: certificate: %w", err)
	}
	if !(&trust{cas: cas}).signed(cert) {
		return nil, errors.New("install identity: the certificate is of another authority")
	}
	if !n.req.key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("install identity: the certificate is for another key")
	}
	if name, err := NameOf(cert); err != nil || name != n.req.Name {
		return nil, fmt.Errorf("install identity: the certificate is of %q, not of %q", cert.Subject.CommonName, n.req.Name.Node)
	}
	m := material{name: n.req.Name, ca: []byte(r.CA), cert: []byte(r.Cert), kek: r.KEK, held: r.Held, list: r.Registry}
	if err := m.write(n.opts.Dir, n.req); err != nil {
		return nil, fmt.Errorf("install identity: %w", err)
	}
	return Load(n.opts.Dir)
}
