package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Event is something that happened, noun_verb in the past tense.
type Event struct {
	ID   uint64 // grows by time; a client that comes back names the last it saw
	Kind string // "takeover_started"
	Data any    // becomes JSON
}

// EventSource delivers events with an ID greater than after, old ones first,
// until the context ends; then it closes the channel. It may close it earlier
// on a reader that is too slow: the client comes back with the last ID it saw.
type EventSource interface {
	Subscribe(ctx context.Context, after uint64) (<-chan Event, error)
}

// keepalive is how often an idle stream says that it lives, so that proxies
// and dead clients are noticed.
var keepalive = 15 * time.Second

// eventWrite bounds how long a client may take to accept one event.
const eventWrite = 10 * time.Second

// events is a stream of server-sent events. ?after=N or the header
// Last-Event-ID (which browsers send by themselves) names the last one seen.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	after, err := lastSeen(r)
	if err != nil {
		writeError(w, err)
		return
	}
	ch, err := a.o.Events.Subscribe(r.Context(), after)
	if err != nil {
		writeError(w, fmt.Errorf("subscribe to events: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	s := stream{w: w, rc: http.NewResponseController(w)}
	if !s.send(": manada\n\n") {
		return
	}
	tick := time.NewTicker(keepalive)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, open := <-ch:
			if !open || !s.event(e) {
				return
			}
		case <-tick.C:
			if !s.send(": alive\n\n") {
				return
			}
		}
	}
}

func lastSeen(r *http.Request) (uint64, error) {
	s := r.URL.Query().Get("after")
	if s == "" {
		s = r.Header.Get("Last-Event-ID")
	}
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, &Error{Message: fmt.Sprintf("event id %q is not a number", s), Code: CodeUsage}
	}
	return n, nil
}

// stream writes and flushes, with a deadline on each.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (s stream) event(e Event) bool {
	raw, err := json.Marshal(e.Data)
	if err != nil {
		return true // one event that cannot be told must not end the stream
	}
	kind := strings.NewReplacer("\n", " ", "\r", " ").Replace(e.Kind)
	return s.send(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.ID, kind, raw))
}

func (s stream) send(text string) bool {
	// Not every writer has deadlines (httptest's recorder has none); then the
	// context is what ends the stream.
	_ = s.rc.SetWriteDeadline(time.Now().Add(eventWrite))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return false
	}
	return s.rc.Flush() == nil
}
