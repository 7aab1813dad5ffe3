package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is the in-memory twin of etcd: one shared store with any number of
// clients, whose requests can be delayed, lost, held back and delivered late.
// Tests and the simulator use it; all typed calls are the same code as over
// etcd.
type Memory struct {
	// Now and Sleep replace the clock (for a simulator). Set them before the
	// first client; nil means the real clock. Sleep returns early with the
	// context's error when it ends.
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error

	mu    sync.Mutex
	state memState
	fault func(Call) Fault
	cut   map[string]bool
	held  []heldCall
	bells map[*memBell]struct{}
}

type memState struct {
	id   uint64
	rev  int64
	keys map[string]pair
}

// Call is a request about to be made, for fault injection.
type Call struct {
	Client string
	// Name is the transaction's purpose: read, create, swap, touch, renew,
	// request, pause, event, node, registry, config, token or secret.
	Name  string
	Write bool
}

// Fault is what happens to a request. The zero value lets it pass.
type Fault struct {
	// Delay is waited before the request is applied.
	Delay time.Duration
	// DropRequest loses it on the way: never applied, ErrUnknown at the deadline.
	DropRequest bool
	// DropReply applies it and loses the answer: ErrUnknown at the deadline.
	DropReply bool
	// Hold answers ErrUnknown at once and keeps the request in flight until
	// Deliver applies it (a delayed write, finding H1).
	Hold bool
	// Refuse fails it with ErrUnreachable, as if nothing listened.
	Refuse bool
}

type heldCall struct {
	call Call
	t    txn
}

// NewMemory makes an empty store.
func NewMemory() *Memory {
	return &Memory{
		state: memState{id: 1, rev: 1, keys: map[string]pair{}},
		cut:   map[string]bool{},
		bells: map[*memBell]struct{}{},
	}
}

// Client is a Store for a cluster, named for fault injection. Timeout is the
// deadline of each call, reread that of Watch; 0 means a second.
func (m *Memory) Client(name, clusterName string, timeout, reread time.Duration) Store {
	c := &memClient{m: m, name: name, timeout: orSecond(timeout), done: make(chan struct{})}
	return newHerd(context.Background(), c, clusterName, orSecond(reread)) // detached: it lives until Close
}

func orSecond(d time.Duration) time.Duration {
	if d <= 0 {
		return time.Second
	}
	return d
}

// SetFault installs the function that decides each request's fate; nil: none.
func (m *Memory) SetFault(f func(Call) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Cut partitions a client from the store, or heals it: requests are lost on the
// way and watches hear nothing.
func (m *Memory) Cut(client string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[client] = cut
}

// Held says how many requests are in flight.
func (m *Memory) Held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}

// Deliver applies the requests that were held back, in their order, and says
// how many of them still held their comparisons.
func (m *Memory) Deliver() (applied int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.held {
		if m.apply(h.t).ok {
			applied++
		}
	}
	m.held = nil
	return applied
}

// Saved is a copy of everything in the store.
type Saved struct{ state memState }

// Save copies the store, as a backup would.
func (m *Memory) Save() Saved {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Saved{m.state.clone()}
}

// Restore takes the store back to the copy (finding C6). With newID it is
// another store with the same contents, as after restoring a backup of etcd.
func (m *Memory) Restore(s Saved, newID bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.state.id
	m.state = s.state.clone()
	m.state.id = id
	if newID {
		m.state.id++
	}
}

// Wipe empties the store, as if it were founded anew.
func (m *Memory) Wipe() {
	m.Restore(Saved{memState{rev: 1, keys: map[string]pair{}}}, true)
}

func (s memState) clone() memState {
	keys := make(map[string]pair, len(s.keys))
	for k, p := range s.keys {
		keys[k] = p // values are replaced, never changed
	}
	s.keys = keys
	return s
}

func (m *Memory) now() time.Time {
	if m.Now != nil {
		return m.Now()
	}
	return time.Now()
}

