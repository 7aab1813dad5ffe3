package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Message types that the proxy knows by name. The direction is in the comment
// where a letter means two things.
const (
	TypeAuth            = 'R'
	TypeBackendKey      = 'K'
	TypeParameterStatus = 'S' // from the server
	TypeReady           = 'Z'
	TypeError           = 'E' // from the server
	TypeNotice          = 'N'
	TypeNegotiate       = 'v'
	TypeDataRow         = 'D' // from the server
	TypeComplete        = 'C' // from the server

	TypePassword     = 'p'
	TypeQuery        = 'Q'
	TypeSync         = 'S' // from the client
	TypeFunctionCall = 'F'
	TypeTerminate    = 'X'
)

// Authentication requests.
const (
	AuthOK        = 0
	AuthCleartext = 3
	AuthMD5       = 5
	AuthSASL      = 10
	AuthSASLCont  = 11
	AuthSASLFinal = 12
)

// ErrProtocol means that the peer does not speak the protocol.
var ErrProtocol = errors.New("protocol violation")

// headerLen is the type byte and the length word.
const headerLen = 5

// AppendMessage appends a whole message.
func AppendMessage(b []byte, typ byte, body []byte) []byte {
	b = append(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(body)))
	return append(b, body...)
}

// begin appends a header whose length end fills in.
func begin(b []byte, typ byte) ([]byte, int) {
	b = append(b, typ, 0, 0, 0, 0)
	return b, len(b) - 4
}

func end(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

func cstring(b []byte, s string) []byte { return append(append(b, s...), 0) }

// AppendAuth appends an authentication request with its data.
func AppendAuth(b []byte, code uint32, data []byte) []byte {
	b, at := begin(b, TypeAuth)
	b = binary.BigEndian.AppendUint32(b, code)
	return end(append(b, data...), at)
}

// AppendAuthSASL offers SASL mechanisms.
func AppendAuthSASL(b []byte, mechanisms ...string) []byte {
	var data []byte
	for _, m := range mechanisms {
		data = cstring(data, m)
	}
	return AppendAuth(b, AuthSASL, append(data, 0))
}

// AppendSASLInitial is the client's choice of mechanism with its first message.
func AppendSASLInitial(b []byte, mechanism string, first []byte) []byte {
	b, at := begin(b, TypePassword)
	b = cstring(b, mechanism)
	b = binary.BigEndian.AppendUint32(b, uint32(len(first)))
	return end(append(b, first...), at)
}

// ParseSASLInitial takes AppendSASLInitial's body apart.
func ParseSASLInitial(body []byte) (mechanism string, first []byte, err error) {
	mechanism, rest, ok := cutString(body)
	if !ok || len(rest) < 4 || int64(binary.BigEndian.Uint32(rest)) != int64(len(rest)-4) {
		return "", nil, fmt.Errorf("%w: malformed SASL response", ErrProtocol)
	}
	return mechanism, rest[4:], nil
}

// AppendParameterStatus reports a setting.
func AppendParameterStatus(b []byte, name, value string) []byte {
	b, at := begin(b, TypeParameterStatus)
	return end(cstring(cstring(b, name), value), at)
}

// ParseParameterStatus takes the body apart.
func ParseParameterStatus(body []byte) (name, value string, ok bool) {
	name, rest, ok := cutString(body)
	if !ok {
		return "", "", false
	}
	value, _, ok = cutString(rest)
	return name, value, ok
}

// AppendBackendKey gives the client its cancel key.
func AppendBackendKey(b []byte, pid uint32, key []byte) []byte {
	b, at := begin(b, TypeBackendKey)
	b = binary.BigEndian.AppendUint32(b, pid)
	return end(append(b, key...), at)
}

// AppendNegotiate says which protocol is spoken and which options are unknown.
func AppendNegotiate(b []byte, version uint32, unknown []string) []byte {
	b, at := begin(b, TypeNegotiate)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(unknown)))
	for _, o := range unknown {
		b = cstring(b, o)
	}
	return end(b, at)
}

// ReadMessage reads one message and not a byte more. It is for the few messages
// before a client is logged in.
func ReadMessage(r io.Reader, max int) (typ byte, body []byte, err error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(h[1:])) - 4
	if n < 0 || n > int64(max) {
		return 0, nil, fmt.Errorf("%w: message %q of %d bytes", ErrProtocol, h[0], n)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return h[0], body, err
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), b[i+1:], true
		}
	}
	return "", nil, false
}
