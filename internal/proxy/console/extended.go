package console

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"manada/internal/proxy/wire"
)

// statement is one that was parsed; nil commands are empty.
type statement struct{ command *command }

// portal is a statement with the formats of its result, and what is left of its rows.
type portal struct {
	*statement
	formats []int16
	begun   bool
	rows    []row
}

// maxKept bounds the statements and portals of one client.
const maxKept = 1000

func broken(what string) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "08P01", Message: "invalid " + what + " message"}
}

// extended answers a message of the extended protocol.
func (c *session) extended(ctx context.Context, m message) *wire.Error {
	switch m.typ {
	case 'P':
		return c.parse(m.body)
	case 'B':
		return c.bind(m.body)
	case 'D':
		return c.describe(m.body)
	case 'E':
		return c.execute(ctx, m.body)
	case 'C':
		return c.close(m.body)
	case 'H':
		return nil // everything is sent at once anyhow
	}
	return &wire.Error{Severity: "ERROR", Code: "0A000", Message: fmt.Sprintf("the console does not answer messages of type %q", m.typ)}
}

func (c *session) parse(body []byte) *wire.Error {
	name, rest, ok := bytes.Cut(body, []byte{0})
	sql, _, ok2 := bytes.Cut(rest, []byte{0})
	if !ok || !ok2 {
		return broken("Parse")
	}
	if len(c.statements) >= maxKept {
		return &wire.Error{Severity: "ERROR", Code: "53400", Message: "too many prepared statements at the console"}
	}
	k, e := parse(c.Source, c.right, string(sql))
	if e != nil {
		return e
	}
	if _, there := c.statements[string(name)]; there && len(name) > 0 {
		return &wire.Error{Severity: "ERROR", Code: "42P05", Message: fmt.Sprintf("prepared statement \"%s\" already exists", name)}
	}
	c.statements[string(name)] = &statement{k}
	c.out = wire.AppendMessage(c.out, '1', nil)
	return nil
}

func (c *session) bind(body []byte) *wire.Error {
	name, rest, ok := bytes.Cut(body, []byte{0})
	from, rest, ok2 := bytes.Cut(rest, []byte{0})
	if !ok || !ok2 {
		return broken("Bind")
	}
	s := c.statements[string(from)]
	if s == nil {
		return noStatement(from)
	}
	formats, ok := resultFormats(rest)
	if !ok {
		return broken("Bind")
	}
	if cols := s.columns(); len(formats) > 1 && len(formats) != len(cols) {
		return &wire.Error{Severity: "ERROR", Code: "08P01", Message: fmt.Sprintf("bind message has %d result formats but query has %d columns", len(formats), len(cols))}
	}
	if len(c.portals) >= maxKept {
		return &wire.Error{Severity: "ERROR", Code: "53400", Message: "too many portals at the console"}
	}
	c.portals[string(name)] = &portal{statement: s, formats: formats}
	c.out = wire.AppendMessage(c.out, '2', nil)
	return nil
}

func noStatement(name []byte) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "26000", Message: fmt.Sprintf("prepared statement \"%s\" does not exist", name)}
}

func noPortal(name []byte) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "34000", Message: fmt.Sprintf("portal \"%s\" does not exist", name)}
}

// resultFormats reads what follows the names in Bind. No command has parameters.
func resultFormats(b []byte) ([]int16, bool) {
	count := func() (n int, ok bool) {
		if len(b) < 2 {
			return 0, false
		}
		n, b = int(binary.BigEndian.Uint16(b)), b[2:]
		return n, true
	}
	n, ok := count()
	if !ok || len(b) < 2*n {
		return nil, false
	}
	b = b[2*n:]
	if n, ok = count(); !ok || n != 0 {
		return nil, false
	}
	if n, ok = count(); !ok || len(b) != 2*n {
		return nil, false
	}
	formats := make([]int16, n)
	for i := range formats {
		if formats[i] = int16(binary.BigEndian.Uint16(b[2*i:])); formats[i] != 0 && formats[i] != 1 {
			return nil, false
		}
	}
	return formats, true
}

func (s *statement) columns() []column {
	if s.command == nil || s.command.show == nil {
		return nil
	}
	return s.command.show.cols
}

func (c *session) describe(body []byte) *wire.Error {
	if len(body) < 2 {
		return broken("Describe")
	}
	name := trim(body[1:])
	var cols []column
	var formats []int16
	switch body[0] {
	case 'S':
		s := c.statements[string(name)]
		if s == nil {
			return noStatement(name)
		}
		cols = s.columns()
		c.out = wire.AppendMessage(c.out, 't', []byte{0, 0})
	case 'P':
		p := c.portals[string(name)]
		if p == nil {
			return noPortal(name)
		}
		cols, formats = p.columns(), p.formats
	default:
		return broken("Describe")
	}
	if cols == nil {
		c.out = wire.AppendMessage(c.out, 'n', nil)
		return nil
	}
	c.out = describe(c.out, cols, formats)
	return nil
}

func (c *session) execute(ctx context.Context, body []byte) *wire.Error {
	name, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) != 4 {
		return broken("Execute")
	}
	p := c.portals[string(name)]
	if p == nil {
		return noPortal(name)
	}
	k := p.command
	if k == nil {
		c.out = wire.AppendMessage(c.out, 'I', nil)
		return nil
	}
	if k.show == nil {
		return c.finish(ctx, k)
	}
	if !p.begun {
		p.begun, p.rows = true, k.show.rows(c.Source)
	}
	n := int(int32(binary.BigEndian.Uint32(rest)))
	if n <= 0 || n >= len(p.rows) {
		n = len(p.rows)
	}
	for _, r := range p.rows[:n] {
		c.out = r.data(c.out, k.show.cols, p.formats)
	}
	if p.rows = p.rows[n:]; len(p.rows) > 0 {
		c.out = wire.AppendMessage(c.out, 's', nil)
		return nil
	}
	c.complete(k.tag)
	return nil
}

func (c *session) close(body []byte) *wire.Error {
	if len(body) < 2 {
		return broken("Close")
	}
	switch name := string(trim(body[1:])); body[0] {
	case 'S':
		delete(c.statements, name)
	case 'P':
		delete(c.portals, name)
	default:
		return broken("Close")
	}
	c.out = wire.AppendMessage(c.out, '3', nil)
	return nil
}
