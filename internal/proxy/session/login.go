package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/hba"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/tlsmem"
	"manada/internal/proxy/wire"
)

// client is a connection that is not a session yet.
type client struct {
	*Server
	guest   *loop.Guest
	conn    net.Conn    // the guest, or TLS over it
	stop    func() bool // of what interrupts it, when it has left its loop
	port    Port
	visitor *visitor

	startup  wire.Startup
	version  uint32 // that is spoken with the client
	user     string
	admitted bool
	secret   pool.Secret   // what is stored for the role, and what it may do in the database
	waited   time.Duration // for nodes, so far
	own      *rules.Own    // it is counted as one with a connection of its own
}

// alpn is the protocol name of PostgreSQL in TLS (version 17 and later).
const alpn = "postgresql"

// logIn takes the client to a session that is ready for its first query. It
// returns nil without an error when there is nothing more to do (a cancel request, or
// a client of the console that has left). A *wire.Error in the chain is told to the client.
func (c *client) logIn(ctx context.Context) (*session, *pool.Backend, error) {
	if err := c.patience(ctx); err != nil {
		return nil, nil, err
	}
	if err := c.negotiate(ctx); err != nil {
		return nil, nil, err
	}
	if c.startup.Kind == wire.KindCancel {
		c.guest.Beside(func() { c.cancel(ctx) })
		return nil, nil, nil
	}
	if err := c.admit(); err != nil {
		return nil, nil, err
	}
	keys, final, err := c.authenticate(ctx)
	if err != nil {
		return nil, nil, err
	}
	if c.wantsConsole() {
		if err := c.leave(ctx); err != nil {
			return nil, nil, err
		}
		return nil, nil, c.serveConsole(ctx, final)
	}
	if err := c.count(); err != nil {
		return nil, nil, err
	}
	if err := c.mayEnter(); err != nil {
		return nil, nil, err
	}
	if settings, mode, ok := c.pooled(); ok {
		s, err := c.logInPooled(ctx, settings, mode, keys, final)
		return s, nil, err
	}
	physical, _ := c.startup.Replication()
	var refused *wire.Error
	if c.own, refused = c.pools.desk.Enter(c.startup.Database(), c.user, c.secret.Rights, physical); refused != nil {
		return nil, nil, refused
	}
	var s *session
	var b *pool.Backend
	c.guest.Beside(func() {
		l := pool.Login{Params: c.serverParams(), Keys: &keys}
		if s, b, err = c.connect(ctx, l); err == nil && c.options().Split && c.port == ReadWrite && s.Positions != nil && splittable(c.startup, b) {
			c.split(ctx, s, b, l)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	if err := c.welcome(ctx, s, b, final); err != nil {
		c.registry.remove(s)
		b.Conn.Close()
		return nil, nil, err
	}
	return s, b, nil
}

// leave takes the log-in out of the loop, where it may block.
func (c *client) leave(ctx context.Context) error {
	if err := c.guest.Leave(); err != nil {
		return err
	}
	if c.stop == nil {
		c.stop = context.AfterFunc(ctx, c.guest.Interrupt)
	}
	return nil
}

// split lets standbys answer the session's reads.
func (c *client) split(ctx context.Context, s *session, b *pool.Backend, l pool.Login) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	alike, err := b.Alike(ctx)
	if err != nil {
		c.Log.Info("not split: the settings of the session are not known", "user", c.user, "error", err)
		return
	}
	s.conf.Split, s.reads = true, &reads{login: l, alike: alike}
}

// patience gives the client LoginTimeout for what it has to send next. The
// check comes after the deadline, so that it cannot undo the interruption of
// Serve.
func (c *client) patience(ctx context.Context) error {
	if err := c.conn.SetDeadline(time.Now().Add(c.options().LoginTimeout)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errShutdown()
	}
	return nil
}

// welcome tells the client that it is logged in, in one write.
func (c *client) welcome(ctx context.Context, s *session, b *pool.Backend, final []byte) error {
	if err := c.patience(ctx); err != nil {
		return err
	}
	if _, err := c.conn.Write(s.greeting(final, b.Greeting, b.Status)); err != nil {
		return err
	}
	return c.conn.SetDeadline(time.Time{})
}

// greeting is what a client is told that is logged in.
func (s *session) greeting(final, settings []byte, status byte) []byte {
	out := wire.AppendAuth(make([]byte, 0, 1024), wire.AuthSASLFinal, final)
	out = wire.AppendAuth(out, wire.AuthOK, nil)
	out = append(out, settings...)
	out = wire.AppendBackendKey(out, s.key.pid, []byte(s.key.secret))
	return wire.AppendMessage(out, wire.TypeReady, []byte{status})
}

// negotiate reads start-up packets until one says what the client wants.
func (c *client) negotiate(ctx context.Context) error {
	secure, gss := false, false
	for {
		s, direct, err := c.firstPacket(ctx, secure || gss)
		if err != nil {
			return err
		}
		switch {
		case direct:
			secure = true
			continue
		case s.Kind == wire.KindSSL && !secure:
			if secure, err = c.startTLS(ctx); err != nil {
				return err
			}
			if !secure {
				gss = true // a second request gets no further
			}
			continue
		case s.Kind == wire.KindGSS && !secure && !gss:
			gss = true
			if _, err := c.conn.Write([]byte{'N'}); err != nil {
				return err
			}
			continue
		case s.Kind == wire.KindSSL || s.Kind == wire.KindGSS:
			return fmt.Errorf("%w: encryption asked for twice", wire.ErrProtocol)
		case s.Kind == wire.KindStartup && !secure && c.options().RequireTLS:
			return wire.Fatal("28000", "this server only accepts connections over TLS", "Connect with sslmode=require or verify-full.")
		}
		c.startup = s
		return nil
	}
}

// firstPacket reads a start-up packet, or starts TLS when the client begins
// with it at once (PostgreSQL 17's sslnegotiation=direct).
func (c *client) firstPacket(ctx context.Context, talked bool) (s wire.Startup, direct bool, err error) {
	var head [1]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return s, false, err
	}
	if head[0] == 0x16 && !talked && c.options().ClientTLS != nil {
		conn, err := c.shakeHands(ctx, head[:1])
		if err == nil && conn.ConnectionState().NegotiatedProtocol != alpn {
			err = fmt.Errorf("TLS with client: direct TLS without ALPN %q", alpn)
		}
		return s, err == nil, err
	}
	s, err = wire.ReadStartup(c.conn, head[0])
	return s, false, err
}

func (c *client) startTLS(ctx context.Context) (bool, error) {
	answer := byte('S')
	if c.options().ClientTLS == nil {
		answer = 'N'
	}
	if _, err := c.conn.Write([]byte{answer}); err != nil {
		return false, err
	}
	if c.options().ClientTLS == nil {
		return false, nil
	}
	_, err := c.shakeHands(ctx, nil)
	return err == nil, err
}

// shakeHands begins TLS with a client. That takes a while, so the log-in goes on
// outside of the loop. prefix was read already.
func (c *client) shakeHands(ctx context.Context, prefix []byte) (*tls.Conn, error) {
	if err := c.leave(ctx); err != nil {
		return nil, err
	}
	conn := tlsmem.Server(c.conn, c.options().ClientTLS, prefix)
	if err := conn.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS with client: %w", err)
	}
	c.conn = conn
	return conn, nil
}

