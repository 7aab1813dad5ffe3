package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Defaults of the time-outs. Hosts of a herd are near each other; what is slower
// than this is as good as silent for a takeover within a second.
const (
	defaultDial    = 500 * time.Millisecond
	defaultSilence = 2 * time.Second
	minBackoff     = 50 * time.Millisecond
	maxBackoff     = 500 * time.Millisecond
	maxLine        = 1 << 20 // bytes of one beat
	// streamBuffer bounds what the kernel holds of a stream: old beats in
	// socket buffers would reach a slow reader before the newest.
	streamBuffer = 64 << 10
)

// dialer opens connections to hosts. TLS gives the configuration for a node.
type dialer struct {
	tls     func(node string) *tls.Config
	timeout time.Duration // of connecting and of the TLS handshake, together
	silence time.Duration // of unacknowledged data before the kernel gives up
	proxy   string        // Config.Proxy
	asked   string        // Config.ProxyAddr
	serves  [2]string     // Config.ProxySQL, Config.ProxyReadOnly
}

// proxyHeader says that a proxy listens, and which: its process's random id.
const proxyHeader = "Manada-Proxy"

// proxyAddrHeader says where it is asked for its tables and given orders.
const proxyAddrHeader = "Manada-Proxy-Address"

// proxySQLHeader and proxyReadOnlyHeader say where applications reach it.
const proxySQLHeader, proxyReadOnlyHeader = "Manada-Proxy-SQL", "Manada-Proxy-Read-Only"

func (d dialer) dial(ctx context.Context, node, addr string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	nd := net.Dialer{Control: setUserTimeout(d.silence)}
	raw, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name(node, addr), err)
	}
	if t, ok := raw.(*net.TCPConn); ok {
		t.SetReadBuffer(streamBuffer)
		t.SetWriteBuffer(streamBuffer)
	}
	c := tls.Client(raw, d.tls(node))
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connect to %s: %w", name(node, addr), err)
	}
	return c, nil
}

func name(node, addr string) string {
	if node == "" {
		return addr
	}
	return node + " at " + addr
}

// listen subscribes to the beats of a node and hands every line to line, until
// the stream breaks, is silent for longer than d.silence, or ctx ends.
func (d dialer) listen(ctx context.Context, node, addr string, line func([]byte)) error {
	conn, err := d.dial(ctx, node, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	conn.SetDeadline(time.Now().Add(d.silence))
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+addr+"/v1/beats", nil)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", name(node, addr), err)
	}
	if d.proxy != "" {
		req.Header.Set(proxyHeader, d.proxy)
		req.Header.Set(proxyAddrHeader, d.asked)
		req.Header.Set(proxySQLHeader, d.serves[0])
		req.Header.Set(proxyReadOnlyHeader, d.serves[1])
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("subscribe to %s: %w", name(node, addr), err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", name(node, addr), err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("subscribe to %s: %w", name(node, addr), readError(resp))
	}
	err = readLines(resp.Body, func() { conn.SetReadDeadline(time.Now().Add(d.silence)) }, line)
	return fmt.Errorf("listen to %s: %w", name(node, addr), err)
}

var errLineTooLong = errors.New("line too long")

// readLines calls line with each line, and before each with the reader armed.
// The slice is only valid during the call. It returns why reading ended.
func readLines(r io.Reader, arm func(), line func([]byte)) error {
	br := bufio.NewReaderSize(r, 32<<10)
	var long []byte
	for {
		arm()
		part, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if len(long)+len(part) > maxLine {
				return errLineTooLong
			}
			long = append(long, part...)
		case err != nil:
			return err
		case len(long) > 0:
			line(append(long, part...))
			long = long[:0]
		default:
			line(part)
		}
	}
}
