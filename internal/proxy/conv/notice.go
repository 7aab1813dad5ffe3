package conv

import (
	"bytes"
	"encoding/binary"

	"manada/internal/proxy/wire"
)

// notice is a warning, or something else that nobody asked for.
func (c *Conv) notice(r *run, side Side, body []byte, total int) act {
	if total > maxLooked {
		return pass
	}
	switch {
	case side == Main && warnsUnreplicated(body):
		r.flush()
		r.fx.Count.Unreplicated++
		r.fx.add(Effect{Kind: Warn, Text: "commit not replicated, not passed on as success"})
		c.give(Main, Close, r.fx)
		c.end(unreplicated(), r.fx)
		return over
	case side == Reader && c.wait != forAnswer, c.set.hides && severityIs(body, "WARNING"):
		return strip
	}
	if side == Reader && !c.read.passed {
		c.read.hold = wire.AppendMessage(c.read.hold, wire.TypeNotice, body)
		if len(c.read.hold) > MaxBatch {
			c.commitAnswer(r)
		}
		return strip
	}
	return pass
}

// severityIs looks at the second field, V, which is not translated.
func severityIs(body []byte, severity string) bool {
	_, rest, ok := bytes.Cut(body, zero)
	return ok && len(rest) > len(severity)+1 && rest[0] == 'V' && string(rest[1:1+len(severity)]) == severity && rest[1+len(severity)] == 0
}

var (
	syncRoutine = []byte("SyncRepWaitForLSN")
	syncText    = []byte("canceling wait for synchronous replication")
)

// warnsUnreplicated looks for the words before it parses: a flood of notices must
// not cost allocations.
func warnsUnreplicated(notice []byte) bool {
	if !bytes.Contains(notice, syncRoutine) && !bytes.Contains(notice, syncText) {
		return false
	}
	return wire.ParseError(notice).Unreplicated()
}

// notification is a NotificationResponse. The client's own have the process id that it
// was told.
func (c *Conv) notification(r *run, side Side, l *Link, msg []byte, total int) act {
	body := msg[headerLen:]
	switch {
	case side == Reader:
		return strip
	case c.cfg.PID == 0 || l.PID == 0 || len(msg) < total || len(body) < 4 || uint32At(body) != l.PID:
		return pass
	}
	r.flush()
	r.fx.say(Client, 'A', append(binary.BigEndian.AppendUint32(nil, c.cfg.PID), body[4:]...))
	return strip
}
