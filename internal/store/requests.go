package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// keptRequests is how many finished requests stay: they travel in every
// Snapshot.
const keptRequests = 20

// CreateRequest implements Store.
func (h *herd) CreateRequest(ctx context.Context, r Request) error {
	if err := checkID(r.ID); err != nil {
		return fmt.Errorf("create request: %w", err)
	}
	r.At = r.At.UTC()
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("create request %s: %w", r.ID, err)
	}
	snap, err := h.Read(ctx)
	if err != nil {
		return fmt.Errorf("create request %s: %w", r.ID, err)
	}
	then := []op{put(h.key("request", r.ID), value)}
	for _, id := range staleRequests(snap.Requests) {
		if id != r.ID {
			then = append(then, del(h.key("request", id)))
		}
	}
	res, err := h.kv.do(ctx, txn{name: "request", cmps: []compare{absent(h.key("request", r.ID))}, then: then})
	return outcome(err, res.ok, ErrExists, "create request "+r.ID)
}

// staleRequests are the finished ones that make room for a new one.
func staleRequests(rs []Request) []string {
	var done []string
	for _, r := range rs { // oldest first
		if r.Result != nil {
			done = append(done, r.ID)
		}
	}
	return done[:max(0, len(done)-keptRequests)]
}

// FinishRequest implements Store.
func (h *herd) FinishRequest(ctx context.Context, id string, result Result) error {
	result.At = result.At.UTC()
	return h.changeRequest(ctx, "finish request "+id, id, func(r *Request) error {
		r.Result = &result
		return nil
	})
}

// MarkRequest implements Store.
func (h *herd) MarkRequest(ctx context.Context, id, option string) error {
	return h.changeRequest(ctx, "mark request "+id, id, func(r *Request) error {
		if r.Options[option] == "true" {
			return fmt.Errorf("it is marked %s already: %w", option, ErrConflict)
		}
		if r.Options == nil {
			r.Options = map[string]string{}
		}
		r.Options[option] = "true"
		return nil
	})
}

// changeRequest changes one that has no result, unless somebody else does
// meanwhile: it is there all the time, before and after.
func (h *herd) changeRequest(ctx context.Context, what, id string, change func(*Request) error) error {
	key := h.key("request", id)
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{get(key)}})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	p, ok := res.one(0)
	if !ok {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	r, err := decode[Request](p)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if r.Result != nil {
		return fmt.Errorf("%s: it has a result already: %w", what, ErrConflict)
	}
	if err := change(r); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	res, err = h.kv.do(ctx, txn{name: "request", cmps: []compare{revIs(key, p.rev)}, then: []op{put(key, value)}})
	return outcome(err, res.ok, ErrConflict, what)
}

// DeleteRequest implements Store.
func (h *herd) DeleteRequest(ctx context.Context, id string) error {
	_, err := h.kv.do(ctx, txn{name: "request", then: []op{del(h.key("request", id))}})
	return outcome(err, true, nil, "delete request "+id)
}

// SetPause implements Store.
func (h *herd) SetPause(ctx context.Context, p *Pause) error {
	o := del(h.key("pause"))
	if p != nil {
		c := *p
		c.At = c.At.UTC()
		value, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("pause: %w", err)
		}
		o = put(h.key("pause"), value)
	}
	_, err := h.kv.do(ctx, txn{name: "pause", then: []op{o}})
	return outcome(err, true, nil, "set the pause")
}

// outcome puts the result of a conditional write into words.
func outcome(err error, ok bool, otherwise error, what string) error {
	if err == nil && !ok {
		err = otherwise
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// checkID keeps an identifier from reaching other keys.
func checkID(id string) error {
	if id == "" || len(id) > 100 || strings.ContainsFunc(id, func(r rune) bool {
		return !slices.Contains([]rune("-_.:@"), r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return fmt.Errorf("identifier %q: want 1 to 100 of A-Z, a-z, 0-9 and -_.:@: %w", id, ErrInvalid)
	}
	return nil
}
