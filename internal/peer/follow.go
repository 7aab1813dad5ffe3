package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"manada/internal/cluster"
)

// Follower keeps the newest view of a herd for somebody who is no member of it
// (a proxy, a command line), from any addresses that answer. It listens to
// every node of which it learns and asks one of them now and then for those
// that it does not reach itself. Safe for concurrent use.
type Follower struct {
	cfg    Config
	client Client
	seeds  []string
	in     *inbox
	links  *links
	cancel context.CancelFunc
	ended  chan struct{}

	heard     chan struct{} // closed when something has been heard
	heardOnce sync.Once

	mu    sync.Mutex
	known map[string]string // peer address by node
	seen  map[string]time.Time
	errs  map[string]error // by address, of its last answer
	busy  map[string]bool  // by address, while it is asked
	turn  int

	asking sync.WaitGroup
}

const (
	refreshWell = 3 * time.Second        // every node is heard directly
	refreshIll  = 500 * time.Millisecond // some node is not
	freshFor    = 500 * time.Millisecond
	lookEvery   = 100 * time.Millisecond
	forgetAfter = time.Minute // a node that nobody mentions any more
)

// Follow starts to follow. cfg.TLS is asked for node "" as long as the name
// behind an address is not known (pki.Identity.TLSFor does both). Close it.
func Follow(cfg Config, seeds []string) *Follower {
	cfg.defaults()
	// Detached: a follower lives until Close.
	ctx, cancel := context.WithCancel(context.Background())
	f := &Follower{
		cfg: cfg, client: Client{TLS: cfg.TLS, DialTimeout: cfg.DialTimeout}, seeds: seeds,
		in: newInbox(cfg.Cluster, ""), cancel: cancel,
		ended: make(chan struct{}), heard: make(chan struct{}),
		known: map[string]string{}, seen: map[string]time.Time{}, errs: map[string]error{}, busy: map[string]bool{},
	}
	f.links = newLinks(cfg.Log, f.subscribe)
	go f.loop(ctx)
	return f
}

// Close ends following and waits for its connections.
func (f *Follower) Close() {
	f.cancel()
	<-f.ended
	f.links.close()
}

// Heard is the newest beat of each node's agent.
func (f *Follower) Heard() map[string]Heard { return f.in.from(FromAgent) }

// HeardGuardian is the newest beat of each node's guardian, by hearsay.
func (f *Follower) HeardGuardian() map[string]Heard { return f.in.from(FromGuardian) }

// Changed is Hub.Changed.
func (f *Follower) Changed() <-chan struct{} { return f.in.changed }

// View is everything heard.
func (f *Follower) View() []Row {
	rows := f.in.rows(time.Now())
	sortRows(rows)
	return rows
}

// Term is the newest record heard so far, nil when none was; see NewestTerm. It
// never goes back, whoever falls silent. It is shared: do not change it.
func (f *Follower) Term() (t *cluster.Term, rev int64) { return f.in.newestTerm() }

// NewestTerm finds the newest record in a view: that of the highest epoch and,
// within it, of the highest revision. Epochs come first because revisions
// begin again when a lost store is recovered; epochs do not.
func NewestTerm(rows []Row) (t *cluster.Term, rev int64) {
	for i := range rows {
		if b := &rows[i].Beat; newerTerm(t, rev, b) {
			t, rev = b.Term, b.TermRev
		}
	}
	return t, rev
}

func newerTerm(t *cluster.Term, rev int64, b *cluster.Beat) bool {
	if b.Term == nil || t == nil {
		return b.Term != nil
	}
	return b.Term.Epoch > t.Epoch || b.Term.Epoch == t.Epoch && b.TermRev > rev
}

// Wait returns when somebody has been heard, or with what each address
// answered when ctx ends before.
func (f *Follower) Wait(ctx context.Context) error {
	select {
	case <-f.heard:
		return nil
	case <-ctx.Done():
	}
	if err := f.Err(); err != nil {
		return fmt.Errorf("nobody of the herd answers: %w", err)
	}
	return fmt.Errorf("nobody of the herd answers: %w", context.Cause(ctx))
}

