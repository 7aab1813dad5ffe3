package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
)

// Config says how to reach the store.
type Config struct {
	// Cluster is the herd's name, part of every key.
	Cluster string
	// Endpoints are client URLs, "https://host:2379". Put the member on this
	// host first: it is asked first for as long as it answers.
	Endpoints []string
	// TLS holds our certificate and the CA; nil only for http endpoints.
	TLS *tls.Config
	// Timeout is the deadline of every call (default 1 s).
	Timeout time.Duration
	// Hedge is how long a read waits for a member before it asks another as
	// well (default 100 ms).
	Hedge time.Duration
	// Reread is how often Watch reads although nothing seems to have happened
	// (default 1 s).
	Reread time.Duration
	Log    *slog.Logger
}

// Client is a Store in etcd, with what is needed to manage its members.
type Client struct {
	*herd
	pool *pool
}

// Open makes a client. It connects in the background and does not fail because
// no member answers. The client lives until Close; of ctx only the values are
// kept.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Cluster == "" {
		return nil, errors.New("open the store: no cluster name given")
	}
	cfg.Timeout, cfg.Reread = orSecond(cfg.Timeout), orSecond(cfg.Reread)
	if cfg.Hedge <= 0 {
		cfg.Hedge = 100 * time.Millisecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := newPool(context.WithoutCancel(ctx), cfg)
	if err := p.set(cfg.Endpoints); err != nil {
		_ = p.close()
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return &Client{herd: newHerd(ctx, p, cfg.Cluster, cfg.Reread), pool: p}, nil
}

// SetEndpoints replaces the client URLs; connections to those that stay are
// kept, calls under way through the others end as unknown.
func (c *Client) SetEndpoints(urls []string) error {
	if err := c.pool.set(urls); err != nil {
		return fmt.Errorf("set store endpoints: %w", err)
	}
	return nil
}

// Endpoints returns the present client URLs in order of preference.
func (c *Client) Endpoints() []string { return c.pool.urls() }

// Preferred is the client URL that the next call asks first, empty when closed.
func (c *Client) Preferred() string {
	for _, e := range c.pool.order() {
		return e.url
	}
	return ""
}

// do implements kv.
func (p *pool) do(ctx context.Context, t txn) (txnResult, error) {
	if p.ctx.Err() != nil {
		return txnResult{}, fmt.Errorf("the client is closed: %w", ErrUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	if t.readOnly() {
		return p.read(ctx, t)
	}
	return p.write(ctx, t)
}

// read asks the first member and, when it errs or takes longer than the hedge,
// the next ones too. Reads change nothing, so the first answer is good.
func (p *pool) read(ctx context.Context, t txn) (txnResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the losers
	order := p.order()
	p.probe(t, order)
	r := reading{pool: p, t: t, order: order, answers: make(chan answer)}
	r.launch(ctx)
	hedge := time.NewTicker(p.cfg.Hedge)
	defer hedge.Stop()
	for {
		select {
		case a := <-r.answers:
			r.pending--
			if a.err == nil {
				r.blameSlow(a.from)
				return a.res, nil
			}
			if errors.Is(a.err, ErrRefused) {
				return txnResult{}, a.err
			}
			r.err = a.err
			if r.next < len(order) {
				r.launch(ctx)
			}
		case <-hedge.C:
			r.launch(ctx)
		case <-ctx.Done():
			return txnResult{}, r.failure(ctx)
		}
	}
}

// reading is one read under way.
type reading struct {
	pool    *pool
	t       txn
	order   []*endpoint
	answers chan answer
	next    int // into order; beyond its end: further rounds
	pending int
	asked   []*endpoint // still without an answer
	sent    []*atomic.Bool
	err     error // the last one
}

type answer struct {
	res  txnResult
	err  error
	from *endpoint
}

func (r *reading) launch(ctx context.Context) {
	if r.pending >= len(r.order) {
		return
	}
	e := r.order[r.next%len(r.order)]
	r.next++
	r.pending++
	r.asked = append(r.asked, e)
	ctx, sent := tellSent(ctx)
	r.sent = append(r.sent, sent)
	r.pool.wg.Go(func() {
		res, err := e.attempt(ctx, sent, r.t)
		select {
		case r.answers <- answer{res, err, e}:
		case <-ctx.Done():
		}
	})
}

// blameSlow puts members that were asked before the one that answered behind
// the others until a probe gets an answer from them.
func (r *reading) blameSlow(winner *endpoint) {
	for _, e := range r.asked {
		if e == winner {
			return
		}
		e.blame()
	}
}

func (r *reading) failure(ctx context.Context) error {
	kind := ErrUnreachable
	if slices.ContainsFunc(r.sent, (*atomic.Bool).Load) {
		kind = ErrUnknown
	}
	// %v: the last attempt's own verdict must not show through.
	return fmt.Errorf("asked %d members: %w: last: %v: %w", len(r.order), ctx.Err(), r.err, kind)
}

// write sends the transaction through one member. It goes on to the next one
// only when nothing was sent: a transaction is never sent twice.
func (p *pool) write(ctx context.Context, t txn) (txnResult, error) {
	var lastErr error
	for {
		ready, err := p.awaitReady(ctx)
		if err != nil {
			return txnResult{}, fmt.Errorf("%w: last: %v: %w", err, lastErr, ErrUnreachable)
		}
		for _, e := range ready {
			ctx, sent := tellSent(ctx)
			res, err := e.attempt(ctx, sent, t)
			if err == nil || !errors.Is(err, ErrUnreachable) {
				return res, err
			}
			lastErr = err
		}
		if err := pause(ctx, readyPoll); err != nil {
			return txnResult{}, fmt.Errorf("%w: last: %v: %w", err, lastErr, ErrUnreachable)
		}
	}
}

// attempt runs the transaction through this member, once; ctx and sent are from
// tellSent. It calls etcd's
// service directly: clientv3's KV waits for a lost connection to come back,
// until the deadline, where another member could be asked at once.
func (e *endpoint) attempt(ctx context.Context, sent *atomic.Bool, t txn) (txnResult, error) {
	at := time.Now()
	resp, err := pb.NewKVClient(e.cli.ActiveConnection()).Txn(ctx, txnRequest(t))
	if err != nil {
		// A reader that got its answer elsewhere cancels this; that is no fault.
		if !errors.Is(ctx.Err(), context.Canceled) {
			e.blame()
		}
		return txnResult{}, fmt.Errorf("%s: %w: %w", e.url, err, classify(err, sent.Load()))
	}
	e.praise(at)
	res := txnResult{ok: resp.Succeeded, rev: resp.Header.Revision, storeID: resp.Header.ClusterId, sent: at, got: time.Now()}
	for _, r := range resp.Responses {
		var ps []pair
		for _, kv := range r.GetResponseRange().GetKvs() {
			ps = append(ps, pair{string(kv.Key), kv.Value, kv.ModRevision})
		}
		res.gets = append(res.gets, ps)
	}
	return res, nil
}

// classify: only what certainly was not applied is anything but unknown. Not
// even "database space exceeded" is: etcd applies the write that finds the
// quota exceeded and then answers with that error.
func classify(err error, sent bool) error {
	refusals := []error{
		rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyRequests, rpctypes.ErrTooManyOps,
		rpctypes.ErrPermissionDenied, rpctypes.ErrDuplicateKey, rpctypes.ErrEmptyKey,
	}
	switch {
	case !sent, is(err, errLearner):
		return ErrUnreachable
	case slices.ContainsFunc(refusals, func(r error) bool { return is(err, r) }):
		return ErrRefused
	}
	return ErrUnknown
}

// errLearner is how a member without a vote turns every request away unread.
var errLearner = rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)

// bell implements kv with etcd's watch on the member that answers best. It ends
// with the connection: clientv3 would wait for that member to come back.
func (p *pool) bell(ctx context.Context, prefix string, since int64, ring func(string)) error {
	ready, err := p.awaitReady(ctx)
	if err != nil {
		return err
	}
	e := ready[0]
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.wg.Go(func() {
		e.cli.ActiveConnection().WaitForStateChange(ctx, connectivity.Ready)
		cancel()
	})
	opts := []clientv3.OpOption{clientv3.WithPrefix()}
	if since > 0 {
		opts = append(opts, clientv3.WithRev(since))
	}
	for resp := range e.cli.Watch(clientv3.WithRequireLeader(ctx), prefix, opts...) {
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watch through %s: %w", e.url, err)
		}
		for _, ev := range resp.Events {
			ring(string(ev.Kv.Key))
		}
	}
	return fmt.Errorf("watch through %s: connection lost", e.url)
}
