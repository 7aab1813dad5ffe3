package conv

import "strings"

// moments are the literals that PostgreSQL reads as a point in time of when a statement
// is prepared ("Special Date/Time Inputs"): 'now', 'today 12:00'.
var moments = [...]string{"now", "today", "tomorrow", "yesterday"}

// timely says whether a text may have such a literal: who prepares it later is to have
// a later one, so it is not shared.
func timely(text string) bool {
	if strings.IndexByte(text, '\'') < 0 && strings.IndexByte(text, '$') < 0 {
		return false // it has no literals
	}
	for i := range len(text) {
		switch text[i] | 0x20 {
		case 'n', 't', 'y':
			if i == 0 || !inWord(text[i-1]) {
				if momentAt(text[i:]) {
					return true
				}
			}
		}
	}
	return false
}

// momentAt says whether text begins with such a word, which is not the function now().
func momentAt(text string) bool {
	for _, word := range moments {
		if n := len(word); len(text) >= n && strings.EqualFold(text[:n], word) {
			return len(text) == n || text[n] != '(' && !inWord(text[n])
		}
	}
	return false
}

func inWord(b byte) bool {
	return b == '_' || b >= 0x80 || '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z'
}
