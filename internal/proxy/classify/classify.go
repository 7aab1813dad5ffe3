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

// Setting is what one of several statements sets, as Statement has it for one alone.
type Setting struct {
	Name    string
	Default bool
	Span    // of the statement, in the text
}

// Reset is a statement that sets a setting back, for the transaction only or not.
type Reset struct {
	Name  string // in lower case; "" is every setting
	Local bool
	Nth   int // which statement of the text it is; 0 is the first
	End   int // of that statement, in the text
}

// Use is a statement that names a prepared one.
type Use struct {
	What What
	Name string // "" is all of them
	Span        // of the name, in the text
	Nth  int    // which statement of the text it is; 0 is the first
}

// What is done with a prepared statement.
type What uint8

const (
	Uses What = iota
	Makes
	Drops
	DropsAll
)

// Statement is what there is to know of a text.
type Statement struct {
	Kind Kind
	// Queries counts the statements that begin as a query does: SELECT, VALUES,
	// TABLE or WITH.
	Queries int
	// Setting names what Settings sets, in lower case; "" is everything. Default: it
	// goes back to what the session began with.
	Setting string
	Default bool
	// Several are the settings of a text of several statements that sets some, begins
	// and ends no transaction, and can be said again.
	Several []Setting
	// Sets says that a setting is changed somewhere, for the transaction at least.
	Sets bool
	// Resets are the places where settings go back to what the session began with.
	Resets []Reset
	// Prepared are the places where prepared statements are named.
	Prepared []Use
	// Numbers says that currval or lastval is asked, Inserts that nextval may be called.
	Numbers, Inserts bool
	// Loads says that a library is loaded into the session.
	Loads bool
	// Begins says that a transaction is begun, and nothing else.
	Begins bool
	// Defines says that functions, or what calls them unseen, are made or changed, and
	// nothing is run that may call them; Suspect that what is made may leave something
	// behind when it is used. Ends says that a transaction, or a part of it, begins or
	// ends, and nothing else.
	Defines, Suspect, Ends bool
	// Why says what a Pin may leave behind. Transactional: a rollback takes that back.
	Why           string
	Transactional bool
	// Commits says that what came before in the same batch is committed, whatever becomes
	// of the rest: the statement cannot run in a transaction block.
	Commits bool
	// Mark is what a savepoint's statement does to the one that MarkName names.
	Mark     Mark
	MarkName string
	// Mute are values given to client_min_messages that hide warnings.
	Mute []Span
	// Level is what becomes of client_min_messages; Local: for the transaction only.
	Level Level
	Local bool
}

// Mark is what is done with a savepoint.
type Mark uint8

const (
	MarkNone Mark = iota
	MarkSet
	MarkBack // rolled back to
	MarkGone // released
	MarkSome // one of several statements in a text
)

// hint at the very beginning keeps a read on the primary, as pgpool has it.
const hint = "/*NO LOAD BALANCE*/"

// Names knows behind which names something may be hidden that a session keeps, and
// which are functions that leave nothing behind. It is asked for tokens as they are
// written.
type Names interface {
	Dangerous(token []byte) bool
	Harmless(token []byte) bool
	// Leaves says whether a function may leave something behind, by the text that makes
	// it.
	Leaves(text []byte) bool
}

// Text classifies a query string. It may hold any bytes.
func Text(sql []byte) Statement { return Known(sql, nil) }

// Known is Text that also knows dangerous names, or nil.
func Known(sql []byte, names Names) Statement {
	s := classify(sql, names)
	if s.Kind == Read && bytes.HasPrefix(bytes.TrimLeft(sql, " \t\r\n"), []byte(hint)) {
		s.Kind = Primary
	}
	return s
}

func classify(sql []byte, names Names) Statement {
	buf := tokens.Get().(*[]token)
	p := parser{src: sql, toks: (*buf)[:0], known: names}
	defer func() {
		if cap(p.toks) <= 4096 {
			*buf = p.toks
		}
		tokens.Put(buf)
	}()
	if !p.lex() {
		return Statement{Kind: Pin, Why: "a text that is not understood"}
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
			p.from, p.to, p.nth = from, to, count-1
			one := p.statement()
			if one.Kind == Settings {
				p.carries = append(p.carries, Setting{one.Setting, one.Default, Span{p.toks[from].at, p.toks[to-1].to}})
			}
			p.ends = p.ends || one.Ends
			p.drops = p.drops || one.Kind == Forget || one.Kind == Discard
			out.Queries += one.Queries
			out.Setting, out.Default = one.Setting, one.Default
			if count == 1 {
				out.Kind, out.Mark, out.MarkName, out.Begins = one.Kind, one.Mark, one.MarkName, one.Begins
				out.Defines, out.Ends = one.Defines || one.Ends, one.Ends
			} else {
				out.Kind, out.Begins = max(several(out.Kind), several(one.Kind)), false
				out.Defines, out.Ends = out.Defines && (one.Defines || one.Ends), out.Ends && one.Ends
				if out.Mark != MarkNone || one.Mark != MarkNone {
					out.Mark, out.MarkName = MarkSome, ""
				}
			}
		}
		from = to + 1
	}
	if count > 1 && out.Kind == Primary && len(p.carries) > 0 {
		if p.ends || p.levels > 1 {
			out.Kind = Pin
		}
		out.Several = p.carries
	}
	out.Mute, out.Level, out.Local = p.mute, p.level, p.levelLocal
	out.Sets, out.Resets, out.Prepared = p.sets, p.back, p.uses
	out.Numbers, out.Loads = p.numbers, p.loads
	out.Commits = count == 1 && p.commits
	if out.Defines = out.Defines && !out.Ends; names != nil {
		p.judge(&out)
	}
	if out.Kind == Pin {
		if out.Why = p.why; out.Why == "" {
			out.Why, p.lasts = "a statement that is not known", true
		}
		out.Transactional = !p.lasts && !p.ends && !p.drops
	}
	out.Inserts = p.inserts || out.Kind == Pin && !out.Transactional
	if count == 0 {
		out.Kind = Primary
	}
	return out
}

