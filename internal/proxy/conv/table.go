package conv

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// answer writes what a server would answer to the unit at the front of r, which
// asks for SHOW POOL_NODES.
func (c *Conv) answer(r *run, unit []byte) {
	r.drop(len(unit))
	at := len(r.fx.own)
	r.fx.own = c.local(r.fx.own, unit, c.cfg.PoolNodes())
	r.fx.add(Effect{Kind: Send, Side: Client, B: r.fx.own[at:]})
}

func (c *Conv) local(out, unit []byte, table Table) []byte {
	binary := false
	for len(unit) >= headerLen {
		total := messageLen(unit)
		body := unit[headerLen:total]
		switch unit[0] {
		case wire.TypeQuery:
			out = table.done(table.rows(table.description(out, false)))
			c.plain = nil
		case 'P':
			name, _, _ := bytes.Cut(body, zero)
			s := &stmt{about: about{Kind: classify.PoolNodes}}
			if len(name) == 0 {
				c.plain = s
			} else {
				c.remember(string(name), s)
			}
			out = wire.AppendMessage(out, '1', nil)
		case 'B':
			binary = wantsBinary(body)
			out = wire.AppendMessage(out, '2', nil)
		case 'D':
			if body[0] == 'S' {
				out = wire.AppendMessage(out, 't', []byte{0, 0})
			}
			out = table.description(out, binary && body[0] == 'P')
		case 'E':
			out = table.done(table.rows(out))
		case 'C':
			c.closed(unit[:total])
			out = wire.AppendMessage(out, '3', nil)
		}
		unit = unit[total:]
	}
	return wire.AppendMessage(out, wire.TypeReady, []byte{c.status()})
}

func uint32At(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// messageLen is how long the message at the front of b is, with its type: what its header
// says, of which all is there.
func messageLen(b []byte) int { return 1 + int(uint32At(b[1:])) }

// wantsBinary says whether a Bind without parameters asks for the first column
// in binary, which for a text is the same.
func wantsBinary(bind []byte) bool {
	_, rest, _ := bytes.Cut(bind, zero)
	_, rest, _ = bytes.Cut(rest, zero)
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
