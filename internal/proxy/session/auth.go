package session

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/scram"
	"manada/internal/proxy/wire"
)

// maxSASL bounds a client's authentication message, in bytes.
const maxSASL = 8192

// authenticate runs SCRAM with the client up to its proof. The returned message
// completes the exchange; it is only sent once PostgreSQL has accepted the user
// too, so that every reason to refuse (no LOGIN, no such database, expired
// password) reaches the client as PostgreSQL words it.
func (c *client) authenticate(ctx context.Context) (scram.Keys, []byte, error) {
	c.visitor.working(true)
	v, known, err := c.verifier(ctx)
	c.visitor.working(false)
	if err != nil {
		return scram.Keys{}, nil, err
	}
	if err := c.patience(ctx); err != nil {
		return scram.Keys{}, nil, err
	}
	if _, err := c.conn.Write(wire.AppendAuthSASL(nil, scram.Mechanism)); err != nil {
		return scram.Keys{}, nil, err
	}
	body, err := c.password()
	if err != nil {
		return scram.Keys{}, nil, err
	}
	mechanism, first, err := wire.ParseSASLInitial(body)
	if err != nil {
		return scram.Keys{}, nil, err
	}
	if mechanism != scram.Mechanism {
		return scram.Keys{}, nil, wire.Fatal("08P01", fmt.Sprintf("client selected an invalid SASL authentication mechanism \"%s\"", mechanism), "")
	}
	x := scram.NewServer(v, known)
	reply, err := x.First(first)
	if err != nil {
		return scram.Keys{}, nil, c.refuse(err)
	}
	if _, err := c.conn.Write(wire.AppendAuth(nil, wire.AuthSASLCont, reply)); err != nil {
		return scram.Keys{}, nil, err
	}
	if body, err = c.password(); err != nil {
		return scram.Keys{}, nil, err
	}
	var final []byte
	var keys scram.Keys
	err = scram.ErrProof
	check := func() bool {
		final, keys, err = x.Final(body)
		return err == nil
	}
	if c.guesses.attempt(c.visitor.host, c.user, check) > 0 { // it has guessed before, and waits
		c.guest.Beside(func() { c.guesses.try(ctx, c.visitor.host, c.user, check) })
	}
	if err != nil {
		return scram.Keys{}, nil, c.refuse(err)
	}
	return keys, final, nil
}

// password reads the client's next authentication message.
func (c *client) password() ([]byte, error) {
	typ, body, err := wire.ReadMessage(c.conn, maxSASL)
	if err != nil {
		return nil, err
	}
	if typ != wire.TypePassword {
		return nil, fmt.Errorf("%w: message %q instead of an authentication response", wire.ErrProtocol, typ)
	}
	return body, nil
}

// refuse turns a failed exchange into what the client is told. A wrong password
// and an unknown role look the same.
func (c *client) refuse(err error) error {
	c.Verifiers.Forget(c.user, c.startup.Database())
	switch {
	case errors.Is(err, scram.ErrProof):
		c.Stats.AuthFailures.Add(1)
		return wire.Fatal("28P01", fmt.Sprintf("password authentication failed for user \"%s\"", c.user), "")
	case errors.Is(err, scram.ErrChannelBinding):
		return wire.Fatal("28000", "channel binding is not available through the proxy", "Connect without channel_binding=require.")
	}
	return wire.Fatal("08P01", err.Error(), "")
}

// mayEnter refuses whom PostgreSQL would refuse although the password is right. How
// many there are of a role or in a database only PostgreSQL knows.
func (c *client) mayEnter() error {
	physical, err := c.startup.Replication()
	if physical || err != nil { // it belongs to no database
		return err
	}
	database := c.startup.Database()
	if e := c.secret.Rights.Refuse(c.user, database, 0, 0); e != nil {
		return e
	}
	if c.disabled.is(database) {
		return rules.Disabled(database)
	}
	return nil
}

// verifier finds what the client's proof is checked against. For a role that
// does not exist, has no password or none for SCRAM it is a mock, and known is
// false: which of them it is nobody is told before a proof.
func (c *client) verifier(ctx context.Context) (v scram.Verifier, known bool, err error) {
	name := c.user
	if !utf8.ValidString(name) {
		name = "" // there is none; it is looked up all the same, for how long that takes
	}
	database := c.startup.Database()
	if !utf8.ValidString(database) {
		database = ""
	}
	secret, err := c.lookUp(ctx, name, database)
	if err != nil {
		return v, false, err
	}
	mock := scram.Mock(c.options().MockSecret, c.user, secret.Iterations)
	c.secret = secret
	if !secret.Exists || secret.Password == "" {
		return mock, false, nil
	}
	if v, err = scram.ParseVerifier(secret.Password); err != nil {
		// Told to those who read the log, not to whoever asks: it says that the role exists.
		c.Log.Warn("log-in refused: the proxy only speaks SCRAM. Set the password again: SET password_encryption = 'scram-sha-256', then \\password",
			"user", c.user, "remote", remote(c.conn), "error", err)
		return mock, false, nil
	}
	return v, true, nil
}

// lookUp asks for what is stored for the role: the primary, which nearly always answers
// at once.
func (c *client) lookUp(ctx context.Context, role, database string) (secret pool.Secret, err error) {
	err = errNoNode
	if v := c.Topology.Current(); v.HasPrimary() && !v.CutOff {
		c.guest.Until(func(done func()) {
			c.Verifiers.Ask(v.Primary.Nearest(), role, database, func(s pool.Secret, failed error) {
				secret, err = s, failed
				done()
			})
		})
	}
	if err != nil {
		c.guest.Beside(func() { secret, err = c.lookLonger(ctx, role, database) })
	}
	return secret, err
}

// lookLonger asks the primary, else a standby, and waits while no node answers.
func (c *client) lookLonger(ctx context.Context, role, database string) (pool.Secret, error) {
	var secret pool.Secret
	err := c.retry(ctx, func(ctx context.Context) error {
		v := c.Topology.Current()
		ctx, cancel := whilePrimary(ctx, c.Topology, v)
		defer cancel()
		err := errNoNode
		if v.HasPrimary() {
			if err = c.reachable(ctx, v); err == nil {
				secret, err = c.Verifiers.Lookup(ctx, v.Primary.Nearest(), role, database)
			} else if c.port == ReadOnly {
				err = errNoNode // what a standby says is enough
			}
			if err == nil {
				return nil
			}
		}
		for _, s := range v.Standbys {
			if !transient(err) && !tooMany(err) { // a full primary may still have room for the client
				break
			}
			var other error
			if secret, other = c.Verifiers.Lookup(ctx, s.Nearest(), role, database); other == nil {
				return nil
			} else if errors.Is(err, errNoNode) {
				err = other
			}
		}
		return err
	})
	var own refusal
	if err == nil || transient(err) || tooMany(err) || errors.As(err, &own) { // what is transient here was waited for long enough
		return secret, err
	}
	c.Log.Error("role look-up failed", "user", c.user, "error", err)
	var e *wire.Error
	if tooMany(err) && errors.As(err, &e) {
		return secret, wire.Fatal(e.Code, e.Message, "PostgreSQL has no connection left, not even to look up the role. Close sessions, or raise max_connections.")
	}
	return secret, wire.Fatal("58000", "the proxy cannot look up roles: "+err.Error(),
		"The role manada_proxy needs to log in and to execute manada.user_lookup(name) in database postgres.")
}
