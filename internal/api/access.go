package api

import (
	"net/http"
	"strings"
)

// Access says who may read what a process serves beside its health endpoints,
// which are for load balancers and stay open to all.
type Access string

// From the most to the least.
const (
	Open    Access = "open"
	Members Access = "members" // who shows a registered certificate of the herd
	Off     Access = "off"
)

// Restrict puts the access in front of a handler. caller says why a request does
// not come from a host of the herd; it is not asked when that does not matter.
func Restrict(a Access, caller func(r *http.Request) error, next http.Handler) http.Handler {
	if a == Open || a == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch {
		case isHealth(r.URL.Path):
			next.ServeHTTP(codeOnly{w}, r)
			return
		case a == Members:
			if err = caller(r); err == nil {
				next.ServeHTTP(w, r)
				return
			}
			err = &Error{Message: "only hosts of the herd may ask for this: " + err.Error(), Code: CodeNotTrusted,
				Hint: "show the certificate of a host, or change http.access"}
		default:
			err = &Error{Message: "this host answers nothing but health checks (http.access: off)", Code: CodeNotTrusted, Hint: "manada status"}
		}
		writeError(w, err)
	})
}

// isHealth says whether a path answers by its code alone.
func isHealth(path string) bool {
	name := strings.TrimPrefix(path, "/")
	_, ok := checks[name]
	return ok || name == "" || name == "liveness" || name == "readiness"
}

// codeOnly leaves the body of an answer out.
type codeOnly struct{ http.ResponseWriter }

func (c codeOnly) Write(b []byte) (int, error) { return len(b), nil }
