package conversation

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	"manada/internal/proxy/scram"
)

// Target is somewhere to play to.
type Target struct {
	Network  string // tcp, unless it says unix
	Addr     string
	User     string
	Password string
	Database string
	TLS      *tls.Config // nil: plain
}

func (t Target) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	network := t.Network
	if network == "" {
		network = "tcp"
	}
	c, err := d.DialContext(ctx, network, t.Addr)
	if err != nil || t.TLS == nil {
		return c, err
	}
	answer := make([]byte, 1)
	if _, err := c.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 1234<<16|5679)); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err != nil || answer[0] != 'S' {
		c.Close()
		return nil, fmt.Errorf("ask for TLS: %q, %w", answer, err)
	}
	return tls.Client(c, t.TLS), nil
}

// client is one connection and what came over it.
type client struct {
	net.Conn
	in      *bufio.Reader
	target  Target
	pid     uint32
	key     []byte
	gather  []byte
	owed    int // bytes of the front of gather that were sent by half
	lines   []string
	letters []byte
	ended   bool
}

func newClient(conn net.Conn, t Target) *client {
	return &client{Conn: conn, in: bufio.NewReaderSize(conn, 1<<16), target: t}
}

// open logs in. What the server says before its first ReadyForQuery is one line:
// the settings that it reports, in order of their names.
func open(ctx context.Context, t Target, minor int, params map[string]string) (*client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := newClient(conn, t)
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	body := binary.BigEndian.AppendUint32(nil, uint32(3<<16|minor))
	for _, k := range slices.Sorted(maps.Keys(params)) {
		body = cstring(cstring(body, k), params[k])
	}
	body = cstring(cstring(body, "user"), t.User)
	body = append(cstring(cstring(body, "database"), t.Database), 0)
	if _, err = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)); err == nil {
		err = c.greet()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in to %s: %w", t.Addr, err)
	}
	return c, nil
}

// greet answers questions until the server is ready or says no.
func (c *client) greet() error {
	proof := scram.NewPasswordClient(c.target.Password)
	reported := map[string]string{}
	for {
		typ, b, err := c.message()
		if err != nil {
			return err
		}
		switch typ {
		case 'R':
			err = c.authenticate(proof, b)
		case 'S':
			name, value, _ := strings.Cut(strings.TrimSuffix(string(b), "\x00"), "\x00")
			reported[name] = value
		case 'K':
			c.pid, c.key = binary.BigEndian.Uint32(b), slices.Clone(b[4:])
		case 'v':
			c.lines = append(c.lines, fmt.Sprintf("v %d %q", binary.BigEndian.Uint32(b), b[4:]))
		case 'E':
			c.lines = append(c.lines, show(typ, b))
			c.ended = true
			return nil
		case 'Z':
			for _, k := range slices.Sorted(maps.Keys(reported)) {
				c.lines = append(c.lines, "start "+k+"="+reported[k])
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *client) authenticate(proof *scram.Client, b []byte) error {
	var answer []byte
	switch code := binary.BigEndian.Uint32(b); code {
	case 0:
		return nil
	case 10:
		first := proof.First()
		answer = cstring(nil, "SCRAM-SHA-256")
		answer = append(binary.BigEndian.AppendUint32(answer, uint32(len(first))), first...)
	case 11:
		var err error
		if answer, err = proof.Final(b[4:]); err != nil {
			return err
		}
	case 12:
		return proof.Check(b[4:])
	default:
		return fmt.Errorf("authentication %d is not spoken here", code)
	}
	_, err := c.Write(append(binary.BigEndian.AppendUint32([]byte{'p'}, uint32(4+len(answer))), answer...))
	return err
}

// message reads one. Its body is the caller's.
func (c *client) message() (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > 1<<30 {
		return 0, nil, fmt.Errorf("message %q of %d bytes", head[0], n)
	}
	b := make([]byte, n-4)
	_, err := io.ReadFull(c.in, b)
	return head[0], b, err
}

// cancel asks for it as libpq does, and waits until the other side has read it.
func (c *client) cancel(ctx context.Context) error {
	conn, err := c.target.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(c.key)))
	b = binary.BigEndian.AppendUint32(b, 1234<<16|5678)
	b = append(binary.BigEndian.AppendUint32(b, c.pid), c.key...)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	io.Copy(io.Discard, conn)
	return nil
}
