package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// PutNode implements Store.
func (h *herd) PutNode(ctx context.Context, n Node) error {
	if err := cluster.CheckNodeName(n.Name); err != nil {
		return fmt.Errorf("register node: %w: %w", err, ErrInvalid)
	}
	n.Joined = n.Joined.UTC()
	value, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("register node %s: %w", n.Name, err)
	}
	res, err := h.kv.do(ctx, txn{
		name: "node", cmps: []compare{absent(h.key("removed", n.Name))}, then: []op{put(h.key("node", n.Name), value)},
	})
	return outcome(err, res.ok, ErrRemoved, "register node "+n.Name)
}

// Nodes implements Store.
func (h *herd) Nodes(ctx context.Context) ([]Node, error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{list(h.key("node", ""))}})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return decodeAll[Node](res.gets[0])
}

// RemovedNodes implements Store.
func (h *herd) RemovedNodes(ctx context.Context) ([]string, error) {
	prefix := h.key("removed", "")
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{list(prefix)}})
	if err != nil {
		return nil, fmt.Errorf("list removed nodes: %w", err)
	}
	var names []string
	for _, p := range res.gets[0] {
		names = append(names, strings.TrimPrefix(p.key, prefix))
	}
	return names, nil
}

// ReadmitNode implements Store.
func (h *herd) ReadmitNode(ctx context.Context, name string) error {
	_, err := h.kv.do(ctx, txn{name: "node", then: []op{del(h.key("removed", name))}})
	return outcome(err, true, nil, "readmit node "+name)
}

// Config implements Store.
func (h *herd) Config(ctx context.Context) (json.RawMessage, int64, error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{get(h.key("config"))}})
	if err != nil {
		return nil, 0, fmt.Errorf("read the configuration: %w", err)
	}
	p, _ := res.one(0)
	return p.value, p.rev, nil
}

// PutConfig implements Store.
func (h *herd) PutConfig(ctx context.Context, rev int64, cfg json.RawMessage) (int64, error) {
	if !json.Valid(cfg) {
		return 0, fmt.Errorf("write the configuration: not JSON: %w", ErrInvalid)
	}
	key := h.key("config")
	res, err := h.kv.do(ctx, txn{name: "config", cmps: []compare{revIs(key, rev)}, then: []op{put(key, cfg)}})
	if err := outcome(err, res.ok, ErrConflict, "write the configuration"); err != nil {
		return 0, err
	}
	return res.rev, nil
}

// Secret implements Store.
func (h *herd) Secret(ctx context.Context) ([]byte, error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{get(h.key("secret"))}})
	p, ok := res.one(0)
	if err := outcome(err, ok, ErrNotFound, "read the herd's secret"); err != nil {
		return nil, err
	}
	return p.value, nil
}

// CreateSecret implements Store.
func (h *herd) CreateSecret(ctx context.Context, secret []byte) error {
	key := h.key("secret")
	res, err := h.kv.do(ctx, txn{name: "secret", cmps: []compare{absent(key)}, then: []op{put(key, secret)}})
	return outcome(err, res.ok, ErrExists, "store the herd's secret")
}

// UpdateSecret implements Store.
func (h *herd) UpdateSecret(ctx context.Context, change func([]byte) ([]byte, error)) error {
	const what = "change the herd's secret"
	key := h.key("secret")
	for {
		res, err := h.kv.do(ctx, txn{name: "read", then: []op{get(key)}})
		p, ok := res.one(0)
		if err := outcome(err, ok, ErrNotFound, what); err != nil {
			return err
		}
		value, err := change(p.value)
		if err != nil {
			return err
		}
		res, err = h.kv.do(ctx, txn{name: "secret", cmps: []compare{revIs(key, p.rev)}, then: []op{put(key, value)}})
		if err != nil || res.ok {
			return outcome(err, true, nil, what)
		}
		if ctx.Err() != nil { // every round has one winner, so this ends
			return fmt.Errorf("%s: %w: %w", what, ctx.Err(), ErrConflict)
		}
	}
}
