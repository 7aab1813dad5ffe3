package console

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"manada/internal/proxy/wire"
)

// oid of a column's type.
type oid uint32

const (
	text    oid = 25
	int4    oid = 23
	numeric oid = 1700
)

type column struct {
	name string
	typ  oid
}

// columns reads "name name:i name:n": texts, integers, numbers.
func columns(list ...string) []column {
	out := make([]column, len(list))
	for i, s := range list {
		out[i] = column{s, text}
		if n := len(s) - 2; n > 0 && s[n] == ':' {
			out[i] = column{s[:n], map[byte]oid{'i': int4, 'n': numeric}[s[n+1]]}
		}
	}
	return out
}

// row holds strings, integers and nil.
type row []any

// describe appends a RowDescription; formats are as in Bind.
func describe(b []byte, cols []column, formats []int16) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(cols)))
	for i, c := range cols {
		body = append(append(body, c.name...), 0)
		body = append(body, 0, 0, 0, 0, 0, 0) // of no table
		body = binary.BigEndian.AppendUint32(body, uint32(c.typ))
		size, modifier := -1, -1
		if c.typ == int4 {
			size = 4
		}
		body = binary.BigEndian.AppendUint16(body, uint16(size))
		body = binary.BigEndian.AppendUint32(body, uint32(modifier))
		body = binary.BigEndian.AppendUint16(body, uint16(format(formats, i)))
	}
	return wire.AppendMessage(b, 'T', body)
}

func format(formats []int16, i int) int16 {
	switch len(formats) {
	case 0:
		return 0
	case 1:
		return formats[0]
	}
	return formats[i]
}

// data appends a DataRow.
func (r row) data(b []byte, cols []column, formats []int16) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(cols)))
	for i, c := range cols {
		if r[i] == nil {
			body = binary.BigEndian.AppendUint32(body, 0xffffffff)
			continue
		}
		v := value(r[i], c.typ, format(formats, i) == 1)
		body = binary.BigEndian.AppendUint32(body, uint32(len(v)))
		body = append(body, v...)
	}
	return wire.AppendMessage(b, wire.TypeDataRow, body)
}

func value(v any, typ oid, bin bool) []byte {
	var n int64
	switch v := v.(type) {
	case int:
		n = int64(v)
	case int64:
		n = v
	case bool:
		if v {
			n = 1
		}
	default:
		return fmt.Append(nil, v)
	}
	switch {
	case !bin || typ == text:
		return strconv.AppendInt(nil, n, 10)
	case typ == int4:
		return binary.BigEndian.AppendUint32(nil, uint32(int32(n)))
	}
	return number(n)
}

// number is a numeric in PostgreSQL's binary format: digits of base 10,000.
func number(n int64) []byte {
	sign := uint16(0)
	if n < 0 {
		sign, n = 0x4000, -n
	}
	var digits []uint16
	for ; n > 0; n /= 10000 {
		digits = append(digits, uint16(n%10000))
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(digits)))
	b = binary.BigEndian.AppendUint16(b, uint16(max(len(digits)-1, 0))) // weight of the first
	b = binary.BigEndian.AppendUint16(b, sign)
	b = binary.BigEndian.AppendUint16(b, 0) // digits behind the point
	for i := len(digits) - 1; i >= 0; i-- {
		b = binary.BigEndian.AppendUint16(b, digits[i])
	}
	return b
}