var tokens = sync.Pool{New: func() any { return new([]token) }}

// judge says what follows from names.
func (p *parser) judge(out *Statement) {
	if (out.Kind != Pin || p.makes || !p.lasts) && p.names() {
		out.Kind, out.Suspect = Pin, p.makes
	}
	if p.leaves {
		if out.Suspect = true; !out.Defines {
			out.Kind = p.pin("what the text itself makes")
		}
	}
}

// names says whether a dangerous one is in the text.
func (p *parser) names() bool {
	for _, t := range p.toks {
		if t.kind != word && t.kind != quoted && t.kind != op {
			continue
		}
		if name := p.src[t.at:t.to]; p.known.Dangerous(name) {
			p.pin("what is behind " + string(name[:min(63, len(name))]))
			return true
		}
	}
	return false
}

// several is the kind of a statement among others of its text.
func several(k Kind) Kind {
	if k <= Settings {
		return Primary
	}
	return Pin
}

// parser looks at the tokens from..to of one statement.
type parser struct {
	src      []byte
	toks     []token
	known    Names // or nil
	from, to int
	nth      int     // which statement of the text it is
	mute     []Span  // found so far
	back     []Reset // as well
	uses     []Use   // as well
	carries  []Setting
	ends     bool // a transaction, or a part of it, begins or ends
	levels   int  // how often client_min_messages is set

	level      Level // set last
	levelLocal bool

	makes, leaves                 bool   // something is made, and its text may leave something behind
	sets, numbers, inserts, loads bool   // see Statement
	why                           string // of the first Pin, and rather of one that lasts
	lasts                         bool   // there is one that no rollback takes back
	commits                       bool   // see Statement
	drops                         bool   // prepared statements are dropped
}

// pin is Pin, and remembers why.
func (p *parser) pin(why string) Kind {
	if !p.lasts {
		p.lasts, p.why = true, why
	}
	return Pin
}

// undoable is Pin for what a rollback takes back.
func (p *parser) undoable(why string) Kind {
	if p.why == "" {
		p.why = why
	}
	return Pin
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
			if t.kind == word {
				t.word = uint16(listed(p.src[t.at:t.to]))
			}
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
	if uint(i) >= uint(len(p.toks)) {
		return false
	}
	t := &p.toks[i]
	return t.kind >= punct && t.to-t.at == len(s) && string(p.src[t.at:t.to]) == s
}

// word is the token as a lower-case word of the lists, "?" when it is another
// one and "" when it is none at all.
func (p *parser) word(i int) string {
	if p.kind(i) != word {
		return ""
	}
	return words[p.toks[i].word]
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
	w := p.word(first)
	p.commits = p.commitsBefore(w)
	switch w {
	case "select", "values", "table", "with":
		return p.query(first)
	case "set":
		p.sets = true
		return p.set()
	case "reset":
		p.sets = true
		return p.reset()
	case "show":
		if p.to-p.from == 2 && p.word(p.from+1) == "pool_nodes" {
			return Statement{Kind: PoolNodes}
		}
		return Statement{Kind: Primary}
	case "discard":
		if p.word(p.from+1) == "all" {
			p.level, p.levelLocal, p.sets = LevelReset, false, true
			p.reverts("", false)
			return Statement{Kind: Discard}
		}
		return Statement{Kind: Primary}
	case "deallocate":
		return p.deallocate()
	case "execute":
		p.prepared(Uses, p.from+1)
		return Statement{Kind: p.pin("EXECUTE")}
	case "insert", "update", "delete", "merge", "explain", "copy":
		p.inserts = true
		return Statement{Kind: p.work(w)}
	case "create", "alter", "import":
		p.makes = true
		defines := p.defines()
		if defines && p.known != nil {
			p.leaves = p.leaves || p.known.Leaves(p.src[p.toks[p.from].at:p.toks[p.to-1].to])
		}
		return Statement{Kind: p.work(w), Defines: defines}
	case "declare", "fetch", "move":
		return Statement{Kind: p.work(w)}
	case "prepare":
		if p.word(p.from+1) == "transaction" {
			return Statement{Kind: Primary}
		}
		p.prepared(Makes, p.from+1)
		return Statement{Kind: p.pin("PREPARE")}
	case "savepoint", "release", "rollback":
		s := p.savepoint(w)
		s.Ends = true
		return s
	case "begin", "start":
		return Statement{Kind: Primary, Begins: true, Ends: true}
	case "commit", "end", "abort":
		return Statement{Kind: Primary, Ends: true}
	default:
		if plain[w] {
			return Statement{Kind: Primary}
		}
		if p.loads = p.loads || w == "load"; w == "listen" {
			return Statement{Kind: p.undoable("LISTEN")}
		}
		return Statement{Kind: p.pin(pinning[w])}
	}
}

