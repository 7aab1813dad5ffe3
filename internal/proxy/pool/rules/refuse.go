package rules

import (
	"fmt"
	"time"

	"manada/internal/proxy/wire"
)

// tooMany is too_many_connections.
const tooMany = "53300"

// final says whether PostgreSQL's refusal is told to those who wait: trying again
// in a moment would not help. Connections that are too many, a node that starts or
// cannot be reached, may be different soon.
func final(err *wire.Error) bool {
	switch err.Class() {
	case "08", "53", "57", "58", "XX":
		return false
	}
	return true
}

// revokes says whether a refusal means that the role has lost its right, so that
// its servers from before are nobody's. A password that was changed is not: what
// was open stays open in PostgreSQL too.
func revokes(err *wire.Error) bool {
	switch err.Code {
	case "28000", "42501", "3D000", "55000":
		return true
	}
	return false
}

// backoff spaces attempts that fail. One at a time is made until one succeeds.
type backoff struct {
	at    Moment
	step  time.Duration
	cause *wire.Error
}

const (
	leastBackoff = 50 * time.Millisecond
	mostBackoff  = 2 * time.Second
)

func (r *backoff) failed(now Moment, err *wire.Error) {
	r.step = min(max(2*r.step, leastBackoff), mostBackoff)
	r.at, r.cause = now+r.step, err
}

// allows says whether one more attempt may be made beside those under way.
func (r *backoff) allows(now Moment, underWay int) bool {
	return r.cause == nil || underWay == 0 && now >= r.at
}

// refusal is what somebody is told who asks before the next attempt.
func (r *backoff) refusal(now Moment) *wire.Error {
	if r.cause != nil && final(r.cause) && now < r.at {
		return r.cause
	}
	return nil
}

func errTooMany(limit int) *wire.Error {
	return wire.Fatal(tooMany, fmt.Sprintf("sorry, too many clients already: the proxy allows %d (proxy.max_clients)", limit),
		"Close unused connections, or raise proxy.max_clients on the proxy's host.")
}

func errRole(user string) *wire.Error {
	return wire.Fatal(tooMany, fmt.Sprintf("too many connections for role \"%s\"", user), "")
}

func errClients(whose string, limit int) *wire.Error {
	return wire.Fatal(tooMany, fmt.Sprintf("too many clients for %s: the proxy allows %d (max_clients in proxy.pool.overrides)", whose, limit), "")
}

// Disabled is what clients of a database are told that was disabled at the console.
func Disabled(database string) *wire.Error {
	return wire.Fatal("55000", fmt.Sprintf("database \"%s\" is not currently accepting connections", database),
		"It was disabled at this proxy's console. ENABLE lets clients in again.")
}

func errKilled() *wire.Error {
	return wire.Fatal("57P01", "terminating connection due to administrator command", "KILL was given at the proxy's console.")
}

// errQueue is for a claim that has waited for too long.
func (b *Book) errQueue(c *Claim) *wire.Error {
	p := c.pool
	wait := p.Account.Settings.QueueTimeout
	switch {
	case p.Node == b.nowhere && !c.anyNode:
		return wire.Fatal("57P03", fmt.Sprintf("no standby could be read from within %s (proxy.pool.queue_timeout)", wait),
			"Try again in a moment, or use the read-write port; see what the standbys do with: manada status")
	case p.Node == b.nowhere:
		return wire.Fatal("57P03", fmt.Sprintf("no primary to connect to after waiting %s: %s", wait, b.why),
			"Try again in a moment; see what the herd waits for with: manada status")
	}
	e := wire.Fatal(tooMany, fmt.Sprintf("no server connection became free within %s (proxy.pool.queue_timeout)", wait), "")
	switch cause := p.failure(); {
	case b.held(p):
		e.Detail = fmt.Sprintf("Database \"%s\" is paused at this proxy's console.", p.Account.Database.Name)
	case cause != nil:
		e.Detail = "The last attempt to open one failed: " + cause.Error()
	case len(p.servers) == 0:
		e.Detail = fmt.Sprintf("All %d connections that the proxy may have to %s are in use by other databases and users.", p.Node.limit, p.Node.Name)
	default:
		e.Detail = fmt.Sprintf("The pool's %d connections to %s were in use.", len(p.servers), p.Node.Name)
		e.Hint = "Shorter transactions help, or a greater proxy.pool.size."
	}
	return e
}

// failure is why the last attempt to open a connection failed, nil when it did not.
func (p *Pool) failure() *wire.Error {
	if p.retry.cause != nil {
		return p.retry.cause
	}
	return p.Node.retry.cause
}
