package classify

import (
	"bytes"
	"strings"
)

const minMessages = "client_min_messages"

// Level is what a text does to the messages that a client gets.
type Level uint8

// In no order.
const (
	LevelKept  Level = iota
	LevelHides       // warnings are hidden
	LevelShows
	LevelReset // to what the session began with
)

// set is SET ...
func (p *parser) set() Statement {
	i := p.from + 1
	local := p.word(i) == "local"
	if local || p.word(i) == "session" && !p.is(i+1, "=") && p.word(i+1) != "to" {
		i++
	}
	if local && p.word(i) == "session" && p.word(i+1) == "authorization" {
		i++
	}
	switch p.word(i) {
	case "transaction", "constraints":
		return Statement{Kind: Primary}
	case "role":
		p.sentBack("role", i+2, local)
		return p.identity("SET ROLE", local)
	case "authorization":
		p.sentBack("session_authorization", i+1, local)
		return p.identity("SET SESSION AUTHORIZATION", local)
	case "characteristics":
		return p.characteristics(i + 1)
	case "xml":
		return Statement{Kind: p.pin("a setting that is not carried")}
	case "time":
		return p.setTo("timezone", i+2, local)
	case "schema":
		return p.settings("search_path", local)
	case "names":
		return p.encoding(i+1, local)
	}
	name, i := p.name(i)
	if !p.is(i, "=") && p.word(i) != "to" || name == "" {
		return Statement{Kind: p.pin("a setting that is not understood")}
	}
	if name == "client_encoding" {
		return p.encoding(i+1, local)
	}
	if name == conforming {
		return p.conforms(i + 1)
	}
	s := p.setTo(name, i+1, local)
	if name == "search_path" && p.any("pg_temp") || p.quotedTemp(name, i) {
		s.Kind = p.undoable(temporaryObjects) // what is created has no word for it
	}
	if name == minMessages {
		p.levelTo(i+1, local)
	}
	return s
}

// identity is a change of whom the session acts for.
func (p *parser) identity(why string, local bool) Statement {
	if local {
		return Statement{Kind: Primary}
	}
	return Statement{Kind: p.undoable(why)}
}

const conforming = "standard_conforming_strings"

// conforms is SET standard_conforming_strings. Where texts are understood it is on.
func (p *parser) conforms(i int) Statement {
	on := p.value(i)
	if p.kind(i) == number {
		on = string(p.bytes(i))
	}
	switch on {
	case "on", "true", "yes", "1":
		if i+1 == p.to {
			return Statement{Kind: Primary}
		}
	}
	return Statement{Kind: p.pin("a setting that is not carried")}
}

// characteristics is SET SESSION CHARACTERISTICS, from its AS on. That of one mode is
// another word for one setting.
func (p *parser) characteristics(i int) Statement {
	var mode []string
	for i += 2; i < p.to; i++ {
		mode = append(mode, p.value(i))
	}
	if name := modes[strings.Join(mode, " ")]; name != "" {
		return p.settings(name, false)
	}
	return Statement{Kind: p.pin("a setting that is not carried")}
}

var modes = map[string]string{
	"read only": "default_transaction_read_only", "read write": "default_transaction_read_only",
	"deferrable": "default_transaction_deferrable", "not deferrable": "default_transaction_deferrable",
	"isolation level serializable": "default_transaction_isolation", "isolation level repeatable read": "default_transaction_isolation",
	"isolation level read committed": "default_transaction_isolation", "isolation level read uncommitted": "default_transaction_isolation",
}

// setTo is SET of a setting to the value at i.
func (p *parser) setTo(name string, i int, local bool) Statement {
	s := p.settings(name, local)
	s.Default = p.sentBack(name, i, local)
	return s
}

// sentBack says whether the value at i is what the session began with, and notes it.
func (p *parser) sentBack(name string, i int, local bool) bool {
	back := p.word(i) == "default" || name == "timezone" && p.word(i) == "local" || name == "client_encoding" && i == p.to
	if back {
		p.reverts(name, local)
	}
	return back
}

// reverts notes that the statement sets settings back.
func (p *parser) reverts(name string, local bool) {
	p.back = append(p.back, Reset{name, local, p.nth, p.toks[p.to-1].to})
}

func (p *parser) settings(name string, local bool) Statement {
	if local {
		return Statement{Kind: Primary}
	}
	return Statement{Kind: p.settable(name), Setting: name}
}

// quotedTemp says whether a search_path names pg_temp in quotes, behind i.
func (p *parser) quotedTemp(name string, i int) bool {
	for ; name == "search_path" && i < p.to; i++ {
		if p.value(i) == "pg_temp" {
			return true
		}
	}
	return false
}

// name reads a setting's name at i and returns what stands behind it.
func (p *parser) name(i int) (string, int) {
	var parts []string
	for {
		switch p.kind(i) {
		case word:
			parts = append(parts, strings.ToLower(string(p.bytes(i))))
		case quoted:
			b := p.bytes(i)
			if b[0] != '"' || strings.Contains(string(b[1:len(b)-1]), `"`) {
				return "", i
			}
			parts = append(parts, strings.ToLower(string(b[1:len(b)-1])))
		default:
			return "", i
		}
		if i++; !p.is(i, ".") {
			return strings.Join(parts, "."), i
		}
		i++
	}
}