func withALPN(cfg *tls.Config) *tls.Config {
	if len(cfg.NextProtos) == 0 {
		cfg.NextProtos = []string{alpn}
	}
	return cfg
}

// admit checks the start-up packet.
func (c *client) admit() error {
	c.user = c.startup.User()
	if c.user == "" {
		return wire.Fatal("28000", "no PostgreSQL user name specified in startup packet", "")
	}
	if c.draining.Load() {
		return errShutdown()
	}
	if err := c.allowed(); err != nil {
		return err
	}
	if err := c.mayReplicateAs(); err != nil {
		return err
	}
	version, unknown, tell := c.startup.Speaks()
	c.version = version
	if tell {
		_, err := c.conn.Write(wire.AppendNegotiate(nil, version, unknown))
		return err
	}
	return nil
}

// count counts a client that has proved who it is: strangers take nobody's place.
func (c *client) count() error {
	c.Stats.Clients[c.port].Add(1)
	c.admitted = true
	if c.Stats.Clients[ReadWrite].Load()+c.Stats.Clients[ReadOnly].Load() > int64(c.options().MaxClients) {
		return wire.Fatal("53300", fmt.Sprintf("sorry, too many clients already: the proxy allows %d (proxy.max_clients)", c.options().MaxClients),
			"Close unused connections, or raise proxy.max_clients on the proxy's host.")
	}
	c.visitor.leave()
	return nil
}

