package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Codes of errors.
const (
	CodeFailed     = "failed"
	CodeUsage      = "usage"
	CodeUnknown    = "unknown" // not answered in time
	CodeNotTrusted = "not_trusted"
	CodeNotFound   = "not_found"
	CodeBusy       = "busy"
)

// Error is an error as the API tells it. A Read may return one,
// wrapped or not; any other error counts as CodeFailed.
type Error struct {
	Message string `json:"error"`
	Hint    string `json:"hint"` // what to type next; may be empty
	Code    string `json:"code"`
}

func (e *Error) Error() string { return e.Message }

func httpStatus(code string) int {
	switch code {
	case CodeUsage:
		return http.StatusBadRequest
	case CodeNotTrusted:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeBusy:
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
	}
	return &out
}

func writeError(w http.ResponseWriter, err error) {
	e := asError(err)
	writeJSON(w, httpStatus(e.Code), e)
}

func (a *API) read(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	read, ok := a.o.Reads[name]
	if !ok {
		writeError(w, notFound(name, a.o.Reads))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	v, err := read(ctx, r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// readTimeout bounds a Read.
const readTimeout = 10 * time.Minute

// refuse answers whoever wants to change something.
func refuse(w http.ResponseWriter, _ *http.Request) {
	writeError(w, &Error{Message: "this port answers questions only", Code: CodeNotTrusted,
		Hint: "use the manada command on a host of the herd"})
}

func notFound[T any](name string, have map[string]T) *Error {
	e := &Error{Message: fmt.Sprintf("there is no /v1/%s here", name), Code: CodeNotFound}
	if len(have) > 0 {
		e.Hint = "there is: " + strings.Join(slices.Sorted(maps.Keys(have)), ", ")
	}
	return e
}
