package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"manada/internal/cluster"
)

// herd implements Store on a backend.
type herd struct {
	kv     kv
	prefix string // "/manada/<cluster>/"
	reread time.Duration

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	leaseRev int64 // modification revision of the lease key, as last seen by Renew
}

var _ Store = (*herd)(nil)

func newHerd(ctx context.Context, backend kv, clusterName string, reread time.Duration) *herd {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &herd{kv: backend, prefix: Prefix(clusterName), reread: reread, ctx: ctx, cancel: cancel}
}

// Prefix is where a cluster's keys lie.
func Prefix(clusterName string) string { return "/manada/" + clusterName + "/" }

func (h *herd) key(parts ...string) string { return h.prefix + strings.Join(parts, "/") }

// Close ends watches, waits for them and closes the backend.
func (h *herd) Close() error {
	h.cancel()
	h.wg.Wait()
	return h.kv.close()
}

func (h *herd) Status(ctx context.Context) (Status, error) { return h.kv.status(ctx) }

// Read implements Store.
func (h *herd) Read(ctx context.Context) (Snapshot, error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{
		get(h.key("term")), get(h.key("lease")), get(h.key("pause")), list(h.key("request", "")),
	}})
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the term: %w", err)
	}
	return decodeSnapshot(res)
}

func decodeSnapshot(res txnResult) (Snapshot, error) {
	s := Snapshot{StoreRev: res.rev, StoreID: res.storeID, Sent: res.sent, Received: res.got}
	var err error
	if p, ok := res.one(0); ok {
		s.TermRev = p.rev
		s.Term, err = decode[cluster.Term](p)
	}
	if p, ok := res.one(1); ok && err == nil {
		s.Lease, err = decode[Lease](p)
	}
	if p, ok := res.one(2); ok && err == nil {
		s.Pause, err = decode[Pause](p)
	}
	if err != nil {
		return Snapshot{}, err
	}
	s.Requests, err = decodeAll[Request](res.gets[3])
	slices.SortFunc(s.Requests, olderRequest)
	return s, err
}

func olderRequest(a, b Request) int {
	if c := a.At.Compare(b.At); c != 0 {
		return c
	}
	return cmp.Compare(a.ID, b.ID)
}

// Create implements Store.
func (h *herd) Create(ctx context.Context, t *cluster.Term) (int64, error) {
	value, err := encodeTerm(t)
	if err != nil {
		return 0, fmt.Errorf("create the term: %w", err)
	}
	// The system key outlives nothing: it is written with the record and, like
	// it, never deleted. It may be there already when a record was rebuilt.
	for _, system := range []compare{absent(h.key("system")), valueIs(h.key("system"), t.SystemID)} {
		res, err := h.kv.do(ctx, txn{
			name: "create",
			cmps: []compare{absent(h.key("term")), system},
			then: []op{put(h.key("system"), []byte(t.SystemID)), put(h.key("term"), value)},
			els:  []op{get(h.key("term")), get(h.key("system"))},
		})
		if err != nil {
			return 0, fmt.Errorf("create the term: %w", err)
		}
		if res.ok {
			return res.rev, nil
		}
		if _, there := res.one(0); there {
			return 0, fmt.Errorf("create the term: there is one already: %w", ErrConflict)
		}
		if p, there := res.one(1); there && string(p.value) != t.SystemID {
			return 0, fmt.Errorf("create the term: %w", otherSystem(p, t))
		}
	}
	return 0, fmt.Errorf("create the term: %w", ErrConflict)
}

// Swap implements Store.
func (h *herd) Swap(ctx context.Context, rev int64, next *cluster.Term) (int64, error) {
	value, err := encodeTerm(next)
	if err != nil {
		return 0, fmt.Errorf("swap the term: %w", err)
	}
	return h.swap(ctx, "swap", rev, next, value)
}

