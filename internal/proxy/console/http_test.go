package console

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"manada/internal/verb"
)

// Programs see the same tables and give the same orders as the console's clients.
func TestHandler(t *testing.T) {
	o := newOrders()
	by := ""
	h := Handler(func(who string) *Source { by = who; return &o.Source })
	ask := func(method, path, body string) (int, string) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set(verb.ByHeader, "db1")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	_, text := ask("GET", "/v1/proxy", "")
	var all Index
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all.Verbs) != len(verb.Orders) || !slices.Contains(all.Tables, "pools") {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, v := range all.Verbs {
		if v.Sentence == "" || v.Danger == "" || v.Who != "superusers and members of manada_admin" {
			t.Errorf("%+v", v)
		}
	}
	for _, name := range all.Tables {
		code, text := ask("GET", "/v1/proxy/"+name, "")
		var table Table
		if err := json.Unmarshal([]byte(text), &table); err != nil || code != 200 {
			t.Errorf("%s: %d %v\n%s", name, code, err, text)
			continue
		}
		shown := find(&o.Source, name)
		if len(table.Columns) != len(shown.cols) || len(table.Rows) != len(shown.rows(&o.Source)) {
			t.Errorf("%s: %s", name, text)
		}
		for _, r := range table.Rows {
			if len(r) != len(table.Columns) {
				t.Errorf("%s: %v", name, r)
			}
		}
	}
	for _, c := range []struct {
		method, path, body string
		code               int
		text               string
	}{
		{"POST", "pause", `{"argument":"orders"}`, 200, `{"verb":"PAUSE"}`}, {"POST", "PAUSE", "", 200, "PAUSE"},
		{"POST", "reload", "{}", 200, `"note":"restart something"`}, {"POST", "disable", "", 400, "a database is required"},
		{"POST", "reload", `{"argument":"x"}`, 400, "42601"}, {"POST", "nosuch", "", 404, "no verb nosuch"}, {"POST", "pause", "{", 400, "22023"},
		{"POST", "pause", `{"argument":"nosuch"}`, 409, `"code":"3D000"`}, {"GET", "nosuch", "", 404, "no table"}, {"POST", "pools", "", 404, "no verb"},
	} {
		if code, text := ask(c.method, "/v1/proxy/"+c.path, c.body); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, code, text)
		}
	}
	if want := []string{"pause orders", "pause", "reload", "pause nosuch"}; !slices.Equal(o.told, want) || by != "db1" {
		t.Errorf("%q by %s", o.told, by)
	}
}
