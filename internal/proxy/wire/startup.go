package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Kind of the first packet of a connection.
type Kind int

// What a client may open with.
const (
	KindStartup Kind = iota
	KindSSL
	KindGSS
	KindCancel
)

// Protocol versions, major<<16 | minor.
const (
	Version30 = 3 << 16
	Version32 = 3<<16 | 2

	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680

	maxStartup = 10000 // PostgreSQL's MAX_STARTUP_PACKET_LENGTH
	maxKey     = 256
)

// Param is a start-up parameter; their order is kept.
type Param struct{ Name, Value string }

// Startup is the first packet of a connection.
type Startup struct {
	Kind    Kind
	Version uint32  // as requested; KindStartup
	Params  []Param // KindStartup
	PID     uint32  // KindCancel
	Key     []byte  // KindCancel
}

// Get returns the last value of a parameter.
func (s *Startup) Get(name string) string {
	for i := len(s.Params) - 1; i >= 0; i-- {
		if s.Params[i].Name == name {
			return s.Params[i].Value
		}
	}
	return ""
}

// nameLen is the longest name that PostgreSQL knows, in bytes (NAMEDATALEN - 1).
const nameLen = 63

// User is the role that asks to log in. PostgreSQL looks at no more than 63
// bytes of it, whatever characters they are of.
func (s *Startup) User() string { return cutName(s.Get("user")) }

// Database is the database that is asked for: without one, that of the user's name.
func (s *Startup) Database() string {
	db := s.Get("database")
	if db == "" {
		db = s.Get("user")
	}
	return cutName(db)
}

func cutName(s string) string { return s[:min(len(s), nameLen)] }

// Replication says whether the client asks for a connection for physical
// replication; one for logical replication belongs to its database. What
// PostgreSQL would not understand is an error in its words.
func (s *Startup) Replication() (physical bool, err error) {
	database := false
	for _, p := range s.Params {
		if p.Name != "replication" {
			continue
		}
		if p.Value == "database" {
			database = true // for good, whatever another one says
			continue
		}
		var ok bool
		if physical, ok = parseBool(p.Value); !ok {
			return false, Fatal("22023", fmt.Sprintf("invalid value for parameter \"replication\": \"%s\"", p.Value),
				`Valid values are: "false", 0, "true", 1, "database".`)
		}
	}
	return physical && !database, nil
}

// Walsender says whether the client asks for replication of either kind.
func (s *Startup) Walsender() bool {
	for _, p := range s.Params {
		if p.Name == "replication" {
			if on, ok := parseBool(p.Value); on || !ok {
				return true // "database" too
			}
		}
	}
	return false
}

// parseBool is PostgreSQL's parse_bool: any unique prefix, in any case.
func parseBool(v string) (value, ok bool) {
	for _, w := range []struct {
		word  string
		least int // of its letters
		value bool
	}{{"true", 1, true}, {"false", 1, false}, {"yes", 1, true}, {"no", 1, false}, {"on", 2, true}, {"off", 2, false},
		{"1", 1, true}, {"0", 1, false}} {
		if len(v) >= w.least && len(v) <= len(w.word) && strings.EqualFold(v, w.word[:len(v)]) {
			return w.value, true
		}
	}
	return false, false
}

// Speaks is the version that is spoken with this client and the _pq_ options
// that are not known; tell says that the client has to be told so.
func (s *Startup) Speaks() (version uint32, unknown []string, tell bool) {
	for _, p := range s.Params {
		if strings.HasPrefix(p.Name, "_pq_.") {
			unknown = append(unknown, p.Name)
		}
	}
	version = min(s.Version, Version32)
	return version, unknown, version != s.Version || len(unknown) > 0
}

// ReadStartup reads one start-up packet and not a byte more, so that nothing
// sent in plain can be taken for part of an encrypted session. had was read of it before.
func ReadStartup(r io.Reader, had ...byte) (Startup, error) {
	var h [4]byte
	if _, err := io.ReadFull(r, h[copy(h[:], had):]); err != nil {
		return Startup{}, err
	}
	n := int64(binary.BigEndian.Uint32(h[:])) - 4
	if n < 4 || n > maxStartup {
		return Startup{}, fmt.Errorf("%w: start-up packet of %d bytes", ErrProtocol, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return Startup{}, err
	}
	return ParseStartup(body)
}

// ParseStartup parses a start-up packet after its length word.
func ParseStartup(body []byte) (Startup, error) {
	if len(body) < 4 {
		return Startup{}, fmt.Errorf("%w: short start-up packet", ErrProtocol)
	}
	code, rest := binary.BigEndian.Uint32(body), body[4:]
	switch {
	case code == codeSSL:
		return Startup{Kind: KindSSL}, nil
	case code == codeGSS:
		return Startup{Kind: KindGSS}, nil
	case code == codeCancel:
		if len(rest) < 5 || len(rest) > 4+maxKey {
			return Startup{}, fmt.Errorf("%w: malformed cancel request", ErrProtocol)
		}
		return Startup{Kind: KindCancel, PID: binary.BigEndian.Uint32(rest), Key: rest[4:]}, nil
	case code>>16 != 3:
		return Startup{}, &Error{Severity: "FATAL", Code: "0A000",
			Message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", code>>16, code&0xffff)}
	}
	s := Startup{Kind: KindStartup, Version: code}
	for {
		name, r, ok := cutString(rest)
		if !ok {
			return Startup{}, fmt.Errorf("%w: start-up packet without terminator", ErrProtocol)
		}
		if name == "" {
			if len(r) != 0 {
				return Startup{}, fmt.Errorf("%w: bytes after the start-up packet's terminator", ErrProtocol)
			}
			return s, nil
		}
		value, r, ok := cutString(r)
		if !ok {
			return Startup{}, fmt.Errorf("%w: start-up parameter %q without value", ErrProtocol, name)
		}
		s.Params = append(s.Params, Param{name, value})
		rest = r
	}
}

// AppendStartup appends a start-up packet of protocol 3.0.
func AppendStartup(b []byte, params []Param) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, Version30)
	for _, p := range params {
		b = cstring(cstring(b, p.Name), p.Value)
	}
	return end(append(b, 0), at)
}

// AppendSSLRequest asks a server for TLS.
func AppendSSLRequest(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, 8)
	return binary.BigEndian.AppendUint32(b, codeSSL)
}

// AppendCancel asks a server to cancel what a backend does.
func AppendCancel(b []byte, pid uint32, key []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(12+len(key)))
	b = binary.BigEndian.AppendUint32(b, codeCancel)
	b = binary.BigEndian.AppendUint32(b, pid)
	return append(b, key...)
}
