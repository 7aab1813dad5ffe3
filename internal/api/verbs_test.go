package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestVerbsWantTrust: over plain HTTP, over TLS without a verified client
// certificate and on a read-only listener nothing changes.
func TestVerbsWantTrust(t *testing.T) {
	for _, c := range []struct {
		name  string
		trust Trust
		tls   *tls.ConnectionState
		want  int
	}{
		{"plain on loopback", ReadOnly, nil, 403},
		{"certificate on a read-only listener", ReadOnly, verified(), 403},
		{"plain where certificates are wanted", MutualTLS, nil, 403},
		{"tls without a certificate", MutualTLS, &tls.ConnectionState{}, 403},
		{"tls with one that was not verified", MutualTLS, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}, 403},
		{"verified", MutualTLS, verified(), 200},
		{"socket", Local, nil, 200},
	} {
		called := 0
		h := New(Options{Verbs: map[string]Verb{"pause": func(context.Context, json.RawMessage) (any, error) { called++; return nil, nil }}}).Handler(c.trust)
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/pause", strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		r.TLS = c.tls
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want || (called == 1) != (c.want == 200) {
			t.Errorf("%s: %d, called %d times", c.name, w.Code, called)
		}
	}
	// Who is not trusted does not learn which verbs there are.
	h := New(Options{}).Handler(ReadOnly)
	if w := do(t, h, "POST", "/v1/nonsense", "{}"); w.Code != 403 {
		t.Errorf("unknown verb, untrusted: %d", w.Code)
	}
}

func verified() *tls.ConnectionState {
	cert := &x509.Certificate{}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
}

func TestVerbErrors(t *testing.T) {
	type req struct {
		To string `json:"to"`
	}
	verb := func(_ context.Context, body json.RawMessage) (any, error) {
		q, err := Decode[req](body)
		if err != nil {
			return nil, fmt.Errorf("switchover: %w", err)
		}
		switch q.To {
		case "lost":
			return nil, fmt.Errorf("switchover: %w", &Error{Message: "slave lacks 3 commits", Hint: "wait", Code: CodeRefused})
		case "late":
			return nil, fmt.Errorf("switchover: %w", context.DeadlineExceeded)
		case "bad":
			return nil, errors.New("disk on fire")
		}
		return map[string]string{"primary": q.To}, nil
	}
	h := New(Options{Verbs: map[string]Verb{"switchover": verb}}).Handler(Local)
	for _, c := range []struct {
		body string
		http int
		code string
		text string
		exit int
	}{
		{`{"to":"slave"}`, 200, "", `{"primary":"slave"}`, 0},
		{``, 200, "", `{"primary":""}`, 0},
		{`{"too":"slave"}`, 400, CodeUsage, "too", 2},
		{`{"to":"slave"} {}`, 400, CodeUsage, "not JSON", 2},
		{`{"to":`, 400, CodeUsage, "not JSON", 2},
		{`{"to":"lost"}`, 409, CodeRefused, "switchover: slave lacks 3 commits", 5},
		{`{"to":"late"}`, 504, CodeUnknown, "deadline", 6},
		{`{"to":"bad"}`, 500, CodeFailed, "disk on fire", 1},
		{`"` + strings.Repeat("x", maxBody) + `"`, 400, CodeUsage, "too large", 2},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/switchover", strings.NewReader(c.body))
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.http || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%.40s: %d %s", c.body, w.Code, w.Body)
		}
		if c.code == "" {
			continue
		}
		var keys map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &keys); err != nil {
			t.Fatal(err)
		}
		if _, ok := keys["hint"]; !ok || keys["code"] != c.code || keys["error"] == "" || ExitCode(keys["code"]) != c.exit {
			t.Errorf("%.40s: %v", c.body, keys)
		}
	}
	// A form of another site can send text/plain without asking.
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/switchover", strings.NewReader(`{"to":"slave"}`))
	r.Header.Set("Content-Type", "text/plain")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 400 {
		t.Errorf("text/plain: %d", w.Code)
	}
	if w := do(t, h, "POST", "/v1/nonsense", "{}"); w.Code != 404 || !strings.Contains(w.Body.String(), "switchover") {
		t.Errorf("unknown verb: %d %s", w.Code, w.Body)
	}
}
