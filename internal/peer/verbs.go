package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"manada/internal/pki"
	"manada/internal/verb"
)

// verbs are those of the registry that a host answers, on whichever port.
type verbs struct {
	node    string // this host
	mux     *http.ServeMux
	mounted map[string]verb.Verb // by pattern
}

func newVerbs(node string) *verbs {
	v := &verbs{node: node, mux: http.NewServeMux(), mounted: map[string]verb.Verb{}}
	v.handle(verb.Verbs, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, v.entries()) }))
	return v
}

func (s *verbs) handle(v verb.Verb, h http.Handler) {
	if !slices.ContainsFunc(verb.All, func(o verb.Verb) bool { return o.Pattern() == v.Pattern() }) {
		panic(v.Pattern() + " is no verb of the registry")
	}
	s.mux.Handle(v.Pattern(), h)
	s.mounted[v.Pattern()] = v
}

// Entry is a verb as GET /v1/verbs tells it.
type Entry struct {
	Name      string   `json:"name"`
	Method    string   `json:"method"`
	Path      string   `json:"path"`
	Who       string   `json:"who"`
	Danger    string   `json:"danger"`
	Again     bool     `json:"again"` // asking twice does what asking once does
	Arguments []string `json:"arguments,omitempty"`
	Sentence  string   `json:"sentence"`
}

// Entries are the verbs that were mounted.
func (s *Server) Entries() []Entry { return s.verbs.entries() }

func (s *verbs) entries() (out []Entry) {
	for _, v := range verb.All {
		if _, there := s.mounted[v.Pattern()]; !there {
			continue
		}
		e := Entry{Name: v.Name, Method: v.Method, Path: v.Path, Who: v.Who.String(), Danger: string(v.Danger), Again: v.Again, Sentence: v.Sentence}
		for _, a := range v.Arguments {
			e.Arguments = append(e.Arguments, a.Name)
		}
		out = append(out, e)
	}
	return out
}

// who asks: a host, of which nothing is known without a certificate, or a program of
// this host.
type who struct {
	pki.Name
	local bool
	err   error // why it is nobody
}

// serve finds the verb, says whether it may be asked so by whom, and passes it on.
func (s *verbs) serve(w http.ResponseWriter, r *http.Request, by who) {
	_, pattern := s.mux.Handler(r)
	v, found := s.mounted[pattern]
	if err := s.refuses(v, found, r, by); err != nil {
		WriteError(w, err)
		return
	}
	ctx, cancel := bounded(r.Context(), v)
	defer cancel()
	r = r.WithContext(context.WithValue(ctx, callerKey{}, by.Name))
	if !v.Raw {
		if err := takeBody(w, r, v); err != nil {
			WriteError(w, err)
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

func bounded(ctx context.Context, v verb.Verb) (context.Context, context.CancelFunc) {
	switch {
	case v.Within < 0:
		return context.WithCancel(ctx)
	case v.Within == 0:
		return context.WithTimeout(ctx, verb.Usual)
	}
	return context.WithTimeout(ctx, v.Within)
}

// refuses says why a request gets nowhere; nil: it does.
func (s *verbs) refuses(v verb.Verb, found bool, r *http.Request, by who) error {
	switch {
	case found && v.Who == verb.Anyone:
		return nil
	case by.err != nil:
		return by.err
	case !found:
		return s.notThere(r)
	case v.Who == verb.Members && !by.Member() && !by.local:
		return Refuse(http.StatusForbidden, CodeForbidden, "type the command on a data or witness host",
			"%s is a %s and may not change the herd: %s is for %s", by.Node, by.Kind, v.Name, v.Who)
	case v.Who == verb.Local && !by.local:
		return Refuse(http.StatusForbidden, CodeForbidden, "", "%s is for %s", v.Name, v.Who)
	}
	return nil
}

// notThere says whether the verb is unknown or only asked in a wrong way.
func (s *verbs) notThere(r *http.Request) error {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := s.mux.Handler(other); method != r.Method && pattern != "" && !strings.Contains(pattern, "{") {
			return Refuse(http.StatusMethodNotAllowed, CodeBadMethod, "GET /v1/verbs  lists the verbs", "%s is asked with %s, not with %s", r.URL.Path, method, r.Method)
		}
	}
	return Refuse(http.StatusNotFound, CodeNotFound, "GET /v1/verbs  lists the verbs; another release may know others", "%s answers no %s %s", s.node, r.Method, r.URL.Path)
}

// takeBody reads what was sent along and compares it with what the verb takes.
func takeBody(w http.ResponseWriter, r *http.Request, v verb.Verb) error {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(verb.Usual)) // not every writer has deadlines
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, verb.MaxBody))
	if v.Within < 0 {
		_ = rc.SetReadDeadline(time.Time{})
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return Refuse(http.StatusRequestEntityTooLarge, CodeBadRequest, "", "%s takes at most %d bytes", v.Name, verb.MaxBody)
	}
	if err != nil {
		return Refuse(http.StatusBadRequest, CodeBadRequest, "", "%s: read request: %v", v.Name, err)
	}
	if !v.Asks() {
		if err := v.Check(b); err != nil {
			return Refuse(http.StatusBadRequest, CodeBadRequest, "GET /v1/verbs  says what it takes", "%v", err)
		}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	return nil
}
