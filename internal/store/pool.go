package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/stats"
)

const (
	// readyPoll is how often a write looks for a connected member when there is
	// none.
	readyPoll = 10 * time.Millisecond
	// probeEvery is how often a member that did badly is asked again.
	probeEvery = time.Second
)

// pool holds one etcd client per member. One client for all of them would
// spread calls over its connections in turn, and every third call would hang on
// a member that fell off the network until a keepalive finds out (12 s).
type pool struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	eps    []*endpoint          // in the caller's order
	others map[string]*endpoint // members that only status asks
	closed bool
}

type endpoint struct {
	url string
	cli *clientv3.Client
	// blamed is when a call failed or was too slow, in nanoseconds since the
	// process began to count; 0: it does well. It is asked after the others, and
	// probed.
	blamed atomic.Int64
	probed atomic.Int64 // unix nanoseconds of the last probe
}

var counted = time.Now()

func (e *endpoint) bad() bool { return e.blamed.Load() != 0 }

func (e *endpoint) blame() { e.blamed.Store(int64(time.Since(counted))) }

// praise is for an answer to what was asked at a time: it says nothing of a fault
// that was found later.
func (e *endpoint) praise(asked time.Time) {
	if b := e.blamed.Load(); b < int64(asked.Sub(counted)) {
		e.blamed.CompareAndSwap(b, 0)
	}
}

func newPool(ctx context.Context, cfg Config) *pool {
	ctx, cancel := context.WithCancel(ctx)
	return &pool{cfg: cfg, ctx: ctx, cancel: cancel, others: map[string]*endpoint{}}
}

func (p *pool) dial(u string) (*endpoint, error) {
	parsed, err := url.Parse(u)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "https" && parsed.Scheme != "http") {
		return nil, fmt.Errorf("endpoint %q: want https://HOST:PORT", u)
	}
	if parsed.Scheme == "https" && p.cfg.TLS == nil {
		return nil, fmt.Errorf("endpoint %q: no TLS configuration given", u)
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{u},
		TLS:         p.cfg.TLS,
		Context:     p.ctx,
		DialTimeout: p.cfg.Timeout,
		// A dead peer: pings after 10 s (gRPC's minimum) of silence, and
		// TCP_USER_TIMEOUT, which gRPC sets to this, when data is not taken.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		PermitWithoutStream:  true,
		MaxUnaryRetries:      1, // one attempt: what is retried is decided here
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithStatsHandler(sentTracker{}),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
				MinConnectTimeout: time.Second, // else 20 s on a host that drops packets
			}),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", u, err)
	}
	cli.ActiveConnection().Connect()
	return &endpoint{url: u, cli: cli}, nil
}

func (e *endpoint) ready() bool {
	return e.cli.ActiveConnection().GetState() == connectivity.Ready
}

// set replaces the endpoints, keeping the connections of those that stay.
func (p *pool) set(urls []string) error {
	if len(urls) == 0 {
		return errors.New("no endpoints given")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("the client is closed")
	}
	var next, fresh []*endpoint
	for _, u := range urls {
		if slices.ContainsFunc(next, func(e *endpoint) bool { return e.url == u }) {
			continue
		}
		i := slices.IndexFunc(p.eps, func(e *endpoint) bool { return e.url == u })
		if i >= 0 {
			next = append(next, p.eps[i])
			continue
		}
		e, err := p.dial(u)
		if err != nil {
			closeAll(fresh)
			return err
		}
		next, fresh = append(next, e), append(fresh, e)
	}
	gone := slices.DeleteFunc(p.eps, func(e *endpoint) bool { return slices.Contains(next, e) })
	p.eps = next
	closeAll(gone)
	return nil
}

func closeAll(es []*endpoint) {
	for _, e := range es {
		_ = e.cli.Close() // only ever reports the context's end
	}
}

func (p *pool) urls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]string, len(p.eps))
	for i, e := range p.eps {
		out[i] = e.url
	}
	return out
}

// order returns the endpoints, those that did well and are connected first,
// otherwise as the caller ordered them.
func (p *pool) order() []*endpoint {
	p.mu.Lock()
	out := slices.Clone(p.eps)
	p.mu.Unlock()
	rank := make(map[*endpoint]int, len(out))
	for _, e := range out {
		if e.bad() {
			rank[e] += 2
		}
		if !e.ready() {
			rank[e]++
		}
	}
	slices.SortStableFunc(out, func(a, b *endpoint) int { return rank[a] - rank[b] })
	return out
}

// awaitReady returns the connected endpoints, in order, waiting for the first
// one if there is none.
func (p *pool) awaitReady(ctx context.Context) ([]*endpoint, error) {
	for {
		all := p.order()
		ready := slices.DeleteFunc(slices.Clone(all), func(e *endpoint) bool { return !e.ready() })
		if len(ready) > 0 {
			return ready, nil
		}
		for _, e := range all {
			e.cli.ActiveConnection().Connect()
		}
		if err := pause(ctx, readyPoll); err != nil {
			return nil, fmt.Errorf("no member of the store is connected: %w", err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// probe asks members that did badly again, beside the read that is due, so that
// they come back without any call having to wait for them.
func (p *pool) probe(t txn, order []*endpoint) {
	now := time.Now().UnixNano()
	for i, e := range order {
		due := e.probed.Load()
		if i == 0 || !e.bad() || now-due < int64(probeEvery) || !e.probed.CompareAndSwap(due, now) {
			continue
		}
		p.wg.Go(func() {
			ctx, cancel := context.WithTimeout(p.ctx, p.cfg.Timeout)
			defer cancel()
			ctx, sent := tellSent(ctx)
			at := time.Now()
			if _, err := e.attempt(ctx, sent, t); err == nil && time.Since(at) > p.cfg.Hedge {
				e.blame()
			}
		})
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	eps := append(p.eps, mapValues(p.others)...)
	p.eps, p.others = nil, nil
	p.mu.Unlock()
	p.cancel()
	closeAll(eps)
	p.wg.Wait()
	return nil
}

func mapValues(m map[string]*endpoint) (out []*endpoint) {
	for _, e := range m {
		out = append(out, e)
	}
	return out
}

// sentTracker tells whether a request was handed to a connection: gRPC reports
// the outgoing header then and only then, in the calling goroutine.
type sentTracker struct{}

type sentKey struct{}

func tellSent(ctx context.Context) (context.Context, *atomic.Bool) {
	sent := new(atomic.Bool)
	return context.WithValue(ctx, sentKey{}, sent), sent
}

func (sentTracker) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentTracker) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentTracker) HandleConn(context.Context, stats.ConnStats)                       {}
func (sentTracker) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}
