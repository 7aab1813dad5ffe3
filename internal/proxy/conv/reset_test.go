package conv

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// Whatever was put into a text, an error in it points to the character that the
// client has there.
func TestPlaceOfAnError(t *testing.T) {
	c := New(&Config{Mode: Auto, Startup: NewStartup([]wire.Param{{Name: "a.a", Value: "é'\\"}, {Name: "a.b", Value: "2"}})})
	for _, sql := range []string{"X reset a.a; Y", "select 'é'; X reset all; Y; set a.b to default; Z", "set client_min_messages = error; X reset a.a -- Z", "X"} {
		w := c.rewrite(nil, classify.Text([]byte(sql)))
		if w == nil {
			w = &rewritten{}
		}
		sent := string(w.text([]byte(sql)))
		for _, mark := range []string{"X", "Y", "Z"} {
			if !strings.Contains(sql, mark) {
				continue
			}
			was, is := place(sql, mark), place(sent, mark)
			body := w.place(fmt.Appendf(nil, "SERROR\x00P%d\x00C42601\x00\x00", is), []byte(sql))
			switch want := fmt.Sprintf("SERROR\x00P%d\x00C42601\x00\x00", was); {
			case body == nil && was == is:
			case string(body) != want:
				t.Errorf("%s: at %d of %q: %q", mark, is, sent, body)
			}
		}
	}
	w := c.rewrite(nil, classify.Text([]byte("reset a.a; x")))
	if at := w.was(20, []byte("reset a.a; x")); at != 10 {
		t.Errorf("within what was added: %d", at)
	}
}

// place is the number of the character at which mark begins.
func place(sql, mark string) int { return len([]rune(sql[:strings.Index(sql, mark)])) + 1 }

// What is found quickly in a text is what is there.
func TestWordsInATextAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	parts := []string{"s", "e", "t", "SE", "set", "ReSeT", "_", "pool_", "nodes", "POOL_NODES", "client_", "min_", "messages", "x", "te", "ses", " ", ""}
	for range 20000 {
		var text string
		for range r.IntN(8) {
			text += parts[r.IntN(len(parts))]
		}
		low := strings.ToLower(text)
		if got, want := mentionsSet([]byte(text)), strings.Contains(low, "set"); got != want {
			t.Fatalf("SET in %q: %v", text, got)
		}
		for _, w := range [][]byte{poolNodes, minMessages} {
			if got, want := mentionsWord([]byte(text), w), strings.Contains(low, string(w)); got != want {
				t.Fatalf("%s in %q: %v", w, text, got)
			}
		}
	}
	for text, want := range map[string]bool{"DISCARD ALL": true, " \n\tdeallocate x": true, "reset a": true, "PREPARE": true, "Execute x": true,
		"dis": false, "": false, " ": false, "select discard": false, "de\x01llocate": false, "rES": false, "resx": true} {
		if quick([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
