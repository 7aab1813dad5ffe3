package voter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"manada/internal/store"
)

var (
	// ErrRemoved: the others have taken this member out of the store. Its data
	// is worthless; Discard it and start again to join anew.
	ErrRemoved = errors.New("this voter was removed from the store")
	// ErrDataLost: this voter had data and has none now. It must join anew.
	ErrDataLost = errors.New("this voter's data is gone")
)

// stopTimeout bounds a clean stop; etcd's own has hung before.
const stopTimeout = 15 * time.Second

var smallSegments = sync.OnceFunc(func() { wal.SegmentSizeBytes = walSegment })

// Voter is a running member of the store.
type Voter struct {
	cfg    Config
	etcd   *embed.Etcd
	fronts fronts
	cancel context.CancelFunc // of the promotion
	wg     sync.WaitGroup

	done chan struct{} // closed when it has stopped, for whatever reason
	err  error         // why; set before done is closed
	once sync.Once
}

// Run runs a voter until the context ends, and then returns nil, or until it
// stops by itself.
func Run(ctx context.Context, cfg Config) error {
	v, err := Start(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	select {
	case <-ctx.Done():
		return v.Close()
	case <-v.Done():
		return v.Err()
	}
}

// Start starts a voter, having founded or joined a store if it has no data, and
// returns when it serves clients. A learner is given its vote in the background
// as soon as it has caught up.
func Start(ctx context.Context, cfg Config) (*Voter, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("start the store's voter: %w", err)
	}
	smallSegments()
	ecfg, err := cfg.prepare(ctx)
	if err != nil {
		return nil, fmt.Errorf("start the store's voter %s: %w", cfg.Name, err)
	}
	fronts, err := cfg.openFronts()
	if err != nil {
		return nil, fmt.Errorf("start the store's voter %s: %w", cfg.Name, err)
	}
	server, err := embed.StartEtcd(ecfg)
	if err != nil {
		fronts.close()
		return nil, fmt.Errorf("start the store's voter %s: %w", cfg.Name, err)
	}
	v := &Voter{cfg: cfg, etcd: server, fronts: fronts, done: make(chan struct{})}
	bg, cancel := context.WithCancel(context.WithoutCancel(ctx))
	v.cancel = cancel
	// Not only when it is ready: etcd's word to the others that it is there may
	// be lost, and is repeated after seven seconds.
	v.wg.Go(func() { v.promote(bg) })
	err = v.awaitReady(ctx)
	if err == nil {
		err = cfg.writeIdentity(uint64(server.Server.Cluster().ID()))
	}
	if err != nil {
		cancel()
		v.wg.Wait()
		v.shut()
		return nil, fmt.Errorf("start the store's voter %s: %w", cfg.Name, err)
	}
	go v.watch()
	cfg.Log.Info("store voter runs", "node", cfg.Name, "client_url", cfg.AdvertiseClient,
		"peer_url", cfg.AdvertisePeer, "learner", server.Server.IsLearner())
	if cfg.Ready != nil {
		cfg.Ready()
	}
	return v, nil
}

// prepare decides what this start is: a restart, a founding or a join.
func (c *Config) prepare(ctx context.Context) (*embed.Config, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make its folder: %w", err)
	}
	id, err := c.readIdentity()
	if err != nil {
		return nil, err
	}
	self := c.Name + "=" + c.AdvertisePeer
	switch {
	case id != nil && id.Name != c.Name:
		return nil, fmt.Errorf("%s belongs to %s: a copied folder? Give each voter its own", c.Dir, id.Name)
	case c.hasData():
		return c.etcd(self, embed.ClusterStateFlagExisting, "")
	case c.Recover:
		return nil, fmt.Errorf("nothing to recover from: no data in %s", c.dataDir())
	case c.Found && id != nil:
		return nil, fmt.Errorf("%s says that it had a store, and %s is empty. "+
			"Start it with the address of another member to join: %w", c.identityFile(), c.dataDir(), ErrDataLost)
	case c.Found:
		return c.found(ctx, self)
	case len(c.Join) > 0:
		return c.join(ctx)
	}
	return nil, fmt.Errorf("%s is empty, and it was told neither to found a store nor whom to join", c.dataDir())
}

