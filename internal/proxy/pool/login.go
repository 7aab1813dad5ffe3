package pool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"manada/internal/proxy/scram"
	"manada/internal/proxy/wire"
)

// maxLogin bounds a message of PostgreSQL during log-in, in bytes.
const maxLogin = 64 << 10

// maxRest bounds what PostgreSQL may send before it was asked anything, in bytes.
const maxRest = 16 << 10

// Login is who logs in, and how.
type Login struct {
	Params []wire.Param
	// Keys log in by SCRAM without a password. When they are nil the Passwords
	// are tried, one after the other: while they are changed either may be right.
	Keys      *scram.Keys
	Passwords []string
}

// Backend is a logged-in connection, ready for a query. Its deadline is cleared.
type Backend struct {
	Conn net.Conn
	Addr string
	PID  uint32
	Key  []byte
	// Settings are the reported ones (ParameterStatus).
	Settings map[string]string
	// Greeting holds the messages between log-in and the cancel key that the
	// client gets as they are.
	Greeting []byte
	// Status is the transaction status of the first ReadyForQuery, and Rest what
	// was read behind it.
	Status byte
	Rest   []byte
}

// InRecovery says whether the node was a standby when the session began. Known
// is false before PostgreSQL 14, which does not report it.
func (b *Backend) InRecovery() (standby, known bool) {
	v, known := b.Settings["in_hot_standby"]
	return v == "on", known
}

// Open connects and logs in. An error that PostgreSQL gave is a *wire.Error in
// the chain.
func (d *Dialer) Open(ctx context.Context, addr string, l Login) (*Backend, error) {
	for {
		b, err := d.open(ctx, addr, l)
		refused, ok := errors.AsType[*wire.Error](err)
		if !ok || refused.Code != wrongPassword || l.Keys != nil || len(l.Passwords) < 2 {
			return b, err
		}
		l.Passwords = l.Passwords[1:]
	}
}

// wrongPassword is invalid_password.
const wrongPassword = "28P01"

func (d *Dialer) open(ctx context.Context, addr string, l Login) (*Backend, error) {
	done, err := d.turn(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer done()
	if conn := d.ahead.take(addr); conn != nil {
		if b, err := d.logIn(ctx, conn, addr, l); err == nil || ctx.Err() != nil {
			return b, err
		}
	}
	conn, err := d.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return d.logIn(ctx, conn, addr, l)
}

// logIn logs in on a connection, which is closed when that fails.
func (d *Dialer) logIn(ctx context.Context, conn net.Conn, addr string, l Login) (*Backend, error) {
	conn.SetDeadline(time.Now().Add(d.LoginTimeout))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b := &Backend{Conn: conn, Addr: addr, Settings: make(map[string]string, 16)}
	if err := b.login(l); err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in to postgres at %s: %w", addr, err)
	}
	if !stop() {
		conn.Close()
		return nil, fmt.Errorf("log in to postgres at %s: %w", addr, ctx.Err())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in to postgres at %s: %w", addr, err)
	}
	return b, nil
}

func (b *Backend) login(l Login) error {
	if _, err := b.Conn.Write(wire.AppendStartup(nil, l.Params)); err != nil {
		return err
	}
	r := wire.NewReader(b.Conn)
	if err := b.authenticate(r, l); err != nil {
		return err
	}
	for {
		typ, body, err := r.Next(maxLogin)
		if err != nil {
			return err
		}
		switch typ {
		case wire.TypeError:
			return wire.ParseError(body)
		case wire.TypeParameterStatus:
			if name, value, ok := wire.ParseParameterStatus(body); ok {
				b.Settings[name] = value
			}
			b.Greeting = wire.AppendMessage(b.Greeting, typ, body)
		case wire.TypeNotice:
			b.Greeting = wire.AppendMessage(b.Greeting, typ, body)
		case wire.TypeBackendKey:
			if len(body) < 5 {
				return fmt.Errorf("%w: short cancel key", wire.ErrProtocol)
			}
			b.PID = binary.BigEndian.Uint32(body)
			b.Key = append([]byte(nil), body[4:]...)
		case wire.TypeReady:
			if len(body) != 1 {
				return fmt.Errorf("%w: malformed ready message", wire.ErrProtocol)
			}
			b.Status = body[0]
			if b.Rest = append([]byte(nil), r.Rest()...); len(b.Rest) > maxRest {
				return fmt.Errorf("%w: %d bytes before the first query", wire.ErrProtocol, len(b.Rest))
			}
			return nil
		default:
			return fmt.Errorf("%w: message %q during log-in", wire.ErrProtocol, typ)
		}
	}
}

// authenticate answers PostgreSQL until it is satisfied.
func (b *Backend) authenticate(r *wire.Reader, l Login) error {
	var c *scram.Client
	checked := true
	for {
		typ, body, err := r.Next(maxLogin)
		if err != nil {
			return err
		}
		switch {
		case typ == wire.TypeError:
			return wire.ParseError(body)
		case typ == wire.TypeNotice:
			b.Greeting = wire.AppendMessage(b.Greeting, typ, body)
			continue
		case typ != wire.TypeAuth || len(body) < 4:
			return fmt.Errorf("%w: message %q instead of an authentication request", wire.ErrProtocol, typ)
		}
		code, data := binary.BigEndian.Uint32(body), body[4:]
		var reply []byte
		switch {
		case code == wire.AuthOK:
			if !checked {
				return scram.ErrServer
			}
			if _, local := b.Conn.(*net.UnixConn); local && c == nil {
				return ErrUnasked
			}
			return nil
		case code == wire.AuthSASL && c == nil:
			c, checked = newClient(l), false
			reply = wire.AppendSASLInitial(nil, scram.Mechanism, c.First())
		case code == wire.AuthSASLCont && c != nil:
			final, err := c.Final(data)
			if err != nil {
				return err
			}
			reply = wire.AppendMessage(nil, wire.TypePassword, final)
		case code == wire.AuthSASLFinal && c != nil:
			if err := c.Check(data); err != nil {
				return err
			}
			checked = true
			continue
		default:
			return errMethod(code)
		}
		if _, err := b.Conn.Write(reply); err != nil {
			return err
		}
	}
}

func newClient(l Login) *scram.Client {
	if l.Keys != nil {
		return scram.NewKeyClient(*l.Keys)
	}
	password := ""
	if len(l.Passwords) > 0 {
		password = l.Passwords[0]
	}
	return scram.NewPasswordClient(password)
}

// ErrMethod means that pg_hba.conf asks for something the proxy cannot answer.
var ErrMethod = errors.New("authentication method not supported by the proxy")

// ErrUnasked means that PostgreSQL let the proxy in over the unix socket as whoever runs
// it: the client's password was not asked for.
var ErrUnasked = errors.New("pg_hba.conf asks for no password on the unix socket, want scram-sha-256")

func errMethod(code uint32) error {
	name := fmt.Sprintf("method %d", code)
	switch code {
	case wire.AuthCleartext:
		name = "a clear-text password"
	case wire.AuthMD5:
		name = "an md5 password"
	}
	return fmt.Errorf("%w: pg_hba.conf asks the proxy's host for %s, want scram-sha-256", ErrMethod, name)
}
