package conv

import (
	"fmt"

	"manada/internal/proxy/wire"
)

// discardAll clears a session of what its client has left in it.
var discardAll = wire.AppendMessage(nil, wire.TypeQuery, []byte("DISCARD ALL\x00"))

// Discard is what is to be sent to a link that was given back with How Discard.
// Discarding takes the answer.
func (l *Link) Discard() []byte {
	l.sent(entry{kind: query, ours: true})
	return discardAll
}

// Discarding takes of b what the server has said to Discard. Once it is done the link
// is as after its log-in, and anybody may have it. After an error nobody may.
func (l *Link) Discarding(b []byte) (n int, done bool, err error) {
	for !done && len(b)-n >= headerLen {
		rest := b[n:]
		total := messageLen(rest)
		if total < headerLen || total > maxLooked {
			return n, false, fmt.Errorf("%w: message %q with length %d", wire.ErrProtocol, rest[0], total-1)
		}
		if len(rest) < total {
			return n, false, nil
		}
		if done, err = l.discards(rest[0], rest[headerLen:total]); err != nil {
			return n, false, err
		}
		n += total
	}
	return n, done, nil
}

func (l *Link) discards(typ byte, body []byte) (done bool, err error) {
	switch typ {
	case wire.TypeNotice, 'A': // for nobody
		return false, nil
	case wire.TypeParameterStatus:
		if name, value, ok := wire.ParseParameterStatus(body); ok {
			l.reported = l.reported.with(name, value)
		}
		return false, nil
	case wire.TypeError:
		return false, wire.ParseError(body)
	}
	if _, _, ok := l.answer(typ); !ok {
		return false, fmt.Errorf("%w: message %q that nothing asked for", wire.ErrProtocol, typ)
	}
	if typ != wire.TypeReady {
		return false, nil
	}
	if len(body) != 1 || body[0] != 'I' {
		return false, fmt.Errorf("%w: a transaction is open", wire.ErrProtocol)
	}
	l.ready('I')
	l.vars, l.plain, l.numbers, l.news = nil, nil, 0, l.news[:0]
	l.stmts.clear(l.stmts.seq)
	return true, nil
}
