package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"manada/internal/cluster"
)

// Registry implements Store.
func (h *herd) Registry(ctx context.Context) (cluster.Registry, error) {
	r, _, err := h.readRegistry(ctx)
	if err != nil {
		return r, fmt.Errorf("read the list of certificates: %w", err)
	}
	return r, nil
}

func (h *herd) readRegistry(ctx context.Context) (r cluster.Registry, rev int64, err error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{get(h.key("registry"))}})
	if err != nil {
		return r, 0, err
	}
	p, ok := res.one(0)
	if !ok {
		return r, 0, nil
	}
	list, err := decode[cluster.Registry](p)
	if err != nil {
		return r, 0, err
	}
	return *list, p.rev, nil
}

// UpdateRegistry implements Store.
func (h *herd) UpdateRegistry(ctx context.Context, change func(*cluster.Registry) error) (cluster.Registry, error) {
	return h.changeRegistry(ctx, "change the list of certificates", nil, change)
}

// changeRegistry writes what change makes of the list, together with these
// further operations, beginning again when somebody else wrote meanwhile.
func (h *herd) changeRegistry(ctx context.Context, what string, also []op, change func(*cluster.Registry) error) (cluster.Registry, error) {
	key := h.key("registry")
	for {
		r, rev, err := h.readRegistry(ctx)
		if err != nil {
			return r, fmt.Errorf("%s: %w", what, err)
		}
		if err := change(&r); err != nil {
			return r, err
		}
		r.Schema, r.Rev = 1, r.Rev+1
		value, err := json.Marshal(r)
		if err != nil {
			return r, fmt.Errorf("%s: %w", what, err)
		}
		then := append([]op{put(key, value)}, also...)
		res, err := h.kv.do(ctx, txn{name: "registry", cmps: []compare{revIs(key, rev)}, then: then})
		if err != nil || res.ok {
			return r, outcome(err, true, nil, what)
		}
		if ctx.Err() != nil { // every round has one winner, so this ends
			return r, fmt.Errorf("%s: %w: %w", what, ctx.Err(), ErrConflict)
		}
	}
}

// RemoveNode implements Store.
func (h *herd) RemoveNode(ctx context.Context, name string) error {
	what := "remove node " + name
	if err := cluster.CheckNodeName(name); err != nil {
		return fmt.Errorf("%s: %w: %w", what, err, ErrInvalid)
	}
	at, err := json.Marshal(time.Now().UTC())
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	_, err = h.changeRegistry(ctx, what, []op{del(h.key("node", name)), put(h.key("removed", name), at)}, func(r *cluster.Registry) error {
		if r.Rev == 0 {
			r.Open = true // a herd whose hosts have not registered yet
			return nil
		}
		r.Remove(name)
		return nil
	})
	return err
}
