package classify

import (
	"bytes"
	"sync"
)

// Kind is what a text means to the one who routes it.
type Kind uint8

// In the order of what they ask for: a text of several statements is of the
// greatest kind among them, and never a Read.
const (
	// Read certainly only reads, and reads the same on every node that has
	// replayed as much.
	Read Kind = iota
	// Primary is for the primary and leaves nothing behind in the session.
	Primary
	// Settings is a SET or RESET alone, which can be said again elsewhere.
	Settings
	// Forget drops prepared statements.
	Forget
	// Discard is DISCARD ALL alone.
	Discard
	// Pin may leave something in the session that another connection lacks.
	Pin
	// PoolNodes is SHOW POOL_NODES alone.
	PoolNodes
)

// Span is a part of a text.
type Span struct{ From, To int }

// Statement is what there is to know of a text.
type Statement struct {
	Kind Kind
	// Queries counts the statements that begin as a query does: SELECT, VALUES,
	// TABLE or WITH.
	Queries int
	// Setting names what Settings sets, in lower case; "" is everything.
	Setting string
	// Mute are values given to client_min_messages that hide warnings.
	Mute []Span
	// Level is what becomes of client_min_messages; Local: for the transaction only.
	Level Level
	Local bool
}

// hint at the very beginning keeps a read on the primary, as pgpool has it.
const hint = "/*NO LOAD BALANCE*/"

// Text classifies a query string. It may hold any bytes.
func Text(sql []byte) Statement {
	s := classify(sql)
	if s.Kind == Read && bytes.HasPrefix(bytes.TrimLeft(sql, " \t\r\n"), []byte(hint)) {
		s.Kind = Primary
	}
	return s
}

func classify(sql []byte) Statement {
	buf := tokens.Get().(*[]token)
	p := parser{src: sql, toks: (*buf)[:0]}
	defer func() {
		if cap(p.toks) <= 4096 {
			*buf = p.toks
		}
		tokens.Put(buf)
	}()
	if !p.lex() {
		return Statement{Kind: Pin}
	}
	var out Statement
	count := 0
	for from := 0; from < len(p.toks); {
		to := from
		for to < len(p.toks) && !p.is(to, ";") {
			to++
		}
		if to > from {
			count++
			p.from, p.to = from, to
			one := p.statement()
			out.Queries += one.Queries
			out.Setting = one.Setting
			if count == 1 {
				out.Kind = one.Kind
			} else {
				out.Kind = max(several(out.Kind), several(one.Kind))
			}
		}
		from = to + 1
	}
	out.Mute, out.Level, out.Local = p.mute, p.level, p.levelLocal
	if count == 0 {
		out.Kind = Primary
	}
	return out
}

var tokens = sync.Pool{New: func() any { return new([]token) }}

// several is the kind of a statement among others of its text.
func several(k Kind) Kind {
	if k == Read || k == Primary {
		return Primary
	}
	return Pin
}

// parser looks at the tokens from..to of one statement.
type parser struct {
	src      []byte
	toks     []token
	from, to int
	mute     []Span // found so far

	level      Level // set last
	levelLocal bool
}

func (p *parser) lex() bool {
	l := lexer{src: p.src}
	for {
		switch t := l.next(); t.kind {
		case end:
			return true
		case bad:
			return false
		default:
			p.toks = append(p.toks, t)
		}
	}
}

func (p *parser) kind(i int) kind {
	if i < p.from || i >= p.to {
		return end
	}
	return p.toks[i].kind
}

func (p *parser) bytes(i int) []byte { return p.src[p.toks[i].at:p.toks[i].to] }

// is says whether a token of the whole text is this punctuation or operator.
func (p *parser) is(i int, s string) bool {
	return i >= 0 && i < len(p.toks) && p.toks[i].kind >= punct && string(p.bytes(i)) == s
}