// found prepares a store of one member with an identity that no other has.
func (c *Config) found(ctx context.Context, self string) (*embed.Config, error) {
	if err := c.MayFound(ctx); err != nil {
		return nil, fmt.Errorf("found a new store: %w", err)
	}
	if err := c.discardHalfMade(); err != nil {
		return nil, err
	}
	return c.etcd(self, embed.ClusterStateFlagNew, rand.Text())
}

// discardHalfMade removes what a first start left that ended before etcd wrote
// its log, and with it no identity.
func (c *Config) discardHalfMade() error {
	if c.hasData() {
		return errors.New("there is data: not discarded")
	}
	if err := os.RemoveAll(c.dataDir()); err != nil {
		return fmt.Errorf("discard a half-made folder: %w", err)
	}
	return nil
}

// Discard removes the data of a voter that does not run and was removed from
// the store (ErrRemoved), so that it can join anew.
func Discard(dir string) error {
	c := Config{Dir: dir}
	for _, f := range []string{c.dataDir(), c.identityFile()} {
		if err := os.RemoveAll(f); err != nil {
			return fmt.Errorf("discard the voter's data: %w", err)
		}
	}
	return nil
}

func (v *Voter) awaitReady(ctx context.Context) error {
	select {
	case <-v.etcd.Server.ReadyNotify():
		return nil
	case err := <-v.etcd.Err():
		return v.serveError(err)
	case <-v.etcd.Server.StopNotify():
		return v.stopReason()
	case <-ctx.Done():
		return fmt.Errorf("wait for a quorum of the voters: %w", ctx.Err())
	}
}

// watch notices that the server stopped by itself.
func (v *Voter) watch() {
	var err error
	select {
	case <-v.etcd.Server.StopNotify():
		err = v.stopReason()
	case err = <-v.etcd.Err():
		err = v.serveError(err)
	}
	v.finish(err)
}

// serveError: listeners fail, too, when the server behind them stops; then its
// reason is the better one.
func (v *Voter) serveError(err error) error {
	select {
	case <-v.etcd.Server.StoppingNotify():
		return v.stopReason()
	default:
		return fmt.Errorf("serve: %w", err)
	}
}

// stopReason tells a removal from every other stop, when nobody stopped the
// server on purpose. A member that was removed while it did not run does not
// know it: the others are asked.
func (v *Voter) stopReason() error {
	s := v.etcd.Server
	if c, ok := s.Cluster().(interface{ IsIDRemoved(types.ID) bool }); ok && c.IsIDRemoved(s.MemberID()) {
		return ErrRemoved
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second) // detached: it is over
	defer cancel()
	if v.goneFromMembers(ctx) {
		return ErrRemoved
	}
	return errors.New("etcd stopped by itself, see its log")
}

func (v *Voter) goneFromMembers(ctx context.Context) bool {
	self := v.etcd.Server.MemberID()
	urls := slices.Clone(v.cfg.Join)
	for _, m := range v.etcd.Server.Cluster().Members() {
		if m.ID != self {
			urls = append(urls, m.ClientURLs...)
		}
	}
	if len(urls) == 0 {
		return false
	}
	cli, err := v.cfg.client(ctx, urls)
	if err != nil {
		return false
	}
	defer cli.Close()
	members, err := cli.Members(ctx)
	return err == nil && !slices.ContainsFunc(members, func(m store.Member) bool { return m.ID == uint64(self) })
}

func (v *Voter) finish(err error) {
	v.once.Do(func() {
		if v.cancel != nil {
			v.cancel()
		}
		v.wg.Wait()
		if !v.shut() && err == nil {
			err = fmt.Errorf("stop the store's voter: still busy after %s", stopTimeout)
		}
		v.err = err
		close(v.done)
	})
}

// shut stops etcd and says whether it ended in time.
func (v *Voter) shut() bool {
	defer v.fronts.close()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		v.etcd.Close()
	}()
	select {
	case <-closed:
		return true
	case <-time.After(stopTimeout):
		return false
	}
}

// Close stops the voter cleanly; if it leads, another one takes over first.
func (v *Voter) Close() error {
	v.finish(nil)
	<-v.done
	return v.err
}

// Done is closed when the voter has stopped.
func (v *Voter) Done() <-chan struct{} { return v.done }

// Err says why it stopped: nil after Close, ErrRemoved, or etcd's error. Valid
// once Done is closed.
func (v *Voter) Err() error { return v.err }

// Learner says whether it still has no vote.
func (v *Voter) Learner() bool { return v.etcd.Server.IsLearner() }
