package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"manada/internal/config"
	"manada/internal/herd"
	"manada/internal/pki"
	"manada/internal/store"
	"manada/internal/store/voter"
)

const (
	askWithin = 2 * time.Second
	askAgain  = 250 * time.Millisecond
)

// Entry makes a container's host a member of a herd.
//
// A second herd must never come to be (C6). So a host that belongs to none
// founds one only if it is the founder that everybody was told of, and every
// other voter that it knows has answered, in the same round, that it is new,
// too, and was told of the same founder. A host that finds a member joins
// through it, the founder as well: it may have lost its disk. Silence is no
// answer. Until it has joined, a new voter answers the others' question.
type Entry struct {
	Host    *Host
	Places  Places
	Config  *config.Config
	Account config.Account
	Version string
	Log     *slog.Logger
}

// Enter returns when this host is a member, or when ctx ends.
func (e *Entry) Enter(ctx context.Context) error {
	if err := e.Places.KeepSecret(e.Host); err != nil {
		return err
	}
	if !herd.Member(e.Config) {
		if err := e.await(ctx); err != nil {
			return err
		}
	}
	if _, err := herd.CheckIdentity(e.Config); err != nil {
		return err
	}
	return e.settle()
}

// fresh says why this host is not new although it has no identity; nil when it
// is new.
func (e *Entry) fresh() error {
	c := e.Config
	if c.HasIdentity() {
		return errors.New("it has an identity")
	}
	high, err := store.OpenHighWater(filepath.Join(c.StateDir(), "store-highwater.json"))
	if err != nil {
		return err
	}
	if n := high.Marks().Epoch; n > 0 {
		return fmt.Errorf("it has obeyed epoch %d of a herd", n)
	}
	for _, dir := range []string{c.PGData(), filepath.Join(c.StoreDir(), "etcd")} {
		entries, err := os.ReadDir(dir)
		if err == nil && len(entries) > 0 {
			return fmt.Errorf("%s is not empty", dir)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// await asks round after round until this host has founded or joined.
func (e *Entry) await(ctx context.Context) error {
	h := e.Host
	m := pki.NewMeeting(pki.Stranger{Cluster: h.Cluster, Node: h.Node, Founder: h.Founder}, e.Places.secret(h), e.Log)
	notFresh := e.fresh()
	stop := func() {}
	if notFresh == nil && h.Voter() {
		var err error
		if stop, err = e.serve(ctx, m); err != nil {
			return err
		}
		defer func() { stop() }()
	}
	said := ""
	for {
		why, err := e.round(ctx, m, notFresh, stop)
		if why == "" || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if why != said {
			said = why
			e.Log.Info("not a member of a herd yet", "why", why)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(askAgain):
		}
	}
}

// serve answers other new hosts where the agent will listen later; stop ends
// that and returns when the port is free again.
func (e *Entry) serve(ctx context.Context, m *pki.Meeting) (stop func(), err error) {
	addr := e.Config.ListenOn(e.Config.Ports.Peer)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for other new hosts on %s: %w", addr, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Serve(ctx, l); err != nil {
			e.Log.Error("other new hosts are not answered", "error", err.Error())
		}
	})
	return func() { cancel(); wg.Wait() }, nil
}

// round asks every partner once and does what follows; why says what is waited
// for, and is empty when the waiting is over.
func (e *Entry) round(ctx context.Context, m *pki.Meeting, notFresh error, stop func()) (why string, err error) {
	found := e.ask(ctx, m)
	if len(found.members) > 0 {
		return e.join(ctx, found.members)
	}
	switch {
	case !e.Host.Founds():
		return "no member of a herd answers" + found.text(), nil
	case notFresh != nil:
		return fmt.Sprintf("it may found no herd: %v; and no member of one answers%s", notFresh, found.text()), nil
	case len(found.silent) > 0:
		return "to found a herd every other voter must say that it is new" + found.text(), nil
	}
	stop()
	return "", e.found()
}

func (e *Entry) found() error {
	e.Log.Info("founding the herd: every other voter is new, too", "cluster", e.Host.Cluster)
	return herd.Found(e.Config, e.Account)
}

