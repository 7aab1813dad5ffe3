package container

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"manada/internal/config"
)

// Line is one line of a mounted file.
type Line struct {
	Where string // FILE:LINE
	Name  string // of a parameter; empty in pg_hba.conf
	Value string // of the parameter, or the whole rule
}

// Refusal is a line that is not obeyed, and why.
type Refusal struct {
	Line
	Why string
}

func (r Refusal) String() string {
	what := r.Name
	if what == "" {
		what = fmt.Sprintf("%q", r.Value)
	}
	return fmt.Sprintf("%s: %s is not obeyed: %s", r.Where, what, r.Why)
}

// ReadPostgresqlConf reads a file in the syntax of postgresql.conf. A file that
// is not there has no lines. What it includes is not read: it is refused.
func ReadPostgresqlConf(file string) (lines []Line, refused []Refusal, err error) {
	raw, err := rawLines(file)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range raw {
		name, value, ok, why := parseSetting(l.Value)
		switch {
		case why != "":
			refused = append(refused, Refusal{l, why})
		case ok:
			lines = append(lines, Line{l.Where, name, value})
		}
	}
	return lines, refused, nil
}

func rawLines(file string) ([]Line, error) {
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	var out []Line
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		out = append(out, Line{Where: fmt.Sprintf("%s:%d", filepath.Base(file), n), Value: strings.TrimRight(s.Text(), "\r")})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return out, nil
}

// parseSetting reads `name = value  # comment`; ok is false for a line without
// a setting. Quotes are single; two of them, or a backslash, make one.
func parseSetting(line string) (name, value string, ok bool, why string) {
	s := strings.TrimLeft(line, " \t")
	if s == "" || s[0] == '#' {
		return "", "", false, ""
	}
	end := strings.IndexFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == '=' || r == '#' })
	if end <= 0 {
		return "", "", false, "no value follows the name"
	}
	name, s = s[:end], strings.TrimLeft(s[end:], " \t")
	s = strings.TrimLeft(strings.TrimPrefix(s, "="), " \t")
	value, rest, why := scanValue(s)
	if why != "" {
		return "", "", false, why
	}
	if rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != '#' {
		return "", "", false, fmt.Sprintf("text after the value: %q (a value with spaces stands in single quotes)", rest)
	}
	return name, value, true, ""
}

func scanValue(s string) (value, rest, why string) {
	if s == "" || s[0] == '#' {
		return "", "", "no value follows the name"
	}
	if s[0] != '\'' {
		end := strings.IndexAny(s, " \t#")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\'' && i+1 < len(s) && s[i+1] == '\'':
			b.WriteByte(c)
			i++
		case c == '\'':
			return b.String(), s[i+1:], ""
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(unescape(s[i]))
		default:
			b.WriteByte(c)
		}
	}
	return "", "", "the closing quote is missing"
}

func unescape(c byte) byte {
	if e, ok := map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}[c]; ok {
		return e
	}
	return c
}

// ReadHBA reads a pg_hba.conf: its rules, one per line.
func ReadHBA(file string) ([]Line, error) {
	raw, err := rawLines(file)
	if err != nil {
		return nil, err
	}
	var out []Line
	for _, l := range raw {
		l.Value = strings.TrimSpace(withoutComment(l.Value))
		if l.Value != "" {
			out = append(out, l)
		}
	}
	return out, nil
}

func withoutComment(s string) string {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '#' && !quoted:
			return s[:i]
		}
	}
	return s
}

// judge holds one line against the rules of the configuration file: the reader
// there is the one judge of what may be set.
func (h *Host) judge(l Line, section string) (why string) {
	doc := "cluster: x\nnode: x\nroles: [" + strings.Join(h.Roles, ", ") + "]\npostgresql:\n"
	if l.Name != "" {
		doc += "  parameters:\n    " + yamlText(l.Name) + ": " + yamlText(l.Value) + "\n"
	} else {
		doc += "  hba:\n    - " + yamlText(l.Value) + "\n"
	}
	_, err := config.Parse("x", []byte(doc), nil)
	problems, ok := err.(config.Problems)
	if !ok {
		return ""
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Key, section) {
			what := p.What
			if _, after, ok := strings.Cut(what, `": `); ok && l.Name == "" {
				what = after
			}
			what = strings.TrimPrefix(what, "cannot be set here: ")
			if p.Want != "" {
				what += " (expected " + p.Want + ")"
			}
			return what
		}
	}
	return ""
}

// sift parts lines into those that are obeyed and the others.
func (h *Host) sift(lines []Line, section string) (good []Line, refused []Refusal) {
	for _, l := range lines {
		if why := h.judge(l, section); why != "" {
			refused = append(refused, Refusal{l, why})
		} else {
			good = append(good, l)
		}
	}
	return good, refused
}
