package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"manada/internal/proxy/wire"
)

// maxMessage bounds what a client of the console may send at once, in bytes.
const maxMessage = 64 << 10

// linger bounds every write, and so a client that does not read.
const linger = 30 * time.Second

// Parameters are what a client is told at its log-in, in order.
var Parameters = [][2]string{{"server_version", "15.0 (Manada console)"}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"},
	{"standard_conforming_strings", "on"}, {"DateStyle", "ISO, MDY"}, {"IntervalStyle", "postgres"}, {"TimeZone", "UTC"},
	{"integer_datetimes", "on"}, {"is_superuser", "off"},
	// By these libpq knows without asking that it has come to whom it looks for.
	{"in_hot_standby", "off"}, {"default_transaction_read_only", "off"}}

// Interrupt cancels what a client of the console waits for. The zero value is ready.
type Interrupt struct {
	mu     sync.Mutex
	cancel context.CancelFunc // of the order under way; nil: there is none
}

// Cancel does so. When nothing is under way it does nothing.
func (i *Interrupt) Cancel() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cancel != nil {
		i.cancel()
	}
}

func (i *Interrupt) set(cancel context.CancelFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cancel = cancel
}

// Serve answers a client that was told that it is logged in, but for ReadyForQuery,
// until it leaves or ctx is done. The caller closes the connection.
func Serve(ctx context.Context, conn net.Conn, s *Source, right Right, in *Interrupt) {
	ctx, cancel := context.WithCancelCause(ctx)
	// A client that leaves ends an order that waits.
	messages := make(chan message)
	var reading sync.WaitGroup
	reading.Go(func() { cancel(read(ctx, conn, messages)) })
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if cancel(nil); stop() {
			conn.SetReadDeadline(time.Unix(1, 0))
		}
		reading.Wait()
	}()
	c := &session{Source: s, right: right, conn: conn, interrupt: in, statements: map[string]*statement{}, portals: map[string]*portal{}}
	c.ready()
	for c.flush() == nil {
		select {
		case m := <-messages:
			if m.typ == wire.TypeTerminate {
				return
			}
			c.take(ctx, m)
		case <-ctx.Done():
			c.leave(context.Cause(ctx))
			return
		}
	}
}

type message struct {
	typ  byte
	body []byte
}

// known are the types of messages that PostgreSQL knows of clients; for another it ends them.
const known = "BCDEFHPQSXcdf"

// read passes messages on until the client is gone.
func read(ctx context.Context, conn net.Conn, to chan<- message) error {
	for {
		typ, body, err := wire.ReadMessage(conn, maxMessage)
		if err != nil {
			return err
		}
		if !strings.ContainsRune(known, rune(typ)) {
			return fmt.Errorf("%w: invalid frontend message type %d", wire.ErrProtocol, typ)
		}
		select {
		case to <- message{typ, body}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leave says the last word where there is somebody to hear it.
func (c *session) leave(why error) {
	switch {
	case errors.Is(why, io.EOF), errors.Is(why, io.ErrUnexpectedEOF), errors.Is(why, net.ErrClosed):
		return
	case errors.Is(why, wire.ErrProtocol):
		c.out = wire.Fatal("08P01", why.Error(), "").Append(c.out)
	case errors.Is(why, context.Canceled), errors.Is(why, os.ErrDeadlineExceeded):
		c.out = wire.Fatal("57P01", "the proxy is shutting down", "").Append(c.out)
	}
	c.flush()
}

// session is one client of the console.
type session struct {
	*Source
	right      Right
	conn       net.Conn
	interrupt  *Interrupt
	out        []byte
	failed     bool // everything up to the next Sync is skipped
	statements map[string]*statement
	portals    map[string]*portal
}

func (c *session) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.conn.SetWriteDeadline(time.Now().Add(linger))
	if err == nil {
		_, err = c.conn.Write(c.out)
	}
	c.out = c.out[:0]
	return err
}

func (c *session) ready() { c.out = wire.AppendMessage(c.out, wire.TypeReady, []byte{'I'}) }

func (c *session) complete(tag string) {
	c.out = wire.AppendMessage(c.out, wire.TypeComplete, append([]byte(tag), 0))
}

// take answers one message.
func (c *session) take(ctx context.Context, m message) {
	switch {
	case m.typ == wire.TypeQuery:
		c.failed = false
		c.query(ctx, string(trim(m.body)))
		c.ready()
	case m.typ == wire.TypeSync:
		c.failed = false
		clear(c.portals)
		c.ready()
	case c.failed:
	default:
		if e := c.extended(ctx, m); e != nil {
			c.out, c.failed = e.Append(c.out), true
		}
	}
}

// query is the simple protocol.
func (c *session) query(ctx context.Context, sql string) {
	k, e := parse(c.Source, c.right, sql)
	switch {
	case e != nil:
		c.out = e.Append(c.out)
		return
	case k == nil:
		c.out = wire.AppendMessage(c.out, 'I', nil)
		return
	case k.show != nil:
		c.out = describe(c.out, k.show.cols, nil)
		for _, r := range k.show.rows(c.Source) {
			c.out = r.data(c.out, k.show.cols, nil)
		}
	}
	if e := c.finish(ctx, k); e != nil {
		c.out = e.Append(c.out)
	}
}

// finish does what a command does beside its rows.
func (c *session) finish(ctx context.Context, k *command) *wire.Error {
	if k.help {
		c.notice(wire.Error{Message: "Console usage", Detail: help(c.Source)})
	}
	if k.run != nil {
		ctx, cancel := context.WithCancel(ctx)
		c.interrupt.set(cancel)
		note, e := k.run(ctx)
		c.interrupt.set(nil)
		cancel()
		if e != nil {
			return e
		}
		if note != "" {
			c.notice(wire.Error{Message: note})
		}
	}
	c.complete(k.tag)
	return nil
}

func (c *session) notice(n wire.Error) {
	n.Severity, n.Code = "NOTICE", "00000"
	body := n.Append(nil)
	body[0] = wire.TypeNotice
	c.out = append(c.out, body...)
}

func trim(body []byte) []byte {
	if n := len(body); n > 0 && body[n-1] == 0 {
		return body[:n-1]
	}
	return body
}