// Err joins what went wrong at each address when it was last asked, nil when
// all answered.
func (f *Follower) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, err := range f.errs {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (f *Follower) subscribe(ctx context.Context, node, addr string) (heard bool, err error) {
	src := f.in.stream(node)
	defer src.close()
	err = f.cfg.dialer().listen(ctx, node, addr, func(line []byte) {
		if src.line(line) {
			heard = true
			f.heardOnce.Do(func() { close(f.heard) })
		}
	})
	return heard, err
}

func (f *Follower) loop(ctx context.Context) {
	defer close(f.ended)
	defer f.asking.Wait()
	for {
		well := f.well()
		f.ask(ctx, f.addresses(well))
		f.rest(ctx, well)
		if ctx.Err() != nil {
			return
		}
	}
}

// rest waits until the next round, which comes early when a node that was heard
// falls silent: others may hear it still.
func (f *Follower) rest(ctx context.Context, well bool) {
	wait := refreshIll
	if well {
		wait = refreshWell
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < wait; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if well && !f.well() {
			return
		}
	}
}

// well says whether every known node is heard directly and lately. Who knows of
// one node only knows too little: a herd that is being made grows from one host,
// and that one may be gone before it was asked again.
func (f *Follower) well() bool {
	direct := f.in.direct()
	f.mu.Lock()
	defer f.mu.Unlock()
	for node := range f.known {
		if at, ok := direct[node]; !ok || time.Since(at) > freshFor {
			return false
		}
	}
	return len(f.known) > 1
}

// addresses says whom to ask: everybody, or one after the other when all is well.
func (f *Follower) addresses(well bool) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := map[string]bool{}
	var all []string
	add := func(a string) {
		if a != "" && !set[a] {
			set[a] = true
			all = append(all, a)
		}
	}
	for _, a := range f.known {
		add(a)
	}
	if well {
		f.turn++
		return all[f.turn%len(all):][:1]
	}
	for _, a := range f.seeds {
		add(a)
	}
	return all
}

// ask asks the addresses for their views, all at once, and listens to the
// nodes they name. It does not wait long for one that does not answer: what the
// others say of that one is news.
func (f *Follower) ask(ctx context.Context, addrs []string) {
	f.mu.Lock()
	maps.DeleteFunc(f.errs, func(a string, _ error) bool { return !slices.Contains(addrs, a) })
	f.mu.Unlock()
	var wg sync.WaitGroup
	for _, a := range addrs {
		if !f.begin(a) {
			continue // is still being asked
		}
		wg.Add(1)
		f.asking.Go(func() {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(ctx, 2*f.cfg.DialTimeout)
			defer cancel()
			rows, err := f.client.View(ctx, a)
			f.finish(a, err)
			if err == nil {
				f.merge(rows)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	t := time.NewTimer(refreshIll)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	f.connect()
}

func (f *Follower) begin(addr string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[addr] {
		return false
	}
	f.busy[addr] = true
	return true
}

func (f *Follower) finish(addr string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.busy, addr)
	if delete(f.errs, addr); err != nil {
		f.errs[addr] = err
	}
}

func (f *Follower) merge(rows []Row) {
	now := time.Now()
	for _, r := range rows {
		f.in.hearsay(r, now)
		if r.Cluster != f.cfg.Cluster || r.From != FromAgent {
			continue
		}
		f.mu.Lock()
		f.seen[r.Node] = now
		if r.Addrs.Peer != "" {
			f.known[r.Node] = r.Addrs.Peer
		}
		f.mu.Unlock()
	}
	if len(rows) > 0 {
		f.heardOnce.Do(func() { close(f.heard) })
		f.connect()
	}
}

func (f *Follower) connect() {
	heard := f.Heard()
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := map[string]bool{}
	for node, at := range f.seen {
		if h, ok := heard[node]; ok && h.At.After(at) {
			f.seen[node], at = h.At, h.At
		}
		if time.Since(at) > forgetAfter {
			delete(f.seen, node)
			delete(f.known, node)
			continue
		}
		keep[node] = true
	}
	f.links.set(f.known)
	f.in.keep(keep)
}
