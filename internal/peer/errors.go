package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Error is a refusal as it travels: {"error", "hint", "code"}.
type Error struct {
	Status  int    `json:"-"`     // of HTTP
	Message string `json:"error"` // what and why
	Hint    string `json:"hint,omitempty"`
	Code    string `json:"code,omitempty"` // for programs: "not_primary"
}

// Error is the message, with the hint in parentheses behind it.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// Codes that this package uses itself.
const (
	CodeForbidden   = "forbidden"
	CodeBadRequest  = "bad_request"
	CodeNotFound    = "not_found"
	CodeBadMethod   = "bad_method"
	CodeNoHost      = "no_certificate"
	CodeInternal    = "internal"
	CodeUnavailable = "unavailable"
	CodeUnknown     = "outcome_unknown" // it may have been done, or may still be
)

// Refuse makes an Error.
func Refuse(status int, code, hint, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Hint: hint, Message: fmt.Sprintf(format, args...)}
}

// WriteError answers a request with an error: an *Error as it is, anything else
// as status 500.
func WriteError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Status: http.StatusInternalServerError, Message: err.Error(), Code: CodeInternal}
	}
	status := e.Status
	if status < 400 {
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, e)
}

// WriteJSON answers a request with a value.
func WriteJSON(w http.ResponseWriter, v any) { writeJSON(w, http.StatusOK, v) }

// ReadJSON reads the body of a request; an empty body leaves v as it is. The
// error is one that WriteError answers with status 400.
func ReadJSON(r *http.Request, v any) error {
	err := json.NewDecoder(r.Body).Decode(v)
	if err != nil && !errors.Is(err, io.EOF) {
		return Refuse(http.StatusBadRequest, CodeBadRequest, "", "read request: %v", err)
	}
	return nil
}

// Take reads the body of a request as ReadJSON does; false: it cannot be read, and
// that was answered.
func Take(w http.ResponseWriter, r *http.Request, v any) bool {
	err := ReadJSON(r, v)
	if err != nil {
		WriteError(w, err)
	}
	return err == nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"encode answer","code":"internal"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// readError turns a refused answer into an *Error.
func readError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	e := &Error{}
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		e.Message = "the host answered " + resp.Status
	}
	e.Status = resp.StatusCode
	return e
}
