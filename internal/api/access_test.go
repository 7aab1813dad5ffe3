package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRestrict(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		w.Write([]byte("secrets"))
	})
	for _, c := range []struct {
		access Access
		member bool
		path   string
		code   int
		body   string
	}{
		{Open, false, "/v1/status", 418, "secrets"}, {"", false, "/metrics", 418, "secrets"},
		{Members, false, "/v1/status", 403, "only hosts of the herd"}, {Members, false, "/v1/events", 403, "only hosts"},
		{Members, false, "/patroni", 403, "only hosts"}, {Members, true, "/metrics", 418, "secrets"},
		{Members, false, "/primary", 418, ""}, {Members, true, "/primary", 418, ""}, {Off, false, "/liveness", 418, ""}, {Off, false, "/", 418, ""},
		{Off, true, "/v1/status", 403, "http.access: off"}, {Off, true, "/metrics", 403, "http.access"}, {Off, true, "/replica/x", 403, "http.access"},
	} {
		caller := func(*http.Request) error {
			if c.member {
				return nil
			}
			return errors.New("a certificate is needed")
		}
		w := httptest.NewRecorder()
		Restrict(c.access, caller, h).ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.body) || c.body == "" && w.Body.Len() > 0 {
			t.Errorf("%s, member %v, %s: %d %q", c.access, c.member, c.path, w.Code, w.Body)
		}
	}
}
