package rotate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
)

const (
	every = 500 * time.Millisecond // between two looks at the vault
	// Settle is how long a new certificate is in the list before its host uses
	// it: every listener has read the list by then.
	Settle = 3 * time.Second
	// alone is how long the store is silent before another host is asked.
	alone = 3 * time.Second
)

// Store is what the package needs of store.Store.
type Store interface {
	Secret(ctx context.Context) ([]byte, error)
	UpdateSecret(ctx context.Context, change func([]byte) ([]byte, error)) error
	Registry(ctx context.Context) (cluster.Registry, error)
	UpdateRegistry(ctx context.Context, change func(*cluster.Registry) error) (cluster.Registry, error)
}

// Database is this host's PostgreSQL.
type Database interface {
	// Use takes the passwords that PostgreSQL has from now on, and those that it
	// may have instead while they are being changed, nil otherwise.
	Use(now, others pki.Secrets) error
	// ChangePasswords gives roles new passwords, on a primary.
	ChangePasswords(ctx context.Context, passwords map[string]string) ([]string, error)
	HasPassword(ctx context.Context, role string, candidates ...string) (bool, error)
	// EndSessions ends the roles' sessions that came over TCP and began before.
	EndSessions(ctx context.Context, roles []string, before time.Time) error
	ReloadCertificate(ctx context.Context) error
}

// Config says whose secrets are kept, and how the herd is reached.
type Config struct {
	Identity *pki.Identity
	Store    Store    // nil on a host that is only a proxy
	Database Database // nil on a host without one
	// Leads says whether this host's PostgreSQL is the primary of an open epoch,
	// Up names the hosts that are heard, this one among them. Both may be nil on
	// a proxy.
	Leads func() bool
	Up    func() []string
	// Peers are addresses of members, by node.
	Peers func() map[string]string
	// StoreTrust is what this host's voter believes (pki.TrustOf), "" where
	// there is none; may be nil.
	StoreTrust func() string
	// Event tells of something that happened; may be nil.
	Event func(kind, text string)
	Log   *slog.Logger
}

// Keeper keeps a host's secrets. Safe for concurrent use.
type Keeper struct {
	cfg Config

	born   time.Time
	former former
	step   sync.Mutex // one look at a time

	mu     sync.Mutex // guards what follows
	vault  *pki.Vault // as last read
	list   cluster.Registry
	err    error // of the last look
	heard  time.Time
	since  time.Time // when the newest generation was first seen here
	said   string
	leads  bool
	issued *issued
}

// issued is a certificate that is registered and not in use yet.
type issued struct {
	cert       []byte
	generation uint64
	at         time.Time
}

// New makes a keeper; Run starts it.
func New(cfg Config) *Keeper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Leads == nil {
		cfg.Leads = func() bool { return false }
	}
	if cfg.Up == nil {
		cfg.Up = func() []string { return nil }
	}
	if cfg.Event == nil {
		cfg.Event = func(string, string) {}
	}
	if cfg.StoreTrust == nil {
		cfg.StoreTrust = func() string { return "" }
	}
	return &Keeper{cfg: cfg, born: time.Now(), heard: time.Now()}
}