// Touch implements Store.
func (h *herd) Touch(ctx context.Context, rev int64) (int64, error) {
	res, err := h.kv.do(ctx, txn{name: "read", then: []op{get(h.key("term"))}})
	if err != nil {
		// Nothing was written, whatever became of the read.
		return 0, fmt.Errorf("touch the term: read it first: %w", err)
	}
	p, ok := res.one(0)
	if !ok || p.rev != rev {
		return 0, fmt.Errorf("touch the term: revision is %d, not %d: %w", p.rev, rev, ErrConflict)
	}
	t, err := decode[cluster.Term](p)
	if err != nil {
		return 0, fmt.Errorf("touch the term: %w", err)
	}
	// The bytes as they are: fields that this version does not know survive.
	return h.swap(ctx, "touch", rev, t, p.value)
}

func (h *herd) swap(ctx context.Context, name string, rev int64, next *cluster.Term, value []byte) (int64, error) {
	if rev <= 0 {
		return 0, fmt.Errorf("%s the term: revision %d: %w", name, rev, ErrInvalid)
	}
	res, err := h.kv.do(ctx, txn{
		name: name,
		cmps: []compare{revIs(h.key("term"), rev), valueIs(h.key("system"), next.SystemID)},
		then: []op{put(h.key("term"), value)},
		els:  []op{get(h.key("term")), get(h.key("system"))},
	})
	if err != nil {
		return 0, fmt.Errorf("%s the term: %w", name, err)
	}
	if res.ok {
		return res.rev, nil
	}
	if p, _ := res.one(1); string(p.value) != next.SystemID {
		return 0, fmt.Errorf("%s the term: %w", name, otherSystem(p, next))
	}
	p, _ := res.one(0)
	return 0, fmt.Errorf("%s the term: revision is %d, not %d: %w", name, p.rev, rev, ErrConflict)
}

func otherSystem(p pair, t *cluster.Term) error {
	return fmt.Errorf("its system identifier is %q, ours %q: %w",
		p.value, t.SystemID, errors.Join(ErrOtherSystem, ErrConflict))
}

// Renew implements Store. The comparison with the lease's own revision keeps a
// delayed renewal of a leader that was replaced from covering its successor's.
func (h *herd) Renew(ctx context.Context, l Lease) error {
	value, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	h.mu.Lock()
	rev := h.leaseRev
	h.mu.Unlock()
	for range 3 {
		res, err := h.kv.do(ctx, txn{
			name: "renew",
			cmps: []compare{revIs(h.key("lease"), rev)},
			then: []op{put(h.key("lease"), value)},
			els:  []op{get(h.key("lease"))},
		})
		if err != nil {
			return fmt.Errorf("renew epoch %d: %w", l.Epoch, err)
		}
		if rev = res.rev; !res.ok {
			p, there := res.one(0)
			if rev = p.rev; there {
				now, err := decode[Lease](p)
				if err == nil && now.Epoch > l.Epoch {
					return fmt.Errorf("renew epoch %d: %s renews epoch %d: %w", l.Epoch, now.Node, now.Epoch, ErrConflict)
				}
			}
		}
		h.mu.Lock()
		h.leaseRev = rev
		h.mu.Unlock()
		if res.ok {
			return nil
		}
	}
	return fmt.Errorf("renew epoch %d: %w", l.Epoch, ErrConflict)
}

// encodeTerm checks the invariants that any writer must keep (finding H7).
func encodeTerm(t *cluster.Term) ([]byte, error) {
	switch {
	case t == nil:
		return nil, fmt.Errorf("no record: %w", ErrInvalid)
	case t.SystemID == "":
		return nil, fmt.Errorf("no system identifier: %w", ErrInvalid)
	case t.K < 0 || t.K > len(t.Sync):
		return nil, fmt.Errorf("k is %d with %d members of sync: %w", t.K, len(t.Sync), ErrInvalid)
	}
	return json.Marshal(t)
}

func decode[T any](p pair) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(p.value, v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", p.key, err)
	}
	return v, nil
}

func decodeAll[T any](ps []pair) ([]T, error) {
	out := make([]T, 0, len(ps))
	for _, p := range ps {
		v, err := decode[T](p)
		if err != nil {
			return nil, err
		}
		out = append(out, *v)
	}
	return out, nil
}
