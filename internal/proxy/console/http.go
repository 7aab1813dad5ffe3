package console

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"manada/internal/verb"
)

// The same tables and verbs for programs, by HTTP:
//
//	GET  /v1/proxy         what there is: tables, verbs
//	GET  /v1/proxy/{name}  a table, by the name that SHOW knows, as Table
//	POST /v1/proxy/{name}  a verb, with a Request; answers a Done
//
// Errors are {"error", "hint", "code"} with PostgreSQL's code.

// Index is what there is.
type Index struct {
	Tables []string    `json:"tables"`
	Verbs  []VerbEntry `json:"verbs"`
}

// VerbEntry is a verb for programs.
type VerbEntry struct {
	Name     string      `json:"name"`
	Argument string      `json:"argument"` // "", "[database]", "database", "client id"
	Danger   verb.Danger `json:"danger"`
	Who      string      `json:"who"`
	Sentence string      `json:"sentence"`
}

// Table is what SHOW shows. Values are texts, whole numbers and null.
type Table struct {
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`
}

// Request is the body of an order.
type Request struct {
	Argument string `json:"argument,omitempty"` // a database, or a client's id
}

// Done says that an order was carried out.
type Done struct {
	Verb string `json:"verb"`
	Note string `json:"note,omitempty"`
}

// Handler serves those who may give every order: whoever lets somebody reach it has
// made sure of that. source gives what there is for whom it names.
func Handler(source func(by string) *Source) http.Handler {
	mux := http.NewServeMux()
	of := func(r *http.Request) *Source { return source(r.Header.Get(verb.ByHeader)) }
	mux.HandleFunc("GET /v1/proxy", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, index(of(r))) })
	mux.HandleFunc("GET /v1/proxy/{name}", func(w http.ResponseWriter, r *http.Request) {
		t := find(of(r), r.PathValue("name"))
		if t == nil {
			refuse(w, http.StatusNotFound, "42601", "there is no table "+r.PathValue("name"), "GET /v1/proxy lists them")
			return
		}
		answer(w, http.StatusOK, t.table(of(r)))
	})
	mux.HandleFunc("POST /v1/proxy/{name}", func(w http.ResponseWriter, r *http.Request) { carryOut(w, r, of(r)) })
	return mux
}

func index(s *Source) (out Index) {
	for _, t := range shows {
		if t.wired(s) && !t.hidden {
			out.Tables = append(out.Tables, strings.ToLower(t.name))
		}
	}
	for _, v := range verb.Orders {
		if s.Orders[v.Word()] != nil {
			argument := strings.TrimSpace(takes(v, map[string]string{"DATABASE": "database", "ID": "client id"}, "", ""))
			out.Verbs = append(out.Verbs, VerbEntry{v.Word(), argument, v.Danger, Admin.String(), v.Sentence})
		}
	}
	return out
}

func (t *show) table(s *Source) Table {
	out := Table{Columns: make([]string, len(t.cols)), Rows: [][]any{}}
	for i, c := range t.cols {
		out.Columns[i] = c.name
	}
	for _, r := range t.rows(s) {
		for i := range r {
			if b, ok := r[i].(bool); ok {
				r[i] = 0
				if b {
					r[i] = 1
				}
			}
		}
		out.Rows = append(out.Rows, r)
	}
	return out
}

// carryOut gives an order, which ends when whoever gave it leaves.
func carryOut(w http.ResponseWriter, r *http.Request, s *Source) {
	var q Request
	if err := json.NewDecoder(io.LimitReader(r.Body, maxMessage)).Decode(&q); err != nil && !errors.Is(err, io.EOF) {
		refuse(w, http.StatusBadRequest, "22023", "read request: "+err.Error(), "")
		return
	}
	http.NewResponseController(w).SetReadDeadline(time.Time{}) // an order may wait for long
	v, ok := verb.Order(r.PathValue("name"))
	if !ok || s.Orders[v.Word()] == nil {
		refuse(w, http.StatusNotFound, "42601", "there is no verb "+r.PathValue("name"), "GET /v1/proxy lists them")
		return
	}
	var args []string
	if q.Argument != "" {
		args = []string{q.Argument}
	}
	if e := check(v, Admin, args); e != nil {
		refuse(w, http.StatusBadRequest, e.Code, e.Message, e.Hint)
		return
	}
	note, e := s.Orders[v.Word()](r.Context(), q.Argument)
	if e != nil {
		refuse(w, http.StatusConflict, e.Code, e.Message, e.Hint)
		return
	}
	answer(w, http.StatusOK, Done{v.Word(), note})
}

func refuse(w http.ResponseWriter, status int, code, text, hint string) {
	answer(w, status, struct {
		Error string `json:"error"`
		Hint  string `json:"hint,omitempty"`
		Code  string `json:"code"`
	}{text, hint, code})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // an error means that the asker is gone
}
