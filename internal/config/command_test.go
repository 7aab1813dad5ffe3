package config

import (
	"slices"
	"strings"
	"testing"
)

func TestParseCommand(t *testing.T) {
	for text, want := range map[string][]string{
		`/bin/tell %n %e`:               {"/bin/tell", "2", "promoted"},
		`tell "%t" '%d' %%`:             {"tell", "then", "$(rm -rf /) 'x' \"y\"", "%"},
		`tell node=%n:\ %e "a \"b\" c"`: {"tell", "node=2: promoted", `a "b" c`},
		`tell '' x`:                     {"tell", "", "x"},
	} {
		c, err := ParseCommand(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := c.With(map[byte]string{'n': "2", 'e': "promoted", 't': "then", 'd': "$(rm -rf /) 'x' \"y\""})
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"": "is empty", "tell %x": "unknown placeholder", "tell 100%": "unknown placeholder", "tell | mail": "only a shell", "tell $HOME": "only a shell",
		"tell 'x": "not closed", "a; b": "only a shell",
	} {
		if _, err := ParseCommand(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
