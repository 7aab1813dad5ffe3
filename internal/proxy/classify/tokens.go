package classify

import "bytes"

// Token is a piece of an SQL text, for those who look for names in one.
type Token struct {
	Span
	Word     bool // an identifier or keyword
	Quoted   bool // an identifier in quotes
	Operator bool
	Text     bool // a string
	Called   bool // a parenthesis follows
}

// Tokens cuts a text as PostgreSQL does and shows each piece. It says whether the
// whole text could be cut.
func Tokens(sql []byte, show func(Token)) bool {
	p := parser{src: sql}
	if !p.lex() {
		return false
	}
	for i, t := range p.toks {
		show(Token{Span{t.at, t.to}, t.kind == word, t.kind == quoted, t.kind == op, t.kind == text || t.kind == escaped, p.is(i+1, "(")})
	}
	return true
}

// Name is the identifier that the token stands for in src, "" when it is none.
func (t Token) Name(src []byte) string {
	b := src[t.From:t.To]
	switch {
	case t.Word:
		low := make([]byte, len(b))
		for i, c := range b {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			low[i] = c
		}
		return string(low)
	case t.Quoted && b[0] == '"':
		return unquote(b[1 : len(b)-1])
	}
	return ""
}

// Inside is what stands in a string, with its quotes doubled and its escapes as they
// are. nil: it is none.
func (t Token) Inside(src []byte) []byte {
	b := src[t.From:t.To]
	if !t.Text {
		return nil
	}
	if i := bytes.IndexByte(b, '$'); i == 0 {
		tag := bytes.IndexByte(b[1:], '$') + 2
		return b[tag : len(b)-tag]
	}
	i := bytes.IndexByte(b, '\'')
	return b[i+1 : len(b)-1]
}

// unquote undoubles the quotes in an identifier.
func unquote(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		out = append(out, b[i])
		if b[i] == '"' {
			i++
		}
	}
	return string(out)
}
