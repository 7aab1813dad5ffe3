package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"manada/internal/verb"
)

// Client calls hosts. Each call is a connection of its own, unless Keep says
// otherwise.
type Client struct {
	// TLS gives the configuration for dialling a node; "" asks for one that
	// takes any host of the herd.
	TLS func(node string) *tls.Config
	// DialTimeout bounds connecting and the TLS handshake together. Default 500 ms.
	DialTimeout time.Duration
	// Keep leaves a connection open for the next call to its host, for keepFor:
	// where a TLS handshake would take too long. A client that keeps is not copied.
	Keep bool
	// Socket is the path of a socket of this host, over which all is asked then: addr
	// and node count for nothing, TLS is not needed. By is who asks, for the log.
	Socket, By string

	mu   sync.Mutex
	kept map[string]*http.Transport // by node
}

// keepFor is less than what the server allows (Server.Serve).
const keepFor = 30 * time.Second

// Call asks the node at addr for a verb: in is sent as JSON unless it is nil,
// the answer is read into out unless that is nil. Refusals are *Error. Give ctx
// a deadline; without one a call ends after a minute, but for a verb that waits
// for others.
func (c *Client) Call(ctx context.Context, addr, node string, v verb.Verb, in, out any) error {
	if v.Within >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Minute)
		defer cancel()
	}
	method, path := v.Method, v.Path
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("call %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	url := "https://" + addr + path
	if c.Socket != "" {
		url = "http://socket" + path
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return fmt.Errorf("call %s %s: %w", method, path, err)
	}
	if c.By != "" {
		req.Header.Set(verb.ByHeader, c.By)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.transport(node).RoundTrip(req)
	if err != nil {
		return fmt.Errorf("call %s %s of %s: %w", method, path, name(node, addr), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return readError(resp)
	}
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxLine)) // else the connection is not kept
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(out); err != nil {
		return fmt.Errorf("call %s %s of %s: read answer: %w", method, path, name(node, addr), err)
	}
	return nil
}

func (c *Client) transport(node string) *http.Transport {
	if !c.Keep {
		return c.fresh(node)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.kept[node]
	if t == nil {
		t = c.fresh(node)
		t.DisableKeepAlives, t.IdleConnTimeout = false, keepFor
		if c.kept == nil {
			c.kept = map[string]*http.Transport{}
		}
		c.kept[node] = t
	}
	return t
}

// Close closes what was kept.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.kept {
		t.CloseIdleConnections()
	}
}

func (c *Client) fresh(node string) *http.Transport {
	if c.Socket != "" {
		return LocalTransport(c.Socket)
	}
	d := dialer{tls: c.TLS, timeout: c.DialTimeout, silence: 5 * time.Second}
	if d.timeout <= 0 {
		d.timeout = defaultDial
	}
	return &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return d.dial(ctx, node, addr)
		},
	}
}

// View asks any host for everything it has heard.
func (c *Client) View(ctx context.Context, addr string) ([]Row, error) {
	var rows []Row
	err := c.Call(ctx, addr, "", verb.View, nil, &rows)
	return rows, err
}