// word is the token as a lower-case word of the lists, "?" when it is another
// one and "" when it is none at all.
func (p *parser) word(i int) string {
	if p.kind(i) != word {
		return ""
	}
	var buf [64]byte
	b := p.bytes(i)
	if len(b) > len(buf) {
		return "?"
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	if s, ok := known[string(buf[:len(b)])]; ok {
		return s
	}
	return "?"
}

// any says whether one of the words is in the statement, outside of quotes.
func (p *parser) any(words ...string) bool {
	for i := p.from; i < p.to; i++ {
		w := p.word(i)
		for _, one := range words {
			if w == one {
				return true
			}
		}
	}
	return false
}

// statement classifies the statement from..to.
func (p *parser) statement() Statement {
	first := p.from
	for p.is(first, "(") && first < p.to {
		first++
	}
	switch w := p.word(first); w {
	case "select", "values", "table", "with":
		return p.query(first)
	case "set":
		return p.set()
	case "reset":
		return p.reset()
	case "show":
		if p.to-p.from == 2 && p.word(p.from+1) == "pool_nodes" {
			return Statement{Kind: PoolNodes}
		}
		return Statement{Kind: Primary}
	case "discard":
		if p.word(p.from+1) == "all" {
			p.level, p.levelLocal = LevelReset, false
			return Statement{Kind: Discard}
		}
		return Statement{Kind: Primary}
	case "deallocate":
		return Statement{Kind: Forget}
	case "insert", "update", "delete", "merge", "explain", "declare", "fetch", "move", "copy", "create", "alter":
		return Statement{Kind: p.work(w)}
	case "prepare":
		if p.word(p.from+1) == "transaction" {
			return Statement{Kind: Primary}
		}
	default:
		if plain[w] {
			return Statement{Kind: Primary}
		}
	}
	return Statement{Kind: Pin}
}

// query is a SELECT, VALUES, TABLE or WITH.
func (p *parser) query(first int) Statement {
	s := Statement{Kind: Read, Queries: 1}
	if name, ok := p.setConfig(first); ok {
		s.Kind, s.Setting = settable(name), name
		return s
	}
	for i := first; i < p.to; i++ {
		if p.kind(i) == quoted {
			s.Kind = max(s.Kind, p.called(i))
			if b := p.bytes(i); b[0] != '"' || special(b[1:]) && !catalogs[string(b[1:len(b)-1])] {
				s.Kind = max(s.Kind, Primary)
			}
			continue
		}
		w := p.word(i)
		if w == "" {
			continue
		}
		s.Kind = max(s.Kind, p.called(i), p.writes(i, w))
	}
	if p.any("temp", "temporary", "pg_temp") && p.any("into") {
		s.Kind = Pin
	}
	return s
}

// writes looks for words that make a query more than a read, or one that does
// not read the same everywhere.
func (p *parser) writes(i int, w string) Kind {
	switch w {
	case "into", "insert", "update", "delete", "merge":
		return Primary
	case "for":
		switch p.word(i + 1) {
		case "update", "no", "share", "key":
			return Primary
		}
	}
	if p.is(i+1, "(") {
		return Read // called has judged it
	}
	switch w {
	case "last_value", "log_cnt", "is_called":
		return Primary // a sequence is ahead on a standby
	}
	if special(p.bytes(i)) && !catalogs[w] {
		return Primary
	}
	return Read
}

// special says whether a name is one of PostgreSQL's own. But for the listed
// catalogs they may read differently on every node or in every session, as
// pg_stat_activity does.
func special(name []byte) bool {
	return len(name) >= 3 && name[0]|0x20 == 'p' && name[1]|0x20 == 'g' && name[2] == '_'
}

// work is a statement that may call functions on the way.
func (p *parser) work(w string) Kind {
	switch w {
	case "create":
		if p.any("temp", "temporary", "pg_temp") {
			return Pin
		}
		if !(p.any("table") || p.any("materialized")) || !p.any("select", "execute", "with", "values") {
			return Primary
		}
		for i := p.from; i < p.to; i++ { // CREATE TABLE t (...) AS SELECT f()
			if p.word(i) == "as" {
				p.from = i
				break
			}
		}
	case "alter":
		return Primary
	case "declare":
		for i := p.from; i < p.to; i++ {
			if p.word(i) == "with" && p.word(i+1) == "hold" {
				return Pin
			}
		}
	case "copy":
		if !p.is(p.from+1, "(") {
			return Primary
		}
	}
	k := Primary
	for i := p.from; i < p.to; i++ {
		if t := p.kind(i); t == word || t == quoted {
			k = max(k, p.called(i))
		}
	}
	return k
}

// called judges the name at i when a parenthesis follows: a Read function may
// be called anywhere, a Primary one leaves no trace in the session, and of the
// others nobody knows.
func (p *parser) called(i int) Kind {
	if i+1 >= p.to || !p.is(i+1, "(") {
		return Read
	}
	dotted := p.is(i-1, ".")
	if dotted && (p.word(i-2) != "pg_catalog" || p.is(i-3, ".")) {
		if p.target(i) {
			return Read
		}
		return Pin
	}
	if p.kind(i) == quoted {
		if p.word(i-1) == "as" || p.target(i) {
			return Read
		}
		return Pin
	}
	w := p.word(i)
	switch {
	case functions[w], !dotted && (grammar[w] || p.placed(i, w)):
		return Read
	case w == "current_setting" && p.own(i):
		return Read
	case volatile[w]:
		return Primary
	case w == "set_config":
		p.muted(i)
		if p.local(i) {
			return Primary
		}
		return Pin
	case !dotted && p.word(i-1) == "as", p.target(i):
		return Read
	}
	return Pin
}

// placed says whether a word that could be a function's name is one of the
// grammar where it stands.
func (p *parser) placed(i int, w string) bool {
	switch before := p.word(i - 1); w {
	case "over":
		return p.is(i-1, ")")
	case "filter":
		return p.is(i-1, ")") && p.word(i+2) == "where"
	case "conflict":
		return before == "on"
	case "sets":
		return before == "grouping"
	case "materialized":
		return before == "not" && p.word(i-2) == "as"
	case "bernoulli", "system":
		return before == "tablesample"
	}
	return false
}

// target says whether the name that ends at i is INSERT's or MERGE's table, and
// what follows a list of columns.
func (p *parser) target(i int) bool {
	for p.is(i-1, ".") && i-2 >= p.from {
		i -= 2
	}
	return p.word(i-1) == "into"
}
