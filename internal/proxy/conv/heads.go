package conv

import (
	"bytes"

	"manada/internal/proxy/wire"
)

// What comes before the first row of an answer is passed on with what follows it: a
// statement of which the client has nothing yet can be done again on another server.

// maxHeads bounds what is held, in bytes.
const maxHeads = 8 << 10

// heads says whether b, from a server, is only the beginning of an answer that goes on by
// itself. gone is how much of it stands before a server's last words.
func (c *Conv) heads(l *Link, b []byte) (more bool, gone int) {
	if !c.mayHold(l) {
		return false, 0
	}
	for n := 0; n < maxHeads; {
		rest := b[n:]
		if len(rest) < headerLen {
			return true, 0
		}
		total := messageLen(rest)
		have := rest[:min(total, len(rest))]
		switch {
		case head[rest[0]]:
		case (rest[0] == wire.TypeError || rest[0] == wire.TypeNotice) && len(have) < total && total < maxLooked:
			return true, 0 // to be read first
		case rest[0] == wire.TypeError && severityIs(have[headerLen:], "FATAL"):
			return false, n
		case rest[0] == wire.TypeNotice && bytes.Contains(have, ends57):
		default:
			return false, 0
		}
		if len(have) < total {
			return total < maxHeads, 0
		}
		n += total
	}
	return false, 0
}

// head are the messages that come before the first row.
var head = [256]bool{'1': true, '2': true, '3': true, 'T': true, 't': true, 'n': true}

// ends57 is in the warning with which a server ends that is stopped at once.
var ends57 = []byte("\x00C57P0")

// mayHold says whether an answer of which the client has nothing is one of those.
func (c *Conv) mayHold(l *Link) bool {
	if c.owed.relayed || !c.owed.whole || l.status != 'I' || !c.pooled() || l.q.ends() != 1 {
		return false
	}
	_, stays := c.stays()
	e := l.q.front()
	return !stays && e != nil && !e.ours
}
