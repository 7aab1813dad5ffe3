package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"manada/internal/cluster"
)

// Pusher says beats to other hosts without listening to any: what a guardian
// uses, which has no port. Safe for concurrent use.
type Pusher struct {
	cfg   Config
	out   *stamper
	links *links
}

// NewPusher makes a pusher that reaches nobody yet. Close it.
func NewPusher(cfg Config) *Pusher {
	cfg.defaults()
	p := &Pusher{cfg: cfg, out: newStamper(cfg, FromGuardian)}
	p.links = newLinks(cfg.Log, p.push)
	return p
}

// Publish says a beat to everybody that is reached; see Hub.Publish. From is
// "guardian" unless it is set.
func (p *Pusher) Publish(b cluster.Beat) error { return p.out.publish(b) }

// SetPeers says whom to beat to: peer addresses by node. This host's own agent
// may be among them.
func (p *Pusher) SetPeers(peers map[string]string) { p.links.set(peers) }

// Close ends all connections and waits for them.
func (p *Pusher) Close() { p.links.close() }

// push is one connection to a host, until it breaks.
func (p *Pusher) push(ctx context.Context, node, addr string) (reached bool, err error) {
	conn, err := p.cfg.dialer().dial(ctx, node, addr)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	conn.SetWriteDeadline(time.Now().Add(p.cfg.Silence))
	head := "POST /v1/beats HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
	if _, err := conn.Write([]byte(head)); err != nil {
		return false, fmt.Errorf("beat to %s: %w", name(node, addr), err)
	}
	answered := answerOf(conn)
	// Closing first makes the reader end.
	defer func() { conn.NetConn().Close(); <-answered }()
	sub := p.out.subscribe()
	defer sub.close()
	var chunk []byte
	for {
		select {
		case <-ctx.Done():
			return reached, ctx.Err()
		case err := <-answered:
			answered <- nil
			return reached, fmt.Errorf("beat to %s: %w", name(node, addr), err)
		case <-sub.wake:
		}
		line := sub.next()
		if line == nil {
			continue
		}
		chunk = append(strconv.AppendInt(chunk[:0], int64(len(line)), 16), "\r\n"...)
		chunk = append(append(chunk, line...), "\r\n"...)
		conn.SetWriteDeadline(time.Now().Add(p.cfg.Silence))
		if _, err := conn.Write(chunk); err != nil {
			return reached, fmt.Errorf("beat to %s: %w", name(node, addr), err)
		}
		reached = true
	}
}

// answerOf delivers what ends the stream from the other side: a refusal, or the
// loss of the connection. A server that listens does not answer.
func answerOf(conn *tls.Conn) chan error {
	c := make(chan error, 1)
	go func() {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			err = readError(resp)
		}
		c <- err
	}()
	return c
}
