package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// maxNotice bounds the notices that are looked into; longer ones pass unseen.
// PostgreSQL's warning about an unreplicated commit is a few hundred bytes.
const maxNotice = 8192

// MaxHold is the largest number of bytes that a scan asks to be presented again.
const MaxHold = maxNotice + headerLen

// ServerScan follows the messages of a server by their headers. It allocates
// nothing and looks only into ready messages and notices.
type ServerScan struct {
	skip int // bytes of the current message still to come

	// Status is the transaction status of the last ReadyForQuery: I, T or E.
	Status byte
	// Ready counts ReadyForQuery messages.
	Ready uint64
	// Errors counts ErrorResponse messages.
	Errors uint64
	// Last is the type of the last message that began.
	Last byte
}

// AtBoundary says whether everything passed on so far were whole messages, so
// that a message of our own may follow.
func (s *ServerScan) AtBoundary() bool { return s.skip == 0 }

// Feed examines b, which continues where the last call's forwarded bytes ended.
// The first n bytes may be passed on; the rest has to be presented again with
// more data behind it, unless unreplicated is true: then b[n:] begins with the
// warning that a commit was not replicated and nothing more may be passed on.
func (s *ServerScan) Feed(b []byte) (n int, unreplicated bool, err error) {
	if s.skip > 0 {
		n = min(s.skip, len(b))
		s.skip -= n
	}
	for s.skip == 0 && len(b)-n >= headerLen {
		typ := b[n]
		total := 1 + int(binary.BigEndian.Uint32(b[n+1:]))
		if total < headerLen {
			return n, false, fmt.Errorf("%w: message %q with length %d", ErrProtocol, typ, total-1)
		}
		have := len(b) - n
		switch typ {
		case TypeReady:
			if have <= headerLen {
				return n, false, nil
			}
			s.Status = b[n+headerLen]
			s.Ready++
		case TypeError:
			s.Errors++
		case TypeNotice:
			if total <= MaxHold {
				if have < total {
					return n, false, nil
				}
				if warnsUnreplicated(b[n+headerLen : n+total]) {
					return n, true, nil
				}
			}
		}
		s.Last = typ
		if have < total {
			s.skip = total - have
			return len(b), false, nil
		}
		n += total
	}
	return n, false, nil
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
	return ParseError(notice).Unreplicated()
}

// ClientScan follows the messages of a client, only to know whether an answer
// is owed to it.
type ClientScan struct {
	skip   int
	header [headerLen]byte
	have   int // bytes of a split header

	// Asked counts the messages that a server answers with ReadyForQuery.
	Asked uint64
	// Tail says that something was sent since the last of them.
	Tail bool
	// Left says that the client said good-bye.
	Left bool

	broken bool
}

// Feed examines the next bytes. All of them may be passed on, always: what is
// wrong with them is PostgreSQL's to say.
func (s *ClientScan) Feed(b []byte) {
	for len(b) > 0 && !s.broken {
		if s.skip > 0 {
			n := min(s.skip, len(b))
			s.skip -= n
			b = b[n:]
			continue
		}
		h := b
		if s.have > 0 || len(b) < headerLen {
			n := copy(s.header[s.have:], b)
			s.have += n
			b = b[n:]
			if s.have < headerLen {
				s.Tail = true
				return
			}
			h, s.have = s.header[:], 0
		} else {
			b = b[headerLen:]
		}
		length := int(binary.BigEndian.Uint32(h[1:]))
		if length < 4 {
			s.broken, s.Tail = true, true
			return
		}
		s.skip = length - 4
		switch h[0] {
		case TypeQuery, TypeSync, TypeFunctionCall:
			s.Asked++
			s.Tail = false
		case TypeTerminate:
			s.Left = true
		default:
			s.Tail = true
		}
	}
}
