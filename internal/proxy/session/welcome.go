package session

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/scram"
	"manada/internal/proxy/wire"
)

// welcome is what clients are told at their log-in who begin with the same settings.
type welcome struct {
	greeting []byte
	settings map[string]string
	shown    *conv.Report // the same
	startup  *conv.Startup
}

type welcomeKey struct {
	account, params, stamp string
	standby                bool // PostgreSQL tells what it is
}

// welcomes are those of clients that differ in their application_name alone.
type welcomes struct {
	greeting []byte
	settings map[string]string
	named    map[string]*welcome
	standby  bool
}

// maxWelcomes and maxNames bound them: settings and names are the clients' to invent.
const (
	maxWelcomes = 1000
	maxNames    = 100
)

// flat is one text of parameters, which hold no zero bytes, whatever the order in which
// they came: some drivers have another one each time.
func flat(params []wire.Param) string {
	params = slices.Clone(params)
	slices.SortStableFunc(params, func(a, b wire.Param) int { return cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	var b []byte
	for _, p := range params {
		b = append(append(append(append(b, p.Name...), 0), p.Value...), 0)
	}
	return string(b)
}

// welcomeOf is what the client is told of its settings: PostgreSQL is asked, by a
// log-in with them, once for all clients of the account that bring the same.
func (c *client) welcomeOf(ctx context.Context, settings []wire.Param, keys scram.Keys) (*welcome, error) {
	params, name := withoutName(c.serverParams())
	k := welcomeKey{c.user + "\x00" + c.startup.Database(), flat(params), c.secret.Rights.Stamp,
		c.port == ReadOnly && len(c.Reader.Usable(c.Topology.Current())) > 0}
	p := c.pools
	p.mu.Lock()
	if known := p.welcomes[k]; known != nil {
		defer p.mu.Unlock()
		return known.of(name, settings), nil
	}
	p.mu.Unlock()
	var w *welcomes
	var err error
	c.guest.Beside(func() { w, err = c.askWelcome(ctx, k, params, keys) })
	if err != nil {
		return nil, c.connectError(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.of(name, settings), nil
}

// awaitPrimary waits for a primary to come, within what is left of ConnectWait, also where
// nothing has to be asked of it: libpq goes on to the next host when there is none in time.
func (c *client) awaitPrimary(ctx context.Context) (err error) {
	there := func(context.Context) error {
		if c.port == ReadWrite && !c.Topology.Current().HasPrimary() {
			return errNoNode
		}
		return nil
	}
	if there(ctx) != nil {
		c.guest.Beside(func() { err = c.retry(ctx, there) })
	}
	if err != nil {
		return c.connectError(err)
	}
	return nil
}

// flight is a log-in at PostgreSQL that others wait for.
type flight struct {
	done chan struct{}
	got  *welcomes // nil: it has failed, perhaps for reasons of its own client
}

// askWelcome asks PostgreSQL, or waits for another client that does. Where that has
// failed each asks for itself.
func (c *client) askWelcome(ctx context.Context, k welcomeKey, params []wire.Param, keys scram.Keys) (got *welcomes, err error) {
	p := c.pools
	p.mu.Lock()
	known, f := p.welcomes[k], p.flights[k]
	mine := known == nil && f == nil
	if mine {
		f = &flight{done: make(chan struct{})}
		p.flights[k] = f
	}
	p.mu.Unlock()
	switch {
	case known != nil:
		return known, nil
	case mine:
		defer func() { p.landed(k, f, got) }()
	default:
		if got = c.join(ctx, f); got != nil {
			return got, nil
		}
	}
	var b *pool.Backend
	var d destination
	err = c.retry(ctx, func(ctx context.Context) (err error) {
		b, d, err = c.open(ctx, c.Topology.Current(), pool.Login{Params: params, Keys: &keys})
		return err
	})
	if err != nil {
		return nil, err
	}
	b.Conn.Close()
	return &welcomes{b.Greeting, b.Settings, map[string]*welcome{}, !d.primary}, nil
}

// join waits for another client's log-in, within what is left of ConnectWait; nil: it
// has failed, or takes too long.
func (c *client) join(ctx context.Context, f *flight) *welcomes {
	start := time.Now()
	defer func() { c.waited += time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, c.options().ConnectWait-c.waited)
	defer cancel()
	select {
	case <-f.done:
		return f.got
	case <-ctx.Done():
		return nil
	}
}

// landed tells those who wait for a log-in what it got, and keeps it for others.
func (p *pools) landed(k welcomeKey, f *flight, got *welcomes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flights, k)
	if f.got = got; got != nil && got.standby == k.standby {
		if len(p.welcomes) >= maxWelcomes {
			clear(p.welcomes)
		}
		p.welcomes[k] = got
	}
	close(f.done)
}

// withoutName takes application_name out of a client's settings, which may be another
// one for each, where PostgreSQL would take it as it is.
func withoutName(params []wire.Param) (others []wire.Param, name string) {
	for _, p := range params {
		if p.Name == appName && len(p.Value) < 64 && !strings.ContainsFunc(p.Value, func(r rune) bool { return r < ' ' || r > '~' }) {
			name = p.Value
			continue
		}
		others = append(others, p)
	}
	return others, name
}

const appName = "application_name"

// of is what one is told that has this name and these settings; "" is the name of the
// log-in. It is called with pools.mu held.
func (w *welcomes) of(name string, settings []wire.Param) *welcome {
	if one := w.named[name]; one != nil {
		return one
	}
	if len(w.named) >= maxNames {
		clear(w.named)
	}
	one := &welcome{greeting: w.greeting, settings: w.settings, startup: conv.NewStartup(settings)}
	if name != "" {
		one.settings = maps.Clone(w.settings)
		one.settings[appName] = name
		one.greeting = wire.AppendParameterStatus(w.greeting[:len(w.greeting):len(w.greeting)], appName, name)
	}
	one.shown = conv.NewReport(one.settings)
	w.named[name] = one
	return one
}
