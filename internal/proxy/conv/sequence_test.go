package conv

import (
	"strings"
	"testing"

	"manada/internal/proxy/wire"
)

// The client that has had a last value in another transaction is told why there is
// none; who never had one, or inserts in this one, gets PostgreSQL's words.
func TestNoLastValueHasAHint(t *testing.T) {
	body := func(code, routine string) []byte {
		return []byte("SERROR\x00VERROR\x00C" + code + "\x00Mno\x00R" + routine + "\x00\x00")
	}
	c := New(&Config{Mode: Auto})
	if c.lacks(body("55000", "lastval")) {
		t.Error("it never had one")
	}
	c.once = true
	for _, routine := range []string{"lastval", "currval_oid"} {
		if b := body("55000", routine); !c.lacks(b) || !strings.Contains(wire.ParseError(withHint(b, "so")).Hint, "so") {
			t.Errorf("%s has no hint", routine)
		}
	}
	if c.lacks(body("55000", "other")) || c.lacks(body("42P01", "lastval")) {
		t.Error("another error")
	}
	if c.inserted = true; c.lacks(body("55000", "lastval")) {
		t.Error("its own server")
	}
}