// value is a word or string at i, in lower case.
func (p *parser) value(i int) string {
	switch p.kind(i) {
	case word:
		return strings.ToLower(string(p.bytes(i)))
	case text, escaped, quoted:
		b := p.bytes(i)
		b = b[1+bytes.IndexAny(b, `'"$`):]
		return strings.ToLower(strings.Trim(string(b), `'"$`))
	}
	return ""
}

// levelTo notes that client_min_messages becomes the value at i.
func (p *parser) levelTo(i int, local bool) {
	v := p.value(i)
	p.levelLocal = local
	p.levels++
	switch {
	case p.kind(i) == word && v == "default":
		p.level = LevelReset
	case mutes(v):
		p.level = LevelHides
		p.mute = append(p.mute, Span{p.toks[i].at, p.toks[i].to})
	default:
		p.level = LevelShows
	}
}

// levelReset notes that it goes back for the session.
func (p *parser) levelReset() {
	p.level, p.levelLocal = LevelReset, false
	p.levels++
}

func mutes(level string) bool { return level == "error" || level == "fatal" || level == "panic" }

// encoding is SET NAMES and SET client_encoding. In some encodings the second
// byte of a character looks like a backslash; they are not lexed here.
func (p *parser) encoding(i int, local bool) Statement {
	s := p.setTo("client_encoding", i, local)
	if !s.Default && !Encoding(p.value(i)) {
		return Statement{Kind: p.pin("an encoding that is not understood")}
	}
	return s
}

// Encoding says whether texts in a client's encoding can be classified.
func Encoding(name string) bool {
	switch plainly.Replace(strings.ToLower(name)) {
	case "utf8", "unicode", "sqlascii", "latin1", "iso88591", "latin9", "iso885915", "win1252":
		return true
	}
	return false
}

var plainly = strings.NewReplacer("_", "", "-", "", " ", "")

// settable is Settings for what can be said again on another connection.
func (p *parser) settable(name string) Kind {
	if !canSet(name) {
		return p.pin("a setting that is not carried")
	}
	return Settings
}

func canSet(name string) bool {
	switch name {
	case "role", "session_authorization", "session_replication_role", conforming,
		"is_superuser", "seed":
		return false
	}
	return !strings.HasPrefix(name, "transaction_")
}

func (p *parser) reset() Statement {
	s := p.resets()
	s.Default = true
	return s
}

func (p *parser) resets() Statement {
	switch i := p.from + 1; p.word(i) {
	case "all":
		p.levelReset()
		p.reverts("", false)
		return Statement{Kind: Settings}
	case "role":
		p.reverts("role", false)
		return p.identity("SET ROLE", false)
	case "session":
		p.reverts("session_authorization", false)
		return p.identity("SET SESSION AUTHORIZATION", false)
	case "time":
		p.reverts("timezone", false)
		return p.settings("timezone", false)
	case "transaction":
		return Statement{Kind: Primary}
	default:
		name, _ := p.name(i)
		if name == "" {
			return Statement{Kind: p.pin("a setting that is not understood")}
		}
		if name == minMessages {
			p.levelReset()
		}
		p.reverts(name, false)
		return p.settings(name, false)
	}
}

// setConfig recognizes SELECT set_config('name', 'value', false) and nothing
// beside it: SET by another name, as drivers write it.
func (p *parser) setConfig(i int) (name string, ok bool) {
	if i != p.from || p.word(i) != "select" {
		return "", false
	}
	if i++; p.word(i) == "pg_catalog" && p.is(i+1, ".") {
		i += 2
	}
	if p.word(i) != "set_config" || !p.is(i+1, "(") || p.kind(i+2) != text || !p.is(i+3, ",") ||
		p.kind(i+4) != text || !p.is(i+5, ",") || p.word(i+6) != "false" || !p.is(i+7, ")") || i+8 != p.to {
		return "", false
	}
	name = p.value(i + 2)
	if strings.Contains(name, "'") || name == "search_path" && strings.Contains(p.value(i+4), "pg_temp") || name == "client_encoding" && !Encoding(p.value(i+4)) {
		return "", false
	}
	p.muted(i)
	return name, true
}

// muted notes a set_config at i of client_min_messages.
func (p *parser) muted(i int) {
	if p.is(i+1, "(") && p.value(i+2) == minMessages && p.is(i+3, ",") && p.value(i+4) != "" && p.kind(i+4) != word {
		p.levelTo(i+4, p.local(i))
	}
}

// own says whether the current_setting at i asks for a setting with a dot in its
// name: an application's own, which follows the session. Others may be the node's.
func (p *parser) own(i int) bool {
	return p.is(i+1, "(") && p.kind(i+2) == text && strings.Contains(p.value(i+2), ".")
}

// local says whether the set_config at i is for the transaction only.
func (p *parser) local(i int) bool {
	depth, commas := 0, 0
	for j := i + 1; j < p.to; j++ {
		switch {
		case p.is(j, "("), p.is(j, "["):
			depth++
		case p.is(j, ")"), p.is(j, "]"):
			depth--
			if depth == 0 {
				return false
			}
		case p.is(j, ",") && depth == 1:
			if commas++; commas == 2 {
				return p.word(j+1) == "true" && p.is(j+2, ")")
			}
		}
	}
	return false
}
