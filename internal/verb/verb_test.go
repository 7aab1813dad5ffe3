package verb

import (
	"net/http"
	"regexp"
	"testing"
)

// The list is well formed: every entry can be called, says what it does, and is one.
func TestList(t *testing.T) {
	names, patterns := map[string]bool{}, map[string]bool{}
	sentence := regexp.MustCompile(`^[a-z].*[^.]$`)
	for _, v := range All {
		if names[v.Name] || patterns[v.Pattern()] {
			t.Errorf("%s is there twice", v.Name)
		}
		names[v.Name], patterns[v.Pattern()] = true, true
		if v.Method != http.MethodGet && v.Method != http.MethodPost || v.Path[0] != '/' || !sentence.MatchString(v.Sentence) {
			t.Errorf("%+v", v)
		}
		if v.Asks() && (v.Danger != Harmless || !v.Again || len(v.Arguments) > 0) {
			t.Errorf("%s only asks", v.Name)
		}
		if !v.Asks() && v.Who == Hosts && v.Name != Drain.Name {
			t.Errorf("%s: a host with nothing but a proxy changes nothing but what it says in a drain", v.Name)
		}
	}
}

func TestAt(t *testing.T) {
	if got := Request.At("7f").Path; got != "/v1/request/7f" {
		t.Error(got)
	}
	if got := Status.At("x").Path; got != "/v1/status" {
		t.Error(got)
	}
}

func TestWords(t *testing.T) {
	for word, name := range map[string]string{"kill_client": "proxy kill-client", "PAUSE": "proxy pause", "Wait_Close": "proxy wait-close"} {
		if v, ok := Order(word); !ok || v.Name != name {
			t.Errorf("%s is %s", word, v.Name)
		}
	}
	if _, ok := Order("pools"); ok {
		t.Error("a table is an order")
	}
}
