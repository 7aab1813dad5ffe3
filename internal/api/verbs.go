package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// Codes of errors, each with the exit code that a command line gives for it.
const (
	CodeFailed     = "failed"      // 1
	CodeUsage      = "usage"       // 2
	CodeDegraded   = "degraded"    // 3
	CodeNoPrimary  = "no_primary"  // 4
	CodeRefused    = "refused"     // 5: data would be lost
	CodeUnknown    = "unknown"     // 6: the outcome is not known
	CodeNotTrusted = "not_trusted" // 1
	CodeNotFound   = "not_found"   // 2
	CodeBusy       = "busy"        // 1
)

// Error is an error as the API tells it. A Verb or Read may return one,
// wrapped or not; any other error counts as CodeFailed.
type Error struct {
	Message string `json:"error"`
	Hint    string `json:"hint"` // what to type next; may be empty
	Code    string `json:"code"`
}

func (e *Error) Error() string { return e.Message }

// ExitCode is the exit code of native commands for an error's code.
func ExitCode(code string) int {
	switch code {
	case CodeUsage, CodeNotFound:
		return 2
	case CodeDegraded:
		return 3
	case CodeNoPrimary:
		return 4
	case CodeRefused:
		return 5
	case CodeUnknown:
		return 6
	}
	return 1
}

func httpStatus(code string) int {
	switch code {
	case CodeUsage:
		return http.StatusBadRequest
	case CodeNotTrusted:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeRefused:
		return http.StatusConflict
	case CodeNoPrimary, CodeDegraded, CodeBusy:
		return http.StatusServiceUnavailable
	case CodeUnknown:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// asError finds the Error in a chain. Its message becomes that of the whole
// chain, so that no layer's word is lost.
func asError(err error) *Error {
	out := Error{Message: err.Error(), Code: CodeFailed}
	if e, ok := errors.AsType[*Error](err); ok {
		out.Hint = e.Hint
		if e.Code != "" {
			out.Code = e.Code
		}
	} else if errors.Is(err, context.DeadlineExceeded) {
		out.Code = CodeUnknown
		out.Hint = "it may still happen: look at  manada status"
	}
	return &out
}

func writeError(w http.ResponseWriter, err error) {
	e := asError(err)
	writeJSON(w, httpStatus(e.Code), e)
}

// maxBody is the largest body of a verb.
const maxBody = 1 << 20

// Decode reads a verb's body strictly: an unknown key is an error, no body is
// the zero value.
func Decode[T any](body json.RawMessage) (T, error) {
	var v T
	if len(bytes.TrimSpace(body)) == 0 {
		return v, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, &Error{Message: fmt.Sprintf("read request: %v", err), Code: CodeUsage}
	}
	if d.More() {
		return v, &Error{Message: "read request: more than one JSON value", Code: CodeUsage}
	}
	return v, nil
}

func (a *API) read(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	read, ok := a.o.Reads[name]
	if !ok {
		if _, isVerb := a.o.Verbs[name]; isVerb {
			w.Header().Set("Allow", "POST")
			writeJSON(w, http.StatusMethodNotAllowed, &Error{Message: name + " changes something and wants POST", Code: CodeUsage})
			return
		}
		writeError(w, notFound(name, a.o.Reads))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.o.VerbTimeout)
	defer cancel()
	v, err := read(ctx, r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// verb answers a POST. Who asks is checked first: an untrusted client does not
// learn which verbs there are.
func (a *API) verb(w http.ResponseWriter, r *http.Request, trust Trust) {
	if !trust.admits(r) {
		writeError(w, &Error{Message: "this port answers questions only", Code: CodeNotTrusted,
			Hint: "changes want a client certificate of the herd: use the manada command on a host of the herd"})
		return
	}
	name := r.PathValue("name")
	verb, ok := a.o.Verbs[name]
	if !ok {
		writeError(w, notFound(name, a.o.Verbs))
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.o.VerbTimeout)
	defer cancel()
	v, err := verb(ctx, body)
	if err != nil {
		a.o.Log.WarnContext(ctx, "request failed", "verb", name, "client", clientName(r), "error", err)
		writeError(w, err)
		return
	}
	a.o.Log.InfoContext(ctx, "request done", "verb", name, "client", clientName(r))
	if v == nil {
		v = struct{}{}
	}
	writeJSON(w, http.StatusOK, v)
}

// readBody wants JSON and says so: a browser cannot send that type across
// sites without asking first.
func readBody(w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, &Error{Message: "the body must be application/json", Code: CodeUsage}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, &Error{Message: fmt.Sprintf("read request: %v", err), Code: CodeUsage}
	}
	if len(bytes.TrimSpace(raw)) > 0 && !json.Valid(raw) {
		return nil, &Error{Message: "read request: the body is not JSON", Code: CodeUsage}
	}
	return raw, nil
}

// clientName is who asked, for the log.
func clientName(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return r.TLS.PeerCertificates[0].Subject.CommonName
	}
	return r.RemoteAddr
}

func notFound[T any](name string, have map[string]T) *Error {
	e := &Error{Message: fmt.Sprintf("there is no /v1/%s here", name), Code: CodeNotFound}
	if len(have) > 0 {
		e.Hint = "there is: " + strings.Join(slices.Sorted(maps.Keys(have)), ", ")
	}
	return e
}