func (e *Entry) join(ctx context.Context, members []string) (why string, err error) {
	secret, err := e.Places.secret(e.Host)()
	if err != nil {
		return "", err
	}
	via, err := herd.Join(ctx, e.Config, e.Account, members, secret, e.Version)
	if err != nil {
		return "cannot join yet: " + err.Error(), nil
	}
	e.Log.Info("joined the herd", "cluster", e.Host.Cluster, "via", via)
	// A voter's data without the identity that went with it votes no more: it
	// joins as a new learner. The herd has a quorum, or it had not let us in.
	if e.Host.Voter() {
		return "", voter.Discard(e.Config.StoreDir())
	}
	return "", nil
}

// answers are those of one round.
type answers struct {
	members []string // addresses
	silent  []string // why each other is neither a member nor new
}

func (a answers) text() string {
	if len(a.silent) == 0 {
		return ""
	}
	return ": " + strings.Join(a.silent, "; ")
}

func (e *Entry) ask(ctx context.Context, m *pki.Meeting) answers {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	partners := e.Host.Partners
	type reply struct {
		who pki.Stranger
		err error
	}
	replies := make([]reply, len(partners))
	var wg sync.WaitGroup
	for i, addr := range partners {
		wg.Go(func() { replies[i].who, replies[i].err = m.Ask(ctx, addr) })
	}
	wg.Wait()
	var out answers
	names := []string{e.Host.Node}
	for i, r := range replies {
		switch {
		case errors.Is(r.err, pki.ErrMember):
			out.members = append(out.members, partners[i])
		case r.err != nil:
			out.silent = append(out.silent, brief(partners[i], r.err))
		case r.who.Founder != e.Host.Founder:
			out.silent = append(out.silent, fmt.Sprintf("%s was told that %q founds, not %q", partners[i], r.who.Founder, e.Host.Founder))
		case slices.Contains(names, r.who.Node):
			out.silent = append(out.silent, fmt.Sprintf("%s is %s, as another one", partners[i], r.who.Node))
		default:
			names = append(names, r.who.Node)
		}
	}
	return out
}

// brief is an error in few words: it is logged when it changes.
func brief(addr string, err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return addr + " has no address yet"
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return addr + " does not answer"
	}
	return fmt.Sprintf("%s: %v", addr, err)
}

// settle keeps what a member must know: passwords of a herd that has only been
// founded are the given ones, and the application's log-in is where a proxy
// finds it.
func (e *Entry) settle() error {
	if e.Config.Kind() == pki.KindProxy {
		return nil
	}
	if herd.Founding(e.Config) && !firstRunKnown(e.Config) {
		if err := e.givePasswords(); err != nil {
			return err
		}
		if err := writeFirstRun(e.Config, firstRun{Schema: 1, App: App{User: e.Host.App.User, Database: e.Host.App.Database, Monitor: e.Host.App.Monitor}, Scripts: e.Places.Scripts}); err != nil {
			return err
		}
	}
	secrets, err := pki.ReadSecrets(e.Config.IdentityDir())
	if err != nil {
		return err
	}
	app := e.Host.App
	if given := app.Password; given != "" && given != secrets[app.User] {
		e.Log.Warn("$POSTGRESQL_PASSWORD is not the one with which the herd was founded, and changes nothing: use ALTER ROLE", "role", app.User)
	}
	app.Password = secrets[app.User]
	return e.Places.KeepApp(app)
}

// givePasswords puts what was given in the place of what was made up, before
// anything has started.
func (e *Entry) givePasswords() error {
	dir := e.Config.IdentityDir()
	secrets, err := pki.ReadSecrets(dir)
	if err != nil {
		return err
	}
	var chosen []string
	if e.Host.Superuser != "" {
		secrets["postgres"] = e.Host.Superuser
		chosen = append(chosen, "postgres")
	}
	if a := e.Host.App; a.User != "" {
		if a.Password == "" {
			a.Password = pki.NewPassword()
		}
		secrets[a.User] = a.Password
		chosen = append(chosen, a.User) // the application was told of it
	}
	if m := e.Host.App.Monitor; m != "" {
		secrets[m] = e.Host.JoinSecret
		chosen = append(chosen, m)
		if secrets[m] == "" {
			secrets[m] = pki.NewPassword()
		}
	}
	return pki.GiveSecrets(dir, secrets, chosen)
}