func (m *Memory) sleep(ctx context.Context, d time.Duration) error {
	if m.Sleep != nil {
		return m.Sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// apply runs a transaction; the caller holds the lock.
func (m *Memory) apply(t txn) txnResult {
	ok := !slices.ContainsFunc(t.cmps, func(c compare) bool { return !m.holds(c) })
	ops := t.then
	if !ok {
		ops = t.els
	}
	res := txnResult{ok: ok, storeID: m.state.id, gets: make([][]pair, len(ops))}
	next := m.state.rev + 1
	var changed []string
	for i, o := range ops {
		_, there := m.state.keys[o.key]
		switch o.kind {
		case opGet:
			res.gets[i] = m.find(o)
		case opPut:
			m.state.keys[o.key] = pair{o.key, slices.Clone(o.value), next}
			changed = append(changed, o.key)
		case opDelete:
			if there {
				delete(m.state.keys, o.key)
				changed = append(changed, o.key)
			}
		}
	}
	if len(changed) > 0 {
		m.state.rev = next
		m.ring(changed)
	}
	res.rev = m.state.rev
	return res
}

func (m *Memory) holds(c compare) bool {
	p, there := m.state.keys[c.key]
	switch {
	case c.exists:
		return there
	case c.byValue:
		return there && string(p.value) == c.value
	}
	return p.rev == c.rev
}

func (m *Memory) find(o op) []pair {
	if p, there := m.state.keys[o.key]; there && !o.prefix {
		p.value = slices.Clone(p.value)
		return []pair{p}
	}
	var out []pair
	for k, p := range m.state.keys {
		if o.prefix && strings.HasPrefix(k, o.key) && k >= o.from {
			p.value = slices.Clone(p.value)
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	if o.newestFirst {
		slices.Reverse(out)
	}
	if o.limit > 0 && int64(len(out)) > o.limit {
		out = out[:o.limit]
	}
	return out
}

type memBell struct {
	client, prefix string
	ring           func(string)
}

func (m *Memory) ring(keys []string) {
	for b := range m.bells {
		for _, k := range keys {
			if !m.cut[b.client] && strings.HasPrefix(k, b.prefix) {
				b.ring(k)
			}
		}
	}
}

// memClient is a backend of the typed calls.
type memClient struct {
	m       *Memory
	name    string
	timeout time.Duration
	done    chan struct{}
	once    sync.Once
}

func (c *memClient) do(ctx context.Context, t txn) (txnResult, error) {
	if err := ctx.Err(); err != nil {
		return txnResult{}, fmt.Errorf("%w: %w", err, ErrUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	sent := c.m.now()
	call := Call{Client: c.name, Name: t.name, Write: !t.readOnly()}
	f := c.m.fate(call)
	if f.Refuse {
		return txnResult{}, fmt.Errorf("%s: connection refused: %w", c.name, ErrUnreachable)
	}
	if f.Delay > 0 {
		if err := c.m.sleep(ctx, f.Delay); err != nil {
			f.Hold = true // it arrives after its sender gave up
		}
	}
	if f.DropRequest {
		return txnResult{}, c.noAnswer(ctx)
	}
	c.m.mu.Lock()
	if f.Hold {
		c.m.held = append(c.m.held, heldCall{call, t})
		c.m.mu.Unlock()
		return txnResult{}, fmt.Errorf("%s: no answer: %w", c.name, ErrUnknown)
	}
	res := c.m.apply(t)
	c.m.mu.Unlock()
	if f.DropReply {
		return txnResult{}, c.noAnswer(ctx)
	}
	res.sent, res.got = sent, c.m.now()
	return res, nil
}

func (c *memClient) noAnswer(ctx context.Context) error {
	err := c.m.sleep(ctx, c.timeout)
	if err == nil {
		err = context.DeadlineExceeded
	}
	return fmt.Errorf("%s: no answer: %w: %w", c.name, err, ErrUnknown)
}

func (m *Memory) fate(call Call) Fault {
	m.mu.Lock()
	f, cut := m.fault, m.cut[call.Client]
	m.mu.Unlock()
	if cut {
		return Fault{DropRequest: true}
	}
	if f == nil {
		return Fault{}
	}
	return f(call)
}

func (c *memClient) bell(ctx context.Context, prefix string, since int64, ring func(string)) error {
	b := &memBell{client: c.name, prefix: prefix, ring: ring}
	c.m.mu.Lock()
	c.m.bells[b] = struct{}{}
	if since > 0 { // what happened between the read and the watch
		for k, p := range c.m.state.keys {
			if p.rev >= since && strings.HasPrefix(k, prefix) {
				ring(k)
			}
		}
	}
	c.m.mu.Unlock()
	defer func() {
		c.m.mu.Lock()
		delete(c.m.bells, b)
		c.m.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
	case <-c.done:
	}
	return nil
}

func (c *memClient) status(ctx context.Context) (Status, error) {
	if f := c.m.fate(Call{Client: c.name, Name: "status"}); f.DropRequest || f.Refuse {
		return Status{Voters: 1}, fmt.Errorf("ask the store: %w", ErrUnreachable)
	}
	return Status{
		Voters: 1, Up: 1, Quorum: true, Leader: "memory",
		Members: []Member{{ID: 1, Name: "memory", Up: true, Leader: true}},
	}, nil
}

func (c *memClient) close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}
