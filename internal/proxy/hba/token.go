package hba

import (
	"errors"
	"strings"
)

// word is a name or, when it did not begin with a quote, perhaps a keyword.
type word struct {
	text   string
	quoted bool
}

func (w word) is(keyword string) bool { return !w.quoted && w.text == keyword }

// fields splits a line into its fields, each a list of words.
func fields(line string) (out [][]word, err error) {
	t := tokenizer{rest: line}
	for {
		var field []word
		for more := true; more; {
			w, ok, comma := t.next()
			if !ok {
				break
			}
			field, more = append(field, w), comma
		}
		switch {
		case t.open:
			return nil, errors.New("a quote is not closed")
		case len(field) == 0:
			return out, nil
		}
		out = append(out, field)
	}
}

// tokenizer cuts words as PostgreSQL's next_token does, oddities included: a
// quote may begin in the middle of a word, two of them in quotes are one, and
// only a word that begins with one is never a keyword.
type tokenizer struct {
	rest string
	open bool // the line ended inside a quote
}

// next returns the next word; comma says that it ended at one, so that the list
// goes on. Not ok: the line is at its end.
func (t *tokenizer) next() (w word, ok, comma bool) {
	t.rest = strings.TrimLeft(t.rest, " \t\r\n,")
	var b strings.Builder
	in, was, saw := false, false, false
	i := 0
loop:
	for ; i < len(t.rest); i++ {
		c := t.rest[i]
		switch {
		case !in && strings.IndexByte(" \t\r\n", c) >= 0:
			break loop
		case !in && c == '#':
			i = len(t.rest)
			break loop
		case !in && c == ',':
			comma = true
			i++
			break loop
		}
		if c != '"' || was {
			b.WriteByte(c)
		}
		was = in && c == '"' && !was
		if c == '"' {
			in, saw = !in, true
			w.quoted = w.quoted || b.Len() == 0
		}
	}
	t.rest, t.open = t.rest[i:], in
	w.text = b.String()
	return w, saw || w.text != "", comma
}