// pinning are the statements that are known to leave something behind, whatever becomes of
// their transaction.
var pinning = map[string]string{"load": "LOAD", "do": "DO", "call": "CALL"}

// savepoint is SAVEPOINT, RELEASE or ROLLBACK, which may be to a savepoint.
func (p *parser) savepoint(w string) Statement {
	s := Statement{Kind: Primary, Mark: MarkSet}
	i := p.from + 1
	switch w {
	case "release":
		s.Mark = MarkGone
	case "rollback":
		for i < p.to && p.word(i) != "to" {
			i++
		}
		if i == p.to {
			return Statement{Kind: Primary}
		}
		s.Mark = MarkBack
		i++
	}
	if w != "savepoint" && p.word(i) == "savepoint" && i+1 < p.to {
		i++
	}
	if s.MarkName, i = p.name(i); s.MarkName == "" || i != p.to {
		s.Mark = MarkSome
	}
	return s
}

// query is a SELECT, VALUES, TABLE or WITH.
func (p *parser) query(first int) Statement {
	s := Statement{Kind: Read, Queries: 1}
	if name, ok := p.setConfig(first); ok {
		p.sets = true
		s.Kind, s.Setting = p.settable(name), name
		return s
	}
	into := false
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
		into = into || w == "into"
		s.Kind = max(s.Kind, p.called(i), p.writes(i, w))
	}
	if into && p.temporary() {
		s.Kind = p.undoable(temporaryObjects)
	}
	return s
}

// writes looks for words that make a query more than a read, or one that does
// not read the same everywhere.
func (p *parser) writes(i int, w string) Kind {
	switch w {
	case "into", "insert", "update", "delete", "merge":
		p.inserts = true
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
		return p.pinCall(i)
	}
	if p.kind(i) == quoted {
		if p.word(i-1) == "as" || p.target(i) {
			return Read
		}
		return p.pinCall(i)
	}
	w := p.word(i)
	switch {
	case functions[w], !dotted && (grammar[w] || p.placed(i, w)):
		return Read
	case w == "current_setting" && p.own(i):
		return Read
	case volatile[w]:
		p.numbers = p.numbers || w == "currval" || w == "lastval"
		p.inserts = p.inserts || w == "nextval" || w == "setval"
		return Primary
	case w == "set_config":
		p.sets = true
		p.muted(i)
		if p.local(i) {
			return Primary
		}
		return p.pinCall(i)
	case !dotted && (p.word(i-1) == "as" || p.named(i)), p.target(i):
		return Read
	}
	return p.pinCall(i)
}

// named says whether the name at i is that of what stands in parentheses before it:
// no call can stand there, but for those two.
func (p *parser) named(i int) bool {
	depth := 0
	for j := i - 1; j >= p.from; j-- {
		switch {
		case p.is(j, ")"):
			depth++
		case p.is(j, "("):
			depth--
		}
		if depth == 0 {
			before := p.word(j - 1)
			return j < i-1 && before != "on" && before != "operator"
		}
	}
	return false
}

// outside is where a word stands outside of parentheses; the statement's end if nowhere.
func (p *parser) outside(w string) int {
	depth := 0
	for i := p.from; i < p.to; i++ {
		switch {
		case p.is(i, "("):
			depth++
		case p.is(i, ")"):
			depth--
		case depth == 0 && p.word(i) == w:
			return i
		}
	}
	return p.to
}

// defines says whether a CREATE or ALTER is of a function, or of what calls functions
// without naming them.
func (p *parser) defines() bool {
	for i := p.from + 1; i < p.to; i++ {
		switch w := p.word(i); w {
		case "or", "replace", "constraint", "event", "trusted", "procedural", "recursive":
		default:
			return definable[w]
		}
	}
	return false
}

// pinCall is Pin for a call of the function at i, unless that is known.
func (p *parser) pinCall(i int) Kind {
	if p.known != nil && p.known.Harmless(p.bytes(i)) {
		p.inserts = true
		return Primary
	}
	if p.lasts {
		return Pin
	}
	name := p.bytes(i)
	if bytes.Contains(name, []byte("advisory")) {
		return p.pin("a session's advisory lock")
	}
	return p.pin("a call of " + string(name[:min(63, len(name))]))
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
	case "operator":
		i += 2
		for p.kind(i) == word || p.kind(i) == quoted || p.is(i, ".") {
			i++
		}
		return p.kind(i) == op && p.is(i+1, ")")
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