// allowed asks pg_hba.conf's lines, as PostgreSQL would: before it asks for a
// password. There the client would bear the proxy's address.
func (c *client) allowed() error {
	physical, err := c.startup.Replication()
	if err != nil {
		return err
	}
	if c.user == cluster.RoleReplication || c.user == cluster.RoleRewind { // members come to the nodes themselves
		return wire.Fatal("28000", fmt.Sprintf("pg_hba.conf rejects connection for user \"%s\": the proxy does not pass it on", c.user), "")
	}
	_, secure := c.conn.(*tls.Conn)
	if e := c.options().HBA.Refuses(hba.Client{Addr: remote(c.conn), TLS: secure, User: c.user, Database: c.startup.Database(),
		Replication: physical}); e != "" {
		return wire.Fatal("28000", e, "See postgresql.hba in the configuration of the proxy's host.")
	}
	return nil
}

// serverParams are the start-up parameters for PostgreSQL.
func (c *client) serverParams() []wire.Param {
	var extra []wire.Param
	if c.port == ReadOnly {
		extra = append(extra, readsOnly)
	}
	if c.secret.Muted { // the role's own default would hide warnings from us
		extra = append(extra, wire.Param{Name: "client_min_messages", Value: "warning"})
	}
	return wire.ForServer(c.startup.Params, extra...)
}

// hidesWarnings says whether the client's sessions begin without warnings.
func (c *client) hidesWarnings() bool {
	hides, set := wire.HidesWarnings(c.startup.Params)
	return hides || c.secret.Muted && !set
}

// fail ends a client that did not become a session.
func (c *client) fail(err error) {
	c.Stats.Failures[c.port].Add(1)
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		c.Log.Info("client refused", "remote", remote(c.conn), "port", c.port.String(), "user", c.user, "code", e.Code, "error", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		c.Log.Debug("client left during log-in", "remote", remote(c.conn), "error", err)
		return
	case errors.Is(err, os.ErrDeadlineExceeded):
		e = wire.Fatal("08006", fmt.Sprintf("log-in not completed within %s", c.options().LoginTimeout), "")
		if c.draining.Load() {
			e = errShutdown()
		}
		c.Log.Info("log-in timed out", "remote", remote(c.conn), "user", c.user)
	case errors.Is(err, wire.ErrProtocol):
		e = wire.Fatal("08P01", err.Error(), "")
		c.Log.Info("client does not speak the protocol", "remote", remote(c.conn), "error", err)
	default:
		c.Log.Info("client lost during log-in", "remote", remote(c.conn), "user", c.user, "error", err)
		return
	}
	farewell(c.conn, e)
}

// cancel forwards a cancel request. The client learns nothing from us, as from
// PostgreSQL: it only sees the connection closed once the request was read.
func (c *client) cancel(ctx context.Context) {
	secret, passed := strings.CutSuffix(string(c.startup.Key), passedOn)
	key := cancelKey{c.startup.PID, secret}
	if in := c.registry.console(key); in != nil {
		in.Cancel()
		return
	}
	s := c.registry.find(key)
	ctx, cancel := context.WithTimeout(ctx, c.options().LoginTimeout)
	defer cancel()
	switch {
	case s != nil:
		s.cancel(ctx)
	case passed || c.Others == nil:
		c.Log.Info("cancel request for an unknown session", "remote", remote(c.conn))
	default:
		c.passOn(ctx, key)
	}
}

func remote(conn net.Conn) string { return conn.RemoteAddr().String() }

// linger is how long a client has to read our last words.
const linger = 500 * time.Millisecond

// farewell tells the client why its connection ends. Closing a socket with
// unread bytes in it resets the connection and can destroy the message on its
// way, so what the client still sends is read until it closes, for a moment.
func farewell(conn net.Conn, e *wire.Error) {
	if conn.SetDeadline(time.Now().Add(linger)) != nil {
		return
	}
	if _, err := conn.Write(e.Append(nil)); err != nil {
		return
	}
	if w, ok := conn.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		io.Copy(io.Discard, conn)
	}
}
