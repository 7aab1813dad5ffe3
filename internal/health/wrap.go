package health

import (
	"strings"
	"unicode/utf8"
)

// word is what wrap moves as a whole, with the blanks that stand before it.
type word struct {
	text   string
	blanks string
}

// words splits a sentence. Two blanks set a command off from the prose around
// it; a command stays on one line, because people copy it, unless it is longer
// than the line.
func words(s string, width int) []word {
	var out []word
	for i, part := range strings.Split(strings.TrimSpace(s), "  ") {
		blanks := "  "
		if i == 0 {
			blanks = ""
		}
		if strings.HasPrefix(part, "manada ") && utf8.RuneCountInString(part) <= width {
			out = append(out, word{part, blanks})
			continue
		}
		for _, w := range strings.Fields(part) {
			out = append(out, word{w, blanks})
			blanks = " "
		}
	}
	return out
}

// wrap breaks a sentence into lines of at most width columns. A single word
// longer than that stays whole.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, w := range words(s, width) {
		switch {
		case line == "":
			line = w.text
		case utf8.RuneCountInString(line+w.blanks+w.text) > width:
			lines = append(lines, line)
			line = w.text
		default:
			line += w.blanks + w.text
		}
	}
	return append(lines, line)
}
