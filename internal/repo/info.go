package repo

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strings"
	"unicode/utf8"
)

// Format is the repository format that this package reads and writes.
const Format = 5

// Errors that readers distinguish. All are wrapped with what was read and why.
var (
	ErrFormat      = errors.New("not a valid repository file")
	ErrChecksum    = errors.New("checksum does not match")
	ErrUnsupported = errors.New("not supported by this version")
)

const (
	sectionBackrest = "backrest"
	keyChecksum     = "backrest-checksum"
	keyFormat       = "backrest-format"
	keyVersion      = "backrest-version"
)

// checksummer hashes an info file the way pgBackRest does: as one JSON object of
// sections, values verbatim, without the checksum itself.
type checksummer struct {
	h       hash.Hash
	section string
	open    bool // a section has been opened
	scratch []byte
}

func newChecksummer() *checksummer {
	c := &checksummer{h: sha1.New()}
	c.h.Write([]byte("{"))
	return c
}

func (c *checksummer) add(section, key, value string) {
	b := c.scratch[:0]
	switch {
	case !c.open:
		b = append(append(append(b, '"'), section...), `":{`...)
	case c.section != section:
		b = append(append(append(b, `},"`...), section...), `":{`...)
	default:
		b = append(b, ',')
	}
	c.open, c.section = true, section
	b = appendString(b, key)
	b = append(b, ':')
	b = append(b, value...)
	c.h.Write(b)
	c.scratch = b
}

func (c *checksummer) sum() string {
	if c.open {
		c.h.Write([]byte("}"))
	}
	c.h.Write([]byte("}"))
	return hex.EncodeToString(c.h.Sum(nil))
}

// appendString appends a JSON string the way pgBackRest writes it: only what
// must be escaped is, and never as \u.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// infoWriter builds an info file. Sections and keys must come in the order in
// which pgBackRest writes them: ascending.
type infoWriter struct {
	buf     bytes.Buffer
	sum     *checksummer
	section string
}

func newInfoWriter(version string) *infoWriter {
	w := &infoWriter{sum: newChecksummer()}
	w.put(sectionBackrest, keyFormat, fmt.Sprint(Format))
	w.put(sectionBackrest, keyVersion, quote(version))
	return w
}

func (w *infoWriter) put(section, key, value string) {
	if w.section != section {
		if w.section != "" {
			w.buf.WriteByte('\n')
		}
		w.buf.WriteString("[" + section + "]\n")
		w.section = section
	}
	w.buf.WriteString(key)
	w.buf.WriteByte('=')
	w.buf.WriteString(value)
	w.buf.WriteByte('\n')
	w.sum.add(section, key, value)
}

func (w *infoWriter) bytes() []byte {
	fmt.Fprintf(&w.buf, "\n[%s]\n%s=%q\n", sectionBackrest, keyChecksum, w.sum.sum())
	return w.buf.Bytes()
}

func quote(s string) string { return string(appendString(nil, s)) }

func boolean(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// sniff refuses what is not format 5 in the clear, by name.
func sniff(data []byte) error {
	switch {
	case bytes.HasPrefix(data, []byte("Salted__")):
		return fmt.Errorf("%w: the repository is encrypted (repo-cipher-type)", ErrUnsupported)
	case bytes.HasPrefix(data, []byte("PGBR")):
		return fmt.Errorf("%w: the repository is of format 6 (pgBackRest 2.60 and later, --repo-format=6); this reads format %d", ErrUnsupported, Format)
	case !bytes.HasPrefix(data, []byte("[")):
		return fmt.Errorf("%w: it does not begin with a section", ErrFormat)
	}
	return nil
}

// parseInfo reads an info file, hands every key to set, and checks the checksum
// at the end: what set was given counts only when parseInfo returns nil.
func parseInfo(data []byte, set func(section, key, value string) error) (version string, err error) {
	if err := sniff(data); err != nil {
		return "", err
	}
	sum := newChecksummer()
	var section, stored string
	format := 0
	for n := 1; len(data) > 0; n++ {
		raw, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		line := string(raw)
		if line == "" {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			section = line[1 : len(line)-1]
			continue
		}
		key, value, err := splitLine(line)
		if err != nil {
			return "", fmt.Errorf("line %d: %w", n, err)
		}
		if section == sectionBackrest {
			switch key {
			case keyChecksum:
				if err := json.Unmarshal([]byte(value), &stored); err != nil {
					return "", fmt.Errorf("line %d: %w: %w", n, ErrFormat, err)
				}
				continue
			case keyFormat:
				if err := json.Unmarshal([]byte(value), &format); err != nil {
					return "", fmt.Errorf("line %d: %w: %w", n, ErrFormat, err)
				}
				if format != Format {
					return "", fmt.Errorf("%w: the repository is of format %d; this reads format %d", ErrUnsupported, format, Format)
				}
			case keyVersion:
				if err := json.Unmarshal([]byte(value), &version); err != nil {
					return "", fmt.Errorf("line %d: %w: %w", n, ErrFormat, err)
				}
			}
			sum.add(section, key, value)
			continue
		}
		sum.add(section, key, value)
		if err := set(section, key, value); err != nil {
			return "", fmt.Errorf("line %d, [%s] %s: %w", n, section, key, err)
		}
	}
	if format == 0 || stored == "" {
		return "", fmt.Errorf("%w: it ends too early", ErrFormat)
	}
	if got := sum.sum(); got != stored {
		return "", fmt.Errorf("%w: the file says %s, its content gives %s", ErrChecksum, stored, got)
	}
	return version, nil
}

// splitLine parts key=JSON at the first = after which valid JSON follows, as
// file names may contain one.
func splitLine(line string) (key, value string, err error) {
	for at := 0; ; {
		i := strings.IndexByte(line[at:], '=')
		if i < 0 {
			return "", "", fmt.Errorf("%w: want key=JSON, got %.80q", ErrFormat, line)
		}
		at += i + 1
		if at > 1 && json.Valid([]byte(line[at:])) {
			if !utf8.ValidString(line[at:]) {
				return "", "", fmt.Errorf("%w: a value that is not UTF-8: %.80q", ErrUnsupported, line)
			}
			return line[:at-1], line[at:], nil
		}
	}
}

// decode reads a JSON value into v.
func decode(value string, v any) error {
	if err := json.Unmarshal([]byte(value), v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// setter maps the keys of one section to where their values go; unknown keys,
// which a later pgBackRest may add, are ignored.
func setter(m map[string]any, key, value string) error {
	if p, ok := m[key]; ok {
		return decode(value, p)
	}
	return nil
}
