package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// forgetTokens is how long an expired token stays, so that who comes late with
// it is told that it expired, not that it never was.
const forgetTokens = 24 * time.Hour

// CreateToken implements Store.
func (h *herd) CreateToken(ctx context.Context, t Token) error {
	if err := checkID(t.ID); err != nil {
		return fmt.Errorf("create token: %w", err)
	}
	t.Expires = t.Expires.UTC()
	value, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("create token: %w", err)
	}
	key := h.key("token", t.ID)
	old, err := h.oldTokens(ctx)
	if err != nil {
		return fmt.Errorf("create token: %w", err)
	}
	then := []op{put(key, value)}
	for _, k := range old {
		if k != key {
			then = append(then, del(k))
		}
	}
	res, err := h.kv.do(ctx, txn{name: "token", cmps: []compare{absent(key)}, then: then})
	return outcome(err, res.ok, ErrExists, "create token "+t.ID)
}

// oldTokens are the keys of tokens to be forgotten, no more than fit into one
// transaction.
func (h *herd) oldTokens(ctx context.Context) ([]string, error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{list(h.key("token", ""))}})
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, p := range res.gets[0] {
		t, err := decode[Token](p)
		if err == nil && time.Since(t.Expires) > forgetTokens && len(keys) < 50 {
			keys = append(keys, p.key)
		}
	}
	return keys, nil
}

// UpdateToken implements Store.
func (h *herd) UpdateToken(ctx context.Context, id string, change func([]byte) ([]byte, error)) error {
	what := "update token " + id
	if err := checkID(id); err != nil {
		return fmt.Errorf("update token: %w", err)
	}
	key := h.key("token", id)
	for {
		res, err := h.kv.do(ctx, txn{name: "read", then: []op{get(key)}})
		p, ok := res.one(0)
		if err := outcome(err, ok, ErrNotFound, what); err != nil {
			return err
		}
		t, err := decode[Token](p)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if t.Data, err = change(t.Data); err != nil {
			return err
		}
		value, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		res, err = h.kv.do(ctx, txn{name: "token", cmps: []compare{revIs(key, p.rev)}, then: []op{put(key, value)}})
		if err != nil || res.ok {
			return outcome(err, true, nil, what)
		}
		if ctx.Err() != nil { // somebody else wrote; every round has one winner, so this ends
			return fmt.Errorf("%s: %w: %w", what, ctx.Err(), ErrConflict)
		}
	}
}

// DropTokens implements Store.
func (h *herd) DropTokens(ctx context.Context) error {
	const what = "drop join tokens"
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{list(h.key("token", ""))}})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var then []op
	for _, p := range res.gets[0] {
		then = append(then, del(p.key))
	}
	for len(then) > 0 {
		n := min(len(then), 50) // as many as fit into one transaction
		if _, err := h.kv.do(ctx, txn{name: "token", then: then[:n]}); err != nil {
			return outcome(err, true, nil, what)
		}
		then = then[n:]
	}
	return nil
}
