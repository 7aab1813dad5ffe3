package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const keptEvents = 1000

// eventKey pads the number so that the keys' order is the events'.
func (h *herd) eventKey(n int64) string { return h.key("event", fmt.Sprintf("%016d", n)) }

func (h *herd) eventNumber(p pair) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(p.key, h.key("event", "")), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("event key %s: %w", p.key, err)
	}
	return n, nil
}

// AppendEvent implements Store. Several writers race for the next number; the
// loser of a comparison tries the next one until its deadline.
func (h *herd) AppendEvent(ctx context.Context, e Event) (int64, error) {
	e.At = e.At.UTC()
	for {
		n, err := h.nextEvent(ctx)
		if err != nil {
			return 0, fmt.Errorf("append event %s: %w", e.Kind, err)
		}
		ok, err := h.putEvent(ctx, n, e)
		if err != nil {
			return 0, fmt.Errorf("append event %s: %w", e.Kind, err)
		}
		if ok {
			return n, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("append event %s: %w: %w", e.Kind, err, ErrConflict)
		}
	}
}

func (h *herd) nextEvent(ctx context.Context) (int64, error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{last(h.key("event", ""), 1)}})
	if err != nil {
		return 0, err
	}
	p, ok := res.one(0)
	if !ok {
		return 1, nil
	}
	n, err := h.eventNumber(p)
	return n + 1, err
}

func (h *herd) putEvent(ctx context.Context, n int64, e Event) (bool, error) {
	e.N = n
	value, err := json.Marshal(e)
	if err != nil {
		return false, err
	}
	cmps := []compare{absent(h.eventKey(n))}
	then := []op{put(h.eventKey(n), value)}
	if n > 1 { // numbers have no gaps, and nobody starts again at 1
		cmps = append(cmps, compare{key: h.eventKey(n - 1), exists: true})
	}
	if n > keptEvents {
		then = append(then, del(h.eventKey(n-keptEvents)))
	}
	res, err := h.kv.do(ctx, txn{name: "event", cmps: cmps, then: then})
	return res.ok, err
}

// Events implements Store.
func (h *herd) Events(ctx context.Context, after int64, limit int) ([]Event, error) {
	from := h.eventKey(max(after, 0) + 1)
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{since(h.key("event", ""), from, int64(max(limit, 0)))}})
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	all, err := decodeAll[Event](res.gets[0])
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	out := make([]Event, 0, len(all))
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].N > after {
			out = append(out, all[i])
		}
	}
	return out, nil
}
