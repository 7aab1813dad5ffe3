package config

import (
	"errors"
	"fmt"
	"strings"
)

// Command is events.command, taken apart.
type Command struct{ words []string }

// placeholders of a command; repmgr's, and %r.
const placeholders = "nerstdpac%"

// ParseCommand takes a command apart: words are separated by blanks, quotes keep them
// together, a backslash takes the next character as it is. What only a shell
// would understand is refused.
func ParseCommand(text string) (Command, error) {
	words, err := splitWords(text)
	if err != nil {
		return Command{}, err
	}
	if len(words) == 0 {
		return Command{}, errors.New("is empty")
	}
	for _, w := range words {
		for i := 0; i < len(w); i++ {
			if w[i] != '%' {
				continue
			}
			if i++; i == len(w) || !strings.ContainsRune(placeholders, rune(w[i])) {
				return Command{}, fmt.Errorf("%q holds an unknown placeholder: there are %%n %%e %%r %%s %%t %%d %%p %%a %%c and %%%%", w)
			}
		}
	}
	return Command{words}, nil
}

// Program is the first word.
func (c Command) Program() string { return c.words[0] }

// With fills in the placeholders, by their letter.
func (c Command) With(values map[byte]string) []string {
	out := make([]string, len(c.words))
	for n, w := range c.words {
		var b strings.Builder
		for i := 0; i < len(w); i++ {
			if w[i] != '%' {
				b.WriteByte(w[i])
				continue
			}
			i++
			if w[i] == '%' {
				b.WriteByte('%')
				continue
			}
			b.WriteString(strings.ReplaceAll(values[w[i]], "\x00", ""))
		}
		out[n] = b.String()
	}
	return out
}

func splitWords(text string) ([]string, error) {
	var words []string
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
			in = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '\'' || c == '"':
			quote, in = c, true
		case c == ' ' || c == '\t':
			if in {
				words = append(words, b.String())
			}
			b.Reset()
			in = false
		case strings.IndexByte("|&;<>()$`\n*?", c) >= 0:
			return nil, fmt.Errorf("holds %q, which only a shell understands: put it into a script", c)
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %q is not closed", quote)
	}
	if in {
		words = append(words, b.String())
	}
	return words, nil
}