// Run takes up what is new, and on the leader's host takes the next steps, until
// ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := k.Step(one)
		leads := k.cfg.Store != nil && k.cfg.Leads()
		k.mu.Lock()
		k.leads = leads
		k.mu.Unlock()
		if err == nil && leads {
			err = k.lead(one)
		}
		err = errors.Join(err, k.endFormer(one))
		cancel()
		if ctx.Err() == nil {
			k.say(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// say logs what is wrong, once.
func (k *Keeper) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	k.mu.Lock()
	again := text == k.said
	k.said, k.err = text, err
	k.mu.Unlock()
	if text != "" && !again {
		k.cfg.Log.Warn("cannot keep this host's secrets up to date", "error", text)
	}
}

// Step reads the vault and takes up what this host lacks.
func (k *Keeper) Step(ctx context.Context) error {
	k.step.Lock()
	defer k.step.Unlock()
	v, err := k.look(ctx)
	if err != nil || v == nil {
		return err
	}
	done, err := k.cfg.Identity.TakeUp(v)
	if err := errors.Join(err, k.apply(ctx, done)); err != nil {
		return err
	}
	if done.Passwords || done.Trust {
		k.cfg.Log.Info("took up the herd's secrets", "generation", v.Generation, "spreading", v.Spreading)
	}
	want, err := k.cfg.Identity.WantsCertificate(v)
	if err != nil {
		return err
	}
	if want {
		return k.certificate(ctx, v)
	}
	return k.acknowledge(ctx, v)
}

// look reads the vault: from the store, or from another host where there is no
// store, or it has been silent for a while. nil: nothing is known now.
func (k *Keeper) look(ctx context.Context) (*pki.Vault, error) {
	if k.cfg.Store == nil {
		return k.ask(ctx)
	}
	v, err := k.read(ctx)
	if err == nil {
		list, err := k.cfg.Store.Registry(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the list of certificates: %w", err)
		}
		k.note(v, list)
		return v, nil
	}
	k.mu.Lock()
	silent := time.Since(k.heard) > alone
	k.mu.Unlock()
	if !silent {
		return nil, err
	}
	other, asked := k.ask(ctx)
	if asked != nil {
		return nil, errors.Join(err, asked)
	}
	return other, nil
}

func (k *Keeper) read(ctx context.Context) (*pki.Vault, error) {
	b, err := k.cfg.Store.Secret(ctx)
	if err != nil {
		return nil, err
	}
	return pki.ReadVault(b)
}

// note remembers what was read from the store.
func (k *Keeper) note(v *pki.Vault, list cluster.Registry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.vault == nil || k.vault.Generation != v.Generation {
		k.since = time.Now()
	}
	k.vault, k.list, k.heard = v, list, time.Now()
}

// apply tells this host's PostgreSQL.
func (k *Keeper) apply(ctx context.Context, done pki.TakenUp) error {
	db := k.cfg.Database
	if db == nil {
		return nil
	}
	if done.Passwords {
		held, err := pki.ReadHeld(k.cfg.Identity.Dir())
		if err != nil {
			return err
		}
		if err := db.Use(held.Passwords, held.Next); err != nil {
			return err
		}
	}
	if done.Trust {
		return db.ReloadCertificate(ctx)
	}
	return nil
}

// certificate gets a certificate for a new key, and puts both in place when
// every listener has had the time to learn of it.
func (k *Keeper) certificate(ctx context.Context, v *pki.Vault) error {
	k.mu.Lock()
	i := k.issued
	k.mu.Unlock()
	if i == nil || i.generation != v.CertGeneration {
		a, err := k.exchange(ctx, true)
		if err != nil {
			return err
		}
		if a.Cert == "" {
			return errors.New("no certificate was given, although one was asked for")
		}
		k.mu.Lock()
		k.issued = &issued{cert: []byte(a.Cert), generation: a.Vault.CertGeneration, at: time.Now()}
		k.mu.Unlock()
		return nil
	}
	if time.Since(i.at) < Settle {
		return nil
	}
	k.mu.Lock()
	k.issued = nil
	k.mu.Unlock()
	if err := k.cfg.Identity.InstallRefreshed(i.cert, i.generation); err != nil {
		return err
	}
	k.cfg.Log.Info("this host has a new key and certificate", "generation", i.generation)
	return k.apply(ctx, pki.TakenUp{Trust: true})
}

// acknowledge says what this host holds, when the vault does not say so.
func (k *Keeper) acknowledge(ctx context.Context, v *pki.Vault) error {
	if k.cfg.Store == nil {
		return nil // each question says it
	}
	held, err := pki.ReadHeld(k.cfg.Identity.Dir())
	if err != nil {
		return err
	}
	h, known := v.Holds[k.cfg.Identity.Node()]
	same := known && h.Generation == held.Generation && h.CertGeneration == held.CertGeneration && h.Store == k.cfg.StoreTrust()
	if same && k.cfg.Identity.HasKey(h.Key) && k.onlyKey(h.Key) {
		return nil
	}
	_, err = k.exchange(ctx, false)
	return err
}

// onlyKey says whether the list has no certificate of this host for another key.
func (k *Keeper) onlyKey(key []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.list.Other(k.cfg.Identity.Node(), pki.KeyDigest(key))
}

// Leads says whether this host's keeper takes the steps: it did at the last look.
func (k *Keeper) Leads() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.leads
}

// Vault is the record as this host last read it; nil before the first time.
func (k *Keeper) Vault() *pki.Vault {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.vault
}

// OpenCA opens the authority's key, with the kek of the newest generation.
func (k *Keeper) OpenCA(ctx context.Context) (*pki.CA, error) {
	v, err := k.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key from the store: %w", err)
	}
	held, err := pki.ReadHeld(k.cfg.Identity.Dir())
	if err != nil {
		return nil, err
	}
	if held.Generation < v.Generation {
		if err := k.Step(ctx); err != nil {
			return nil, err
		}
	}
	return k.cfg.Identity.OpenCA(v.Authority)
}

// State is what GET /v1/secrets answers.
type State struct {
	Generation uint64     `json:"generation"`
	Last       *pki.Order `json:"last,omitempty"`    // what made it
	Pending    *pki.Order `json:"pending,omitempty"` // ordered and not begun
	// Behind are the hosts that have not taken all of it up.
	Behind []string `json:"behind"`
	// Voters are the hosts whose voter starts again soon, to believe the new
	// authority.
	Voters []string `json:"voters"`
	// Up are the hosts that answer now.
	Up        []string `json:"up"`
	Spreading bool     `json:"spreading"` // PostgreSQL still has the passwords before
	Former    bool     `json:"former"`    // certificates of the former authority are believed, or carry its word
	Exposed   bool     `json:"exposed"`   // the join secret was known to a removed host
}

// Fresh is State after a look at the store, if that answers.
func (k *Keeper) Fresh(ctx context.Context) (State, bool) {
	if v, err := k.read(ctx); err == nil {
		if list, err := k.cfg.Store.Registry(ctx); err == nil {
			k.note(v, list)
		}
	}
	return k.State()
}

// State is how far the newest generation has come, as this host knows.
func (k *Keeper) State() (State, bool) {
	up := k.cfg.Up()
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.vault
	if v == nil {
		return State{}, false
	}
	behind := v.Behind(nodes(pki.Recipients(k.list)))
	if v.Generation == 0 {
		behind = nil
	}
	slices.Sort(behind)
	return State{Generation: v.Generation, Last: v.Last, Pending: v.Pending, Behind: behind, Voters: v.Voters(), Up: up, Spreading: v.Spreading,
		Former: v.Vouched, Exposed: len(v.Exposed) > 0}, true
}

// Waiting are the hosts that answer and have not taken all of it up yet.
func (s State) Waiting() []string {
	return slices.DeleteFunc(slices.Clone(s.Behind), func(n string) bool { return !slices.Contains(s.Up, n) })
}

func nodes(to []pki.Recipient) (names []string) {
	for _, r := range to {
		names = append(names, r.Node)
	}
	return names
}
