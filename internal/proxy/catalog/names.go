package catalog

import (
	"bytes"
	"maps"
	"slices"
	"sync/atomic"
)

// Names is a set of dangerous names. A nil one holds all.
type Names struct {
	set map[string]struct{}
	// operators are symbols of dangerous operators between built-in types.
	operators []string
	// all: a cast between built-in types, or an operator that is used without being
	// written, is dangerous; no name tells.
	all bool
	// odd: a name of the set has letters outside ASCII, whose bytes depend on the
	// encoding, or a quote.
	odd bool
}

// nameLen is how many bytes of an identifier PostgreSQL keeps.
const nameLen = 63

// Dangerous says whether a token of an SQL text, as it stands there, is a name of the
// set: an identifier, one in quotes, or a run of operator characters.
func (n *Names) Dangerous(token []byte) bool {
	if n == nil || n.all {
		return true
	}
	if len(n.set) == 0 && len(n.operators) == 0 || len(token) == 0 {
		return false
	}
	switch c := token[0]; {
	case c == '"':
		name := token[1:max(len(token)-1, 1)]
		if bytes.IndexByte(name, '"') >= 0 {
			return n.odd
		}
		return n.has(name, false)
	case (c == 'u' || c == 'U') && len(token) > 1 && token[1] == '&':
		return true // U&"": escapes
	case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80:
		return n.has(token, true)
	}
	for _, o := range n.operators { // =-1 is = and -, for PostgreSQL
		if bytes.Contains(token, []byte(o)) {
			return true
		}
	}
	return false
}

func (n *Names) has(name []byte, fold bool) bool {
	var buf [nameLen]byte
	b := buf[:copy(buf[:], name)]
	for i, c := range b {
		if c >= 0x80 {
			return n.odd
		}
		if fold && c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	_, ok := n.set[string(b)]
	return ok
}

// Len is how many names the set has.
func (n *Names) Len() int { return len(n.set) + len(n.operators) }

// Live is the set of a database as it is known at present. It is safe for
// concurrent use; the zero value holds all names.
type Live struct{ names atomic.Pointer[Names] }

// Dangerous is that of the present set.
func (l *Live) Dangerous(token []byte) bool { return l.names.Load().Dangerous(token) }

// Known says whether the set was read.
func (l *Live) Known() bool { return l.names.Load() != nil }

// Harmless are the built-in functions that are volatile and leave nothing behind.
func Harmless() []string { return slices.Sorted(maps.Keys(harmless)) }
