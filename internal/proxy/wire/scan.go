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
// nothing and looks only into ready messages, errors and notices.
type ServerScan struct {
	skip int  // bytes of the current message still to come
	pass bool // Pass was called

	// Watch makes Feed stop for what is only looked at in few sessions: before a
	// warning and an answer to Parse, after ReadyForQuery.
	Watch bool
	// Named makes Feed keep what the server reports as application_name in Name.
	Named bool
	Name  string
	// RolledBack says, of what was watched, that a transaction or a part of it was
	// rolled back since the last ReadyForQuery.
	RolledBack bool
	// CopyIns counts how often the server began to read COPY's data, and CopyIn
	// says that it is reading. Until it ends it ignores Sync.
	CopyIns uint64
	CopyIn  bool
	// Fatal says that the server has said its last words.
	Fatal bool

	// Status is the transaction status of the last ReadyForQuery: I, T or E.
	Status byte
	// Ready counts ReadyForQuery messages.
	Ready uint64
	// Errors counts ErrorResponse messages, and Failed says that one came between
	// the last two ReadyForQuery.
	Errors uint64
	Failed bool
	before uint64 // Errors at the last ReadyForQuery
	// Last is the type of the last message that began.
	Last byte
}

// AtBoundary says whether everything passed on so far were whole messages, so
// that a message of our own may follow.
func (s *ServerScan) AtBoundary() bool { return s.skip == 0 }

// Found is why Feed stopped before the end of what it was given.
type Found struct {
	// Unreplicated: behind what may be passed on is the warning that a commit was
	// not replicated. Nothing more may be passed on.
	Unreplicated bool
	// Size is the length of a message behind what may be passed on that is for the
	// caller to drop, or to let through with Pass. It is a warning or, with
	// Parsed, the answer to a Parse. 0: there is none.
	Size   int
	Parsed bool
	// Again: there is more in what was given, behind a ReadyForQuery.
	Again bool
}

// Pass lets the message through for which Feed stopped.
func (s *ServerScan) Pass() { s.pass = true }

// Feed examines b, which continues where the last call's forwarded bytes ended.
// The first n bytes may be passed on; the rest has to be presented again, with
// more data behind it when nothing was found.
func (s *ServerScan) Feed(b []byte) (n int, f Found, err error) {
	if s.skip > 0 {
		n = min(s.skip, len(b))
		s.skip -= n
	}
	for s.skip == 0 && len(b)-n >= headerLen {
		typ := b[n]
		total := 1 + int(binary.BigEndian.Uint32(b[n+1:]))
		if total < headerLen {
			return n, f, fmt.Errorf("%w: message %q with length %d", ErrProtocol, typ, total-1)
		}
		have := len(b) - n
		if have < min(total, s.wants(typ, total)) {
			return n, f, nil
		}
		if f = s.look(typ, b[n+headerLen:n+min(total, have)], total); f.Unreplicated || f.Size > 0 {
			return n, f, nil
		}
		s.Last, s.pass = typ, false
		if have < total {
			s.skip = total - have
			return len(b), f, nil
		}
		if n += total; typ == TypeReady && s.Watch {
			f.Again = n < len(b)
			return n, f, nil
		}
	}
	return n, f, nil
}

// wants is how much of a message has to be there to be looked at.
func (s *ServerScan) wants(typ byte, total int) int {
	switch {
	case typ == TypeNotice && total > MaxHold, typ == TypeComplete && !s.Watch:
		return headerLen
	case typ == TypeError, typ == TypeComplete:
		return headerLen + maxSeverity
	case typ == TypeNotice:
		return total
	case typ == TypeReady:
		return headerLen + 1
	case typ == TypeParameterStatus && s.Named && total <= MaxHold:
		return total
	}
	return headerLen
}

// look takes note of a message; body is as much of it as is there.
func (s *ServerScan) look(typ byte, body []byte, total int) (f Found) {
	switch typ {
	case TypeReady:
		if len(body) > 0 {
			s.Status = body[0]
		}
		s.Ready++
		s.Failed, s.before = s.Errors != s.before, s.Errors
		s.CopyIn = false
	case TypeParameterStatus:
		if name, value, ok := ParseParameterStatus(body); ok && s.Named && name == "application_name" {
			s.Name = value
		}
	case TypeError:
		s.Errors++
		s.CopyIn = false
		s.Fatal = severityIs(body, "FATAL") || severityIs(body, "PANIC")
	case typeCopyIn:
		s.CopyIns++
		s.CopyIn = true
	case TypeComplete:
		s.CopyIn = false
		if s.Watch && bytes.HasPrefix(body, []byte("ROLLBACK\x00")) {
			s.RolledBack = true
		}
	case typeParsed:
		if s.Watch && !s.pass && total == headerLen {
			return Found{Size: total, Parsed: true}
		}
	case TypeNotice:
		switch {
		case total > MaxHold:
		case warnsUnreplicated(body):
			return Found{Unreplicated: true}
		case s.Watch && !s.pass && severityIs(body, "WARNING"):
			return Found{Size: total}
		}
	}
	return f
}

// maxSeverity is how far into an error its severity is, at most.
const maxSeverity = 64

// severityIs looks at the second field, V, which is not translated.
func severityIs(body []byte, severity string) bool {
	_, rest, ok := bytes.Cut(body, []byte{0})
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

	broken  bool
	copyIns uint64 // of the server, known so far
	copying bool
	syncs   uint64 // since the last message that may begin a COPY
}

// CopyIn tells how often the server has begun to read COPY's data and whether it
// still does. It ignores Sync until the data end, also one that was sent before
// (libpq's extended protocol, for one, sends it with Execute).
func (s *ClientScan) CopyIn(begun uint64, reading bool) {
	if begun != s.copyIns {
		s.copyIns, s.copying = begun, true
		s.Asked -= s.syncs
		s.syncs, s.Tail = 0, true
	}
	s.copying = s.copying && reading
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
		case TypeSync:
			if s.copying {
				continue
			}
			s.syncs++
			s.Asked++
			s.Tail = false
		case TypeQuery, TypeFunctionCall:
			s.syncs = 0
			s.Asked++
			s.Tail = false
		case typeCopyDone, typeCopyFail:
			s.copying, s.Tail = false, true
		case typeExecute:
			s.syncs, s.Tail = 0, true
		case TypeTerminate:
			s.Left = true
		default:
			s.Tail = true
		}
	}
}
