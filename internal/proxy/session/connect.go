package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/scram"
	"manada/internal/proxy/wire"
)

var (
	errNoNode   = errors.New("no node to connect to")
	errRecovery = errors.New("the primary's PostgreSQL is still in recovery")
	errPromoted = errors.New("the standby is no longer one")
	errHeld     = errors.New("it is being switched over")
	errChanged  = errors.New("the primary changed meanwhile")
)

func errShutdown() *wire.Error {
	return wire.Fatal("57P01", "the proxy is shutting down", "Connect again: another proxy, or this one once it is back.")
}

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
	minAttempt = 2 * time.Second // an attempt gets at least this, whatever is left of ConnectWait
)

// connect opens a backend for the client on a node that its port promises, and
// waits for one, within ConnectWait. The session is registered.
func (c *client) connect(ctx context.Context, l pool.Login) (*session, *pool.Backend, error) {
	var s *session
	var b *pool.Backend
	err := c.retry(ctx, func(ctx context.Context) error {
		var d destination
		var err error
		if b, d, err = c.open(ctx, c.Topology.Current(), l); err != nil {
			return err
		}
		// Its loop compares again: it knows of every change that came before.
		if v := c.Topology.Current(); d.primary && v.Known && v.Epoch > d.epoch {
			b.Conn.Close()
			return errChanged
		}
		s = newSession(c, b, d)
		c.registry.add(s, c.version)
		return nil
	})
	if err == nil {
		return s, b, nil
	}
	return nil, nil, c.connectError(err)
}

// connectError is what a client is told whose log-in at PostgreSQL failed.
func (c *client) connectError(err error) error {
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		if e.Class() == "28" {
			c.Verifiers.Forget(c.user, c.startup.Database())
		}
	case transient(err): // the client left meanwhile
	case errors.Is(err, scram.ErrStale):
		// The password changed between the look-up and the log-in.
		err = c.refuse(scram.ErrProof)
	default:
		c.Log.Error("log-in to postgres failed", "user", c.user, "error", err)
		err = wire.Fatal("08006", "the proxy cannot log in to PostgreSQL: "+err.Error(), "See the proxy's log, and: manada status")
	}
	return err
}

// destination is where a session has landed.
type destination struct {
	node    route.Node
	epoch   uint64
	primary bool
}

// open makes one attempt at the nodes of a view.
func (c *client) open(ctx context.Context, v route.View, l pool.Login) (*pool.Backend, destination, error) {
	if c.port == ReadWrite {
		return c.openPrimary(ctx, v, l)
	}
	var last error
	skip := map[string]bool{}
	for {
		s, ok := c.Reader.Pick(v, skip)
		if !ok {
			break
		}
		skip[s.Name] = true
		b, err := c.Dialer.Open(ctx, c.way(s.Node), l)
		if err == nil {
			if standby, known := b.InRecovery(); standby || !known {
				return b, destination{s.Node, v.Epoch, false}, nil
			}
			b.Conn.Close()
			err = errPromoted
		}
		if !transient(err) && !tooMany(err) {
			return nil, destination{}, err
		}
		last = err
	}
	if c.options().ReadOnlyFallback {
		b, d, err := c.openPrimary(ctx, v, l)
		if err == nil {
			c.Stats.Fallbacks.Add(1)
		}
		return b, d, err
	}
	if !v.Known {
		return nil, destination{}, errNoNode
	}
	return nil, destination{}, refusal{noStandby(v, last)}
}

// refusal is an error of the proxy's own that waiting does not help against.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func noStandby(v route.View, last error) *wire.Error {
	e := wire.Fatal("57P03", "no standby can be read from at the moment",
		"Use the read-write port, or set read_only_fallback: true to let this port use the primary. What the standbys do: manada status")
	switch {
	case last != nil:
		e.Detail = last.Error()
	case len(v.Standbys) == 0:
		e.Detail = fmt.Sprintf("No standby is known in epoch %d.", v.Epoch)
	default:
		e.Detail = fmt.Sprintf("None of the %d standbys streams from the primary of epoch %d closely enough.", len(v.Standbys), v.Epoch)
	}
	return e
}

