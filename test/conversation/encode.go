package conversation

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// types that Parse's lines name.
var types = map[string]uint32{"bool": 16, "bytea": 17, "int8": 20, "int2": 21, "int4": 23, "text": 25, "oid": 26, "json": 114, "float8": 701,
	"varchar": 1043, "date": 1082, "timestamptz": 1184, "numeric": 1700, "void": 2278, "unknown": 705, "int4[]": 1007}

// encode makes the bytes of a client's message. What only a proxy survives is another
// message to PostgreSQL itself.
func (p *Player) encode(line string) ([]byte, error) {
	if rest, ok := strings.CutPrefix(line, "E ~"); ok && !p.Direct {
		line = "E -" + rest
	}
	return encode(line, p.Schema)
}

// encode makes the bytes of a client's message. schema is put in for $schema.
func encode(line, schema string) ([]byte, error) {
	letter, rest, _ := strings.Cut(line, " ")
	if letter == "raw" {
		return hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
	}
	body, err := body(letter[0], strings.ReplaceAll(rest, "$schema", schema))
	if err != nil {
		return nil, fmt.Errorf("%.60s: %w", line, err)
	}
	b := binary.BigEndian.AppendUint32([]byte{letter[0]}, uint32(4+len(body)))
	return append(b, body...), nil
}

func body(letter byte, rest string) ([]byte, error) {
	switch letter {
	case 'Q', 'f':
		return cstring(nil, rest), nil
	case 'P':
		return parse(rest)
	case 'B':
		return bind(rest)
	case 'D', 'C':
		kind, name, ok := strings.Cut(rest, " ")
		if !ok || len(kind) != 1 {
			return nil, fmt.Errorf("want S or P and a name")
		}
		return cstring([]byte{kind[0]}, named(name)), nil
	case 'E':
		portal, n, _ := strings.Cut(rest, " ")
		rows, err := number(n)
		return binary.BigEndian.AppendUint32(cstring(nil, named(portal)), rows), err
	case 'd':
		return []byte(unescape(rest)), nil
	case 'F':
		return call(rest)
	case 'S', 'H', 'X', 'c':
		return nil, nil
	}
	return nil, fmt.Errorf("unknown message")
}

func cstring(b []byte, s string) []byte { return append(append(b, s...), 0) }

// named: the empty name is written as a dash.
func named(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

func number(s string) (uint32, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

var parseLine = regexp.MustCompile(`(?s)^([^ (]+)(?:\(([^)]*)\))?(?: (.*))?$`)

func parse(rest string) ([]byte, error) {
	m := parseLine.FindStringSubmatch(rest)
	if m == nil {
		return nil, fmt.Errorf("want a name, types and a text")
	}
	b := cstring(cstring(nil, named(m[1])), m[3])
	var oids []string
	if m[2] != "" {
		oids = strings.Split(m[2], ",")
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(oids)))
	for _, name := range oids {
		oid, ok := types[name]
		if !ok {
			n, err := number(name)
			if err != nil {
				return nil, fmt.Errorf("type %q: not known here", name)
			}
			oid = n
		}
		b = binary.BigEndian.AppendUint32(b, oid)
	}
	return b, nil
}

func bind(rest string) ([]byte, error) {
	portal, rest, _ := strings.Cut(rest, " ")
	statement, rest, _ := strings.Cut(rest, " ")
	if statement == "" {
		return nil, fmt.Errorf("want a portal and a statement")
	}
	b := cstring(cstring(nil, named(portal)), named(statement))
	b, formats, err := values(b, rest)
	if err != nil {
		return nil, err
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(formats)))
	for _, f := range formats {
		b = binary.BigEndian.AppendUint16(b, f)
	}
	return b, nil
}

func call(rest string) ([]byte, error) {
	oid, rest, _ := strings.Cut(rest, " ")
	n, err := number(oid)
	if err != nil {
		return nil, err
	}
	b, formats, err := values(binary.BigEndian.AppendUint32(nil, n), rest)
	if err != nil || len(formats) > 1 {
		return nil, fmt.Errorf("want one format: %w", err)
	}
	return binary.BigEndian.AppendUint16(b, append(formats, 0)[0]), nil
}

// values appends formats, count and arguments, and returns the formats of the
// result that follow them.
func values(b []byte, rest string) ([]byte, []uint16, error) {
	words, results := words(rest)
	formats := make([]uint16, len(words))
	var args []byte
	for i, w := range words {
		if w == "NULL" {
			args = binary.BigEndian.AppendUint32(args, 0xffffffff)
			continue
		}
		v := []byte(strings.TrimPrefix(w, "'"))
		if digits, ok := strings.CutPrefix(w, "x:"); ok {
			var err error
			if v, err = hex.DecodeString(digits); err != nil {
				return nil, nil, err
			}
			formats[i] = 1
		}
		args = append(binary.BigEndian.AppendUint32(args, uint32(len(v))), v...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(formats)))
	for _, f := range formats {
		b = binary.BigEndian.AppendUint16(b, f)
	}
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(words))), args...)
	var out []uint16
	for _, r := range results {
		out = append(out, map[string]uint16{"t": 0, "b": 1}[r])
	}
	return b, out, nil
}

var word = regexp.MustCompile(`'[^']*'|[^ ]+`)

// words are the values before >, a quoted one with its first quote, and the
// formats behind it.
func words(rest string) (args, formats []string) {
	all := word.FindAllString(rest, -1)
	for i, w := range all {
		if w == ">" {
			return args, all[i+1:]
		}
		if strings.HasPrefix(w, "'") {
			w = w[:len(w)-1]
		}
		args = append(args, w)
	}
	return args, nil
}

var escapes = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`)

func unescape(s string) string { return escapes.Replace(s) }
