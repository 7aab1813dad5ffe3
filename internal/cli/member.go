package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/herd"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

// caller asks hosts of the herd, with the identity of a host on this machine.
type caller struct {
	place  config.Place
	hosts  []*config.Config // of this machine
	id     *pki.Identity
	target []target
}

// own is this machine's host when it has one: its answer is preferred.
func (c *caller) own() string {
	if len(c.hosts) == 1 && c.hosts[0].HasAgent() {
		return c.hosts[0].Node
	}
	return ""
}

// target is a host to be asked; node is empty when its name is not known.
type target struct{ node, addr string }

// find finds the herd; one that was named and is not there is a mistake of usage.
func (a *app) find() (config.Place, error) {
	place, err := config.Find(a.where)
	if err != nil && !errors.Is(err, config.ErrNoHerd) {
		return place, fail(exitUsage, "name the file of a host with -c FILE, or the folder of a herd with --dir DIR", "%w", err)
	}
	return place, err
}

// open finds the herd and an identity to ask with.
func (a *app) open() (*caller, error) { return a.openWith(false) }

// openToRead is open for commands that only ask: they need where the host keeps
// its identity and nothing else, so a mistake in its file does not blind it.
func (a *app) openToRead() (*caller, error) { return a.openWith(true) }

func (a *app) openWith(tolerant bool) (*caller, error) {
	place, err := a.find()
	if err != nil {
		return nil, err
	}
	c := &caller{place: place}
	var mistakes config.Problems
	for _, f := range place.Files {
		env := a.environ
		if len(place.Files) > 1 {
			env = nil // overrides are one host's
		}
		cfg, err := config.Load(f, env)
		if ps, ok := errors.AsType[config.Problems](err); ok && tolerant {
			mistakes = append(mistakes, ps...)
		} else if err != nil {
			return nil, err
		}
		c.hosts = append(c.hosts, cfg)
	}
	err = c.prepare()
	switch {
	case len(mistakes) > 0 && err != nil:
		return nil, mistakes // perhaps that is why
	case len(mistakes) > 0:
		a.say("note: this answer does not depend on it, but %s (manada config check shows all)", mistakes[0])
	}
	return c, err
}

// prepare loads the best identity and lists whom to ask, this machine's own
// hosts first.
func (c *caller) prepare() error {
	seen := map[string]bool{}
	add := func(node, addr string) {
		if !seen[addr] {
			seen[addr] = true
			c.target = append(c.target, target{node, addr})
		}
	}
	var why error
	for _, cfg := range c.hosts {
		id, err := pki.Load(cfg.IdentityDir())
		if err != nil {
			why = cannotLoad(cfg, err)
			continue
		}
		if c.id == nil || c.id.Kind() == pki.KindProxy {
			c.id = id
		}
		if cfg.HasAgent() {
			add(cfg.Node, cfg.AdvertiseOn(cfg.Ports.Peer))
		}
	}
	if c.id == nil {
		return why
	}
	for _, cfg := range c.hosts {
		for node, addr := range herd.KnownPeers(cfg) {
			add(node, addr)
		}
		for _, addr := range cfg.Join.Addresses {
			add("", addr)
		}
	}
	return nil
}

func cannotLoad(cfg *config.Config, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fail(exitFailed, "run it as root or as the user that runs Manada:  sudo -u "+cfg.User+" manada ...", "%w", err)
	case errors.Is(err, os.ErrNotExist):
		return fail(exitFailed, "manada init  founds a herd on its first host, manada join  makes another host a member", "host %s belongs to no herd yet (%s holds no identity)", cfg.Node, cfg.IdentityDir())
	}
	return err
}

func (c *caller) client() *peer.Client {
	return &peer.Client{TLS: func(node string) *tls.Config {
		if node == "" {
			return c.id.ClientTLSAny()
		}
		return c.id.ClientTLS(node)
	}}
}

// ownHost is how long the answer of this very host is waited for when another one
// has answered already.
const ownHost = 200 * time.Millisecond

// read asks every host at once and takes the answer of this very host, else the
// first: one that is dead or hangs costs nothing. It returns who answered.
func read[T any](ctx context.Context, c *caller, v verb.Verb, within time.Duration) (T, target, error) {
	type answer struct {
		v   T
		t   target
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ch := make(chan answer, len(c.target))
	for _, t := range c.target {
		go func() {
			a := answer{t: t}
			a.err = c.client().Call(ctx, t.addr, t.node, v, nil, &a.v)
			ch <- a
		}()
	}
	var errs []error
	var first *answer
	var patience <-chan time.Time
	own := c.own()
	for range c.target {
		select {
		case a := <-ch:
			switch {
			case a.err != nil && a.t.node == own && first != nil:
				return first.v, first.t, nil
			case a.err != nil:
				errs = append(errs, a.err)
				if a.t.node == own {
					own = ""
				}
			case own == "" || a.t.node == own:
				return a.v, a.t, nil
			case first == nil:
				first, patience = &a, time.After(ownHost)
			}
			continue
		case <-patience:
		}
		break
	}
	if first != nil {
		return first.v, first.t, nil
	}
	var zero T
	return zero, target{}, c.silent(errs)
}

// silent says that nobody answered, and why: a refusal of a living host counts
// more than the silence of a dead one.
func (c *caller) silent(errs []error) error {
	for _, err := range errs {
		var p *peer.Error
		if errors.As(err, &p) {
			return err
		}
	}
	hint := "manada up  starts it"
	if c.place.Dir == "" {
		hint = "systemctl status manada  on its hosts; their logs are in data_dir/log"
	}
	var b strings.Builder
	for _, err := range errs {
		fmt.Fprintf(&b, "\n  %v", err)
	}
	return fail(exitFailed, hint, "no host of the herd answers:%s", b.String())
}

// write asks one host that answers. Only then the outcome can be unknown.
func (c *caller) write(ctx context.Context, v verb.Verb, in, out any) error {
	_, t, err := read[cluster.Status](ctx, c, verb.Status, 2*time.Second)
	if err != nil {
		return err
	}
	return c.client().Call(ctx, t.addr, t.node, v, in, out)
}

func (c *caller) status(ctx context.Context) (cluster.Status, error) {
	s, _, err := read[cluster.Status](ctx, c, verb.Status, 900*time.Millisecond)
	return s, err
}
