package split

import (
	"encoding/binary"
	"strconv"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// Table is what SHOW POOL_NODES shows. Every column is a text.
type Table struct {
	Columns []string
	Rows    [][]string
}

// Answer writes what a server would answer to a unit that asks for the table;
// status is the session's transaction status.
func (t *Tracker) Answer(unit []byte, table Table, status byte) []byte {
	var out []byte
	binary := false
	for len(unit) >= headerLen {
		typ, total, _ := header(unit)
		body := unit[headerLen:total]
		switch typ {
		case wire.TypeQuery:
			out = table.done(table.rows(table.description(out, false)))
			t.forget("")
		case typeParse:
			name, _ := cstring(body)
			t.prepare(string(name), nil, nil, classify.Statement{Kind: classify.PoolNodes})
			out = wire.AppendMessage(out, '1', nil)
		case typeBind:
			binary = wantsBinary(body)
			out = wire.AppendMessage(out, '2', nil)
		case typeDescribe:
			if body[0] == 'S' {
				out = wire.AppendMessage(out, 't', []byte{0, 0})
			}
			out = table.description(out, binary && body[0] == 'P')
		case typeExecute:
			out = table.done(table.rows(out))
		case typeClose:
			if name, ok := cstring(body[1:]); ok && body[0] == 'S' {
				t.forget(string(name))
			}
			out = wire.AppendMessage(out, '3', nil)
		}
		unit = unit[total:]
	}
	return wire.AppendMessage(out, wire.TypeReady, []byte{status})
}

// wantsBinary says whether a Bind without parameters asks for the first column
// in binary, which for a text is the same.
func wantsBinary(bind []byte) bool {
	_, rest, _ := cut(bind)
	_, rest, _ = cut(rest)
	for range 2 { // parameter formats, then parameters: there are none
		if len(rest) < 2 {
			return false
		}
		n := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		if n > 0 && len(rest) < 2*n {
			return false
		}
		rest = rest[min(2*n, len(rest)):]
	}
	return len(rest) >= 4 && binary.BigEndian.Uint16(rest) > 0 && binary.BigEndian.Uint16(rest[2:]) == 1
}

func cut(b []byte) (head, rest []byte, ok bool) {
	head, ok = cstring(b)
	return head, b[min(len(head)+1, len(b)):], ok
}

const oidText = 25

func (t Table) description(b []byte, binaryFormat bool) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(t.Columns)))
	for _, c := range t.Columns {
		body = append(append(body, c...), 0)
		body = append(body, 0, 0, 0, 0, 0, 0) // no table, no column of it
		body = binary.BigEndian.AppendUint32(body, oidText)
		body = append(body, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // any length
		format := byte(0)
		if binaryFormat {
			format = 1
		}
		body = append(body, 0, format)
	}
	return wire.AppendMessage(b, 'T', body)
}

func (t Table) rows(b []byte) []byte {
	for _, row := range t.Rows {
		body := binary.BigEndian.AppendUint16(nil, uint16(len(row)))
		for _, v := range row {
			body = binary.BigEndian.AppendUint32(body, uint32(len(v)))
			body = append(body, v...)
		}
		b = wire.AppendMessage(b, wire.TypeDataRow, body)
	}
	return b
}

func (t Table) done(b []byte) []byte {
	return wire.AppendMessage(b, 'C', []byte("SELECT "+strconv.Itoa(len(t.Rows))+"\x00"))
}