func (c *client) openPrimary(ctx context.Context, v route.View, l pool.Login) (*pool.Backend, destination, error) {
	if !v.HasPrimary() {
		return nil, destination{}, errNoNode
	}
	if c.holding.Load() {
		return nil, destination{}, errHeld
	}
	if err := c.reachable(ctx, v); err != nil {
		return nil, destination{}, err
	}
	ctx, cancel := whilePrimary(ctx, c.Topology, v)
	defer cancel()
	b, err := c.Dialer.Open(ctx, c.way(v.Primary), l)
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), errChanged) {
			err = errChanged
		}
		return nil, destination{}, err
	}
	if standby, _ := b.InRecovery(); standby {
		b.Conn.Close()
		return nil, destination{}, errRecovery
	}
	return b, destination{v.Primary, v.Epoch, true}, nil
}

// tryPath is how long the primary may take to answer a host that does not hear
// it while others do.
const tryPath = 400 * time.Millisecond

// reachable tries the path to a primary that others hear and this host does not.
// Nobody is kept waiting for that to change: the client has, or should have, the
// names of other proxies, and this is the error on which libpq goes on to them.
func (c *client) reachable(ctx context.Context, v route.View) error {
	if !v.CutOff {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tryPath)
	defer cancel()
	err := c.Dialer.Reach(ctx, v.Primary.Nearest())
	if err == nil {
		return nil
	}
	e := wire.Fatal("57P03", fmt.Sprintf("%s leads epoch %d and cannot be reached from this proxy, though other hosts hear it", v.Primary.Name, v.Epoch),
		"Connect through another proxy: name several hosts in the connection string. The network between this host and "+v.Primary.Name+" needs care.")
	e.Detail = err.Error()
	return refusal{e}
}

// whilePrimary ends an attempt when the view's primary is no longer the one to
// reach, or out of reach from here: a frozen host would otherwise hold it for
// the whole log-in time-out.
func whilePrimary(ctx context.Context, t route.Topology, v route.View) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			changed := t.Changed()
			if now := t.Current(); now.Epoch != v.Epoch || !now.Primary.Is(v.Primary) || now.CutOff && !v.CutOff {
				cancel(errChanged)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// retry repeats an attempt while it fails for reasons that pass, at every
// change of the topology and at intervals, within what is left of ConnectWait.
func (c *client) retry(ctx context.Context, try func(context.Context) error) error {
	start := time.Now()
	deadline := start.Add(c.options().ConnectWait - c.waited)
	waiting := false
	defer func() {
		c.waited += time.Since(start)
		if waiting {
			c.Stats.Waiting[c.port].Add(-1)
			if c.Stats.Waited != nil {
				c.Stats.Waited(time.Since(start))
			}
		}
	}()
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		changed := c.Topology.Changed()
		err := attempt(ctx, deadline, try)
		left := time.Until(deadline)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errShutdown()
		case !transient(err):
			return err
		case left <= 0:
			return c.gaveUp(err)
		}
		if !waiting {
			waiting = true
			c.Stats.Waiting[c.port].Add(1)
		}
		c.Stats.Retries.Add(1)
		t := time.NewTimer(min(backoff, left))
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if c.guest.Gone() {
			return io.EOF
		}
	}
}

func attempt(ctx context.Context, deadline time.Time, try func(context.Context) error) error {
	if least := time.Now().Add(minAttempt); deadline.Before(least) {
		deadline = least
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return try(ctx)
}

// gaveUp says what was waited for in vain.
func (c *client) gaveUp(last error) error {
	v := c.Topology.Current()
	wait := c.options().ConnectWait
	e := wire.Fatal("08006", fmt.Sprintf("cannot reach %s after waiting %s: %v", v.Primary.Name, wait, last),
		"Check the node, and see what the herd knows of it with: manada status")
	if !v.HasPrimary() {
		e = wire.Fatal("57P03", fmt.Sprintf("no primary to connect to after waiting %s: %s", wait, v.Why),
			"Try again in a moment; see what the herd waits for with: manada status")
		if !errors.Is(last, errNoNode) {
			e.Detail = last.Error()
		}
	}
	return e
}

// transient says whether an attempt may succeed a little later or elsewhere.
func transient(err error) bool {
	var e *wire.Error
	var own refusal
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &own):
		return false
	case errors.As(err, &e):
		switch e.Code {
		case "57P01", "57P02", "57P03": // shutting down, crashed, starting up
			return true
		}
		return e.Class() == "08"
	case errors.As(err, &cert), errors.Is(err, pool.ErrMethod), errors.Is(err, pool.ErrUnasked), errors.Is(err, pool.ErrPlain), errors.Is(err, pool.ErrStranger),
		errors.Is(err, scram.ErrStale), errors.Is(err, scram.ErrServer), errors.Is(err, wire.ErrProtocol):
		return false
	}
	return err != nil
}

func tooMany(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && e.Code == "53300"
}
