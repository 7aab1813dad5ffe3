package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"manada/internal/cluster"
)

// Source tells the state that most endpoints show. Its methods return at once
// from memory: load balancers ask several times a second.
type Source interface {
	Status() cluster.Status
	// Self is the newest beat of this very host's agent.
	Self() cluster.Beat
	// Unconfirmed says why this host is not to be taken for the primary at the
	// moment of the call; "" when it may be. At most one host of a herd says "".
	Unconfirmed() string
}

// Read answers a GET /v1/<name> with a value that becomes JSON.
type Read func(ctx context.Context, query url.Values) (any, error)

// Options say what a process serves. What is nil is not served.
type Options struct {
	Log    *slog.Logger
	Source Source // nil in processes without a view of the herd
	// Ready answers /health and /readiness where there is no Source: nil error
	// means ready.
	Ready func() error
	// LoopAge is the age of the last turn of the process's main loop, for
	// /liveness; nil: alive as long as it answers.
	LoopAge func() time.Duration
	// LastTakeover is how long the last takeover took that this node won; ok is
	// false when it won none since it started.
	LastTakeover func() (d time.Duration, ok bool)
	Events       EventSource
	Reads        map[string]Read
}

// API is what a process serves; Handler gives it to a listener.
type API struct {
	o       Options
	metrics http.Handler
}

// New prepares the endpoints.
func New(o Options) *API {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &API{o: o, metrics: metricsHandler(o)}
}

// Handler serves a listener. Whoever may reach it may ask; nobody changes anything.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	a.mountHealth(mux)
	mux.Handle("GET /metrics", a.metrics)
	if a.o.Source != nil {
		mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, a.o.Source.Status())
		})
	}
	if a.o.Events != nil {
		mux.HandleFunc("GET /v1/events", a.events)
	}
	mux.HandleFunc("GET /v1/{name}", a.read)
	mux.HandleFunc("POST /v1/{name}", refuse)
	return safeHeaders(mux)
}

// safeHeaders keeps browsers and caches from making more of an answer than it is.
func safeHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// writeJSON ends a response.
func writeJSON(w http.ResponseWriter, code int, v any) {
	raw := encode(v)
	if raw == nil {
		code, raw = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded","hint":"","code":"failed"}`)
	}
	writeRaw(w, code, raw)
}

// encode is a value as JSON; nil when it cannot be encoded.
func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return raw
}

// writeRaw ends a response with JSON. An error of writing means that the client left.
func writeRaw(w http.ResponseWriter, code int, raw []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(raw, '\n'))
}
