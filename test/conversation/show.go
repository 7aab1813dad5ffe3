package conversation

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// show is a server's message as one line.
func show(typ byte, b []byte) string {
	r := &reader{b: b}
	switch typ {
	case 'T':
		return "T" + r.columns()
	case 'D':
		return "D" + r.row()
	case 'C':
		return "C " + r.str()
	case 'E', 'N':
		return string(typ) + r.fields()
	case 'S':
		return "S " + r.str() + "=" + r.str()
	case 'Z':
		return "Z " + string(r.take(1))
	case 't':
		out := "t"
		for range r.u16() {
			out += " " + typeName(r.u32())
		}
		return out
	case 'G', 'H', 'W':
		return fmt.Sprintf("%c %x", typ, b)
	case 'd', 'V':
		return string(typ) + " " + value(b)
	case 'A':
		return fmt.Sprintf("A %d %s %s", r.u32(), r.str(), r.str())
	}
	if len(b) > 0 {
		return fmt.Sprintf("%c %s", typ, value(b))
	}
	return string(typ)
}

// reader takes a body apart. What is not there is empty.
type reader struct{ b []byte }

func (r *reader) take(n int) []byte {
	n = min(max(n, 0), len(r.b))
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u16() uint16 {
	if b := r.take(2); len(b) == 2 {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) str() string {
	s, _, _ := strings.Cut(string(r.b), "\x00")
	r.take(len(s) + 1)
	return s
}

// columns are name, type, modifier, size and format, and of what table which
// attribute.
func (r *reader) columns() string {
	out := ""
	for range r.u16() {
		name := r.str()
		table, attr := r.u32(), r.u16()
		typ, size, mod, format := r.u32(), int16(r.u16()), int32(r.u32()), r.u16()
		out += fmt.Sprintf(" %s:%s", name, typeName(typ))
		if mod != -1 || format != 0 {
			out += fmt.Sprintf("(size %d mod %d format %d)", size, mod, format)
		}
		if table != 0 {
			out += fmt.Sprintf("@%s.%d", relation(table), attr)
		}
	}
	return out
}

// firstOfUsers is the lowest OID of what a user may have made.
const firstOfUsers = 16384

func relation(oid uint32) string {
	if oid >= firstOfUsers {
		return "own"
	}
	return fmt.Sprint(oid)
}

func typeName(oid uint32) string {
	if oid >= firstOfUsers {
		return "own"
	}
	for name, o := range types {
		if o == oid {
			return name
		}
	}
	return fmt.Sprint(oid)
}

func (r *reader) row() string {
	out := ""
	for i := range r.u16() {
		if i > 0 {
			out += " |"
		}
		n := int32(r.u32())
		if n < 0 {
			out += " NULL"
			continue
		}
		out += " " + value(r.take(int(n)))
	}
	return out
}

// value is short and printable: of a long one its length and a sum.
func value(b []byte) string {
	if len(b) > 200 {
		return fmt.Sprintf("%.20q(%d bytes, sum %08x)", b[:20], len(b), crc32.ChecksumIEEE(b))
	}
	q := fmt.Sprintf("%q", b)
	return q[1 : len(q)-1]
}

// fields are those of an error or a notice. File and line of PostgreSQL's source
// are left out, the routine is not: clients look at it.
func (r *reader) fields() string {
	out := ""
	for len(r.b) > 0 && r.b[0] != 0 {
		k := r.take(1)[0]
		v := r.str()
		if k == 'F' || k == 'L' || k == 'V' {
			continue
		}
		out += fmt.Sprintf(" %c=%s", k, value([]byte(v)))
	}
	return out
}
