package catalog

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"manada/internal/proxy/classify"
)

// Names is a set of dangerous names, and one of functions that leave nothing behind.
// A nil one holds all names as dangerous.
type Names struct {
	set map[string]struct{}
	// harmless are the names of functions none of which is dangerous.
	harmless map[string]struct{}
	builtin  map[string]bool // names of functions that are built in and dangerous
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
	if !identifier(token[0]) {
		for _, o := range n.operators { // =-1 is = and -, for PostgreSQL
			if bytes.Contains(token, []byte(o)) {
				return true
			}
		}
		return false
	}
	var buf [nameLen]byte
	name, ok := named(&buf, token)
	if !ok {
		return n.odd || escaped(token)
	}
	_, ok = n.set[string(name)]
	return ok
}

// Harmless says whether a token is the name of a function, and none of that name
// leaves anything behind in the session that calls it.
func (n *Names) Harmless(token []byte) bool {
	if n == nil || n.all || len(token) == 0 || !identifier(token[0]) {
		return false
	}
	var buf [nameLen]byte
	name, ok := named(&buf, token)
	if !ok {
		return false
	}
	_, ok = n.harmless[string(name)]
	return ok
}

// Leaves says whether a function may leave something behind, or nobody knows, by the
// text of its CREATE or ALTER.
func (n *Names) Leaves(text []byte) bool {
	if n == nil || n.all {
		return true
	}
	bad, last, language := false, "", "sql"
	whole := classify.Tokens(text, func(t classify.Token) {
		token, name := text[t.From:t.To], t.Name(text)
		switch {
		case last == "language":
			language = strings.ToLower(strings.Trim(string(token), "'"))
		case last == "create" && name == "extension", last == "alter" && name == "extension":
			bad = true
		case t.Text:
			bad = bad || n.does(t.Inside(text)) || token[0] != '$' && bytes.IndexByte(token, '\\') >= 0
		case n.Dangerous(token), n.builtin[name]:
			bad = true
		}
		last = name
	})
	return bad || !whole || language != "sql" && language != "plpgsql"
}

// does says whether a function's body may leave something behind.
func (n *Names) does(body []byte) bool {
	bad, last := false, ";"
	whole := classify.Tokens(body, func(t classify.Token) {
		name := t.Name(body)
		if tells(name, last, t) || n.builtin[name] && (t.Called || last == ".") || n.Dangerous(body[t.From:t.To]) {
			bad = true
		}
		if last = name; name == "" {
			last = string(body[t.From:t.To])
		}
	})
	return bad || !whole
}

// identifier says whether a token is one, by its first byte.
func identifier(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 || c == '"'
}

// named is the name that an identifier stands for, as the catalogs have it. Not ok:
// it has letters outside ASCII, quotes or escapes.
func named(buf *[nameLen]byte, token []byte) (name []byte, ok bool) {
	quoted := token[0] == '"'
	if quoted {
		token = token[1:max(len(token)-1, 1)]
	} else if escaped(token) {
		return nil, false
	}
	name = buf[:copy(buf[:], token)]
	for i, c := range name {
		switch {
		case c >= 0x80, c == '"':
			return nil, false
		case !quoted && c >= 'A' && c <= 'Z':
			name[i] = c + 'a' - 'A'
		}
	}
	return name, true
}

// escaped says whether an identifier is U&"", which may have escapes.
func escaped(token []byte) bool {
	return len(token) > 1 && token[0]|0x20 == 'u' && token[1] == '&'
}

// Len is how many names the set has.
func (n *Names) Len() int { return len(n.set) + len(n.operators) }

// Live is the set of a database as it is known at present. It is safe for
// concurrent use; the zero value holds all names.
type Live struct {
	names   atomic.Pointer[Names]
	version atomic.Uint64
}

func (l *Live) set(n *Names) {
	l.names.Store(n)
	l.version.Add(1)
}

// Version is another one when the set may have changed.
func (l *Live) Version() uint64 { return l.version.Load() }

// Harmless is that of the present set.
func (l *Live) Harmless(token []byte) bool { return l.names.Load().Harmless(token) }

// Dangerous is that of the present set.
func (l *Live) Dangerous(token []byte) bool { return l.names.Load().Dangerous(token) }

// Leaves is that of the present set.
func (l *Live) Leaves(text []byte) bool { return l.names.Load().Leaves(text) }

// Known says whether the set was read.
func (l *Live) Known() bool { return l.names.Load() != nil }

// Harmless are the built-in functions that are volatile and leave nothing behind.
func Harmless() []string { return slices.Sorted(maps.Keys(harmless)) }
