package classify

// kind of a token.
type kind uint8

const (
	end     kind = iota
	word         // unquoted identifier or keyword
	quoted       // "identifier"
	text         // '...' without escapes
	escaped      // any other string: E'', U&'', B'', X'', N'', $$ $$
	number       // 1, 1.5e3
	param        // $1
	punct        // one of ( ) [ ] , ; .
	op           // anything else: operators, ::, =
	bad          // not lexed; nothing after it can be trusted
)

// token is a piece of the text, src[at:to].
type token struct {
	kind   kind
	word   uint16 // which of words it is
	at, to int
}

// lexer cuts a text as PostgreSQL's scan.l does.
type lexer struct {
	src []byte
	pos int
}

// What a byte can be: a letter begins an identifier, with digits and $ it goes on.
const (
	space = 1 << iota
	digit
	letter
	dollar
	operator
)

var bytesAre = func() (is [256]uint8) {
	for c := range 256 {
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 {
			is[c] = letter
		}
	}
	for class, of := range map[uint8]string{space: " \t\n\r\f\v", digit: "0123456789", dollar: "$", operator: "~!@#^&|`?+-*/%<>=:"} {
		for _, c := range []byte(of) {
			is[c] = class
		}
	}
	return is
}()

func isSpace(c byte) bool { return bytesAre[c] == space }
func isDigit(c byte) bool { return bytesAre[c] == digit }
func isStart(c byte) bool { return bytesAre[c] == letter }
func isPart(c byte) bool  { return bytesAre[c]&(letter|digit|dollar) != 0 }
func isOp(c byte) bool    { return bytesAre[c] == operator }

func (l *lexer) at(i int) byte {
	if i < len(l.src) {
		return l.src[i]
	}
	return 0
}

// next returns the next token behind white space and comments.
func (l *lexer) next() token {
	if !l.blank() {
		return token{kind: bad, at: l.pos, to: len(l.src)}
	}
	at := l.pos
	if at >= len(l.src) {
		return token{kind: end, at: at, to: at}
	}
	k := l.scan(l.src[at])
	if k == bad {
		l.pos = len(l.src)
	}
	return token{kind: k, at: at, to: l.pos}
}

// scan consumes a token that begins with c.
func (l *lexer) scan(c byte) kind {
	switch {
	case c == 0:
		return bad
	case isStart(c):
		return l.word(c | 0x20)
	case c == '"':
		l.pos++
		return l.until('"', false, quoted)
	case c == '\'':
		l.pos++
		return l.until('\'', false, text)
	case isDigit(c), c == '.' && isDigit(l.at(l.pos+1)):
		return l.number()
	case c == '$':
		return l.dollar()
	case isOp(c):
		l.operator()
		return op
	}
	l.pos++
	return punct
}

// blank skips white space and comments; false: a comment does not end.
func (l *lexer) blank() bool {
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case isSpace(c):
			l.pos++
		case c == '-' && l.at(l.pos+1) == '-':
			for l.pos < len(l.src) && l.src[l.pos] != '\n' && l.src[l.pos] != '\r' {
				l.pos++
			}
		case c == '/' && l.at(l.pos+1) == '*':
			if !l.comment() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

// comment skips a comment with those nested in it.
func (l *lexer) comment() bool {
	for depth := 0; l.pos < len(l.src); {
		switch {
		case l.src[l.pos] == '/' && l.at(l.pos+1) == '*':
			depth++
			l.pos += 2
		case l.src[l.pos] == '*' && l.at(l.pos+1) == '/':
			depth--
			l.pos += 2
			if depth == 0 {
				return true
			}
		default:
			l.pos++
		}
	}
	return false
}

// word consumes an identifier, or a string with a prefix.
func (l *lexer) word(first byte) kind {
	switch n := l.at(l.pos + 1); {
	case n == '\'' && first == 'e':
		l.pos += 2
		return l.escape()
	case n == '\'' && (first == 'b' || first == 'x' || first == 'n'):
		l.pos += 2
		return l.until('\'', false, escaped)
	case n == '&' && first == 'u' && l.at(l.pos+2) == '\'':
		l.pos += 3
		return l.until('\'', false, escaped)
	case n == '&' && first == 'u' && l.at(l.pos+2) == '"':
		l.pos += 3
		return l.until('"', false, quoted)
	}
	i := l.pos
	for i < len(l.src) && isPart(l.src[i]) {
		i++
	}
	l.pos = i
	return word
}

// escape consumes an E” string. One that goes on in the next line keeps its
// escapes there, which nobody writes: it is not followed.
func (l *lexer) escape() kind {
	if k := l.until('\'', true, escaped); k == bad {
		return bad
	}
	if next := *l; !next.blank() || next.at(next.pos) == '\'' {
		return bad
	}
	return escaped
}

// until consumes up to a closing quote; a doubled one is part of the text.
func (l *lexer) until(quote byte, backslash bool, k kind) kind {
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		l.pos++
		switch {
		case c == 0:
			return bad
		case backslash && c == '\\':
			l.pos++
		case c != quote:
		case l.at(l.pos) == quote:
			l.pos++
		default:
			return k
		}
	}
	return bad
}

func (l *lexer) number() kind {
	digits := func() {
		for isDigit(l.at(l.pos)) {
			l.pos++
		}
	}
	digits()
	if l.at(l.pos) == '.' {
		l.pos++
		digits()
	}
	if e := l.at(l.pos) | 0x20; e == 'e' {
		n := l.at(l.pos + 1)
		if isDigit(n) || (n == '+' || n == '-') && isDigit(l.at(l.pos+2)) {
			l.pos += 2
			digits()
		}
	}
	return number
}

// dollar consumes $1 or a dollar-quoted string.
func (l *lexer) dollar() kind {
	i := l.pos + 1
	if isDigit(l.at(i)) {
		for isDigit(l.at(i)) {
			i++
		}
		l.pos = i
		return param
	}
	for c := l.at(i); c != '$' && (isStart(c) || isDigit(c)); c = l.at(i) {
		i++
	}
	if l.at(i) != '$' {
		return bad
	}
	tag := l.src[l.pos : i+1]
	for j := i + 1; j+len(tag) <= len(l.src); j++ {
		if l.src[j] == '$' && string(l.src[j:j+len(tag)]) == string(tag) {
			l.pos = j + len(tag)
			return escaped
		}
	}
	return bad
}

// operator consumes operator characters up to a comment.
func (l *lexer) operator() {
	for l.pos < len(l.src) && isOp(l.src[l.pos]) {
		if c, n := l.src[l.pos], l.at(l.pos+1); c == '-' && n == '-' || c == '/' && n == '*' {
			return
		}
		l.pos++
	}
}
