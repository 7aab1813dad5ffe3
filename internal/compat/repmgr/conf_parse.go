package repmgr

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// item is one setting as it stands in the file.
type item struct {
	name, value string
	line        int
}

var (
	nameOf = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*`)
	bare   = regexp.MustCompile(`^[^\s#']+`)
)

// parse reads the form of PostgreSQL's own configuration: NAME = VALUE, the
// equal sign may be missing, values in single quotes, comments with #.
func parse(file string, r io.Reader) ([]item, error) {
	var items []item
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		i, err := parseLine(strings.TrimPrefix(sc.Text(), "\ufeff"))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		if i.name == "" {
			continue
		}
		if strings.HasPrefix(i.name, "include") {
			return nil, fmt.Errorf("%s:%d: %s is not followed: put the settings of %s into this file", file, n, i.name, i.value)
		}
		i.line = n
		items = append(items, i)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return items, nil
}

func parseLine(line string) (item, error) {
	rest := strings.TrimSpace(line)
	if rest == "" || rest[0] == '#' {
		return item{}, nil
	}
	name := nameOf.FindString(rest)
	if name == "" {
		return item{}, fmt.Errorf("%q does not begin with the name of a setting", rest)
	}
	rest = strings.TrimLeft(rest[len(name):], " \t")
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), " \t")
	var value string
	switch {
	case rest == "" || rest[0] == '#':
		return item{}, fmt.Errorf("%s has no value", name)
	case rest[0] == '\'':
		var ok bool
		if value, rest, ok = unquote(rest[1:]); !ok {
			return item{}, fmt.Errorf("the value of %s begins with a quote and has no closing one", name)
		}
	default:
		value = bare.FindString(rest)
		rest = rest[len(value):]
	}
	if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '#' {
		return item{}, fmt.Errorf("%q stands behind the value of %s: put a value with spaces into single quotes", rest, name)
	}
	return item{name: name, value: value}, nil
}

// unquote reads up to the closing quote; ” and \' are a quote.
func unquote(s string) (value, rest string, ok bool) {
	escapes := map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			if e, known := escapes[s[i]]; known {
				b.WriteByte(e)
				continue
			}
			b.WriteByte(s[i])
		case c == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
			b.WriteByte('\'')
		case c == '\'':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
