package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"manada/internal/config"
	"manada/internal/container"
	"manada/internal/durable"
	"manada/internal/herd"
	"manada/internal/pki"
	"manada/internal/process"
	"manada/internal/supervisor"
)

func (a *app) runCmd() *cobra.Command {
	var mirror bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run this host: start what its file names and keep it running",
		Long: `Run this host: start the processes that its configuration names (store, backupd,
agent, proxy), each with its own log file in data_dir/log, and start again what
dies. Started by root it becomes the user that the file names. It is PID 1 in a
container and tells systemd when it is ready.

SIGTERM stops the host in order: a primary hands over to a synchronous standby
first, then PostgreSQL stops cleanly, then the rest. At SIGHUP
the changed file is judged, by PostgreSQL, too; if it is right the agent starts
again with it: PostgreSQL goes on and reloads its own, and the proxy takes it
without ending a client; the other processes keep what they have. A file with
mistakes is refused (M-C03) and the old contents stay in use, until it is
mended: that needs no second SIGHUP. A host that belongs to no herd yet joins
one when the file has a section join; else see manada init and manada join.` + exits(exitFailed, exitUsage),
		Example: "  manada run -c /etc/manada/manada.yaml",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.run(c.Context(), mirror) },
	}
	c.Flags().BoolVar(&mirror, "mirror-logs", os.Getpid() == 1, "print the logs of all processes too")
	return c
}

// oneHost loads and checks the configuration of the one host that is meant.
func (a *app) oneHost() (*config.Config, error) {
	place, err := a.find()
	if errors.Is(err, config.ErrNoHerd) {
		return nil, fail(exitUsage, "write "+config.SystemFile+" (deploy/manada.example.yaml explains every key), or name the file with -c FILE", "this host has no configuration: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if len(place.Files) > 1 {
		return nil, usage("name one with -c FILE: "+strings.Join(place.Files, ", "), "%s has several hosts", place.Dir)
	}
	file, err := filepath.Abs(place.Files[0])
	if err != nil {
		return nil, err
	}
	c, err := a.load(file)
	if err != nil {
		return nil, loadFailure(err)
	}
	for _, w := range c.Warnings {
		a.say("warning: %s", w)
	}
	return c, nil
}

func (a *app) load(file string) (*config.Config, error) {
	if a.accepted != "" {
		return config.LoadAccepted(file, a.accepted, a.environ)
	}
	return config.Load(file, a.environ)
}

// loadFailure makes every failure to read a configuration one of usage.
func loadFailure(err error) error {
	var ps config.Problems
	if errors.As(err, &ps) {
		return err
	}
	return fail(exitUsage, "", "%w", err)
}

func (a *app) run(ctx context.Context, mirror bool) error {
	c, err := a.oneHost()
	if err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return err
	}
	account, err := c.RunAs()
	if err != nil {
		return err
	}
	exe, err := program(account)
	if err != nil {
		return err
	}
	if err := herd.Prepare(c, account); err != nil {
		return err
	}
	if err := become(account); err != nil {
		return err
	}
	for _, dir := range []string{c.IdentityDir(), c.StateDir()} {
		if err := durable.Sweep(dir); err != nil {
			a.say("warning: what a crash left unfinished in %s stays: %v", dir, err)
		}
	}
	if f, ok := a.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		mirror = true
	}
	p := &accepter{first: c, environ: a.environ, account: account}
	if _, err := p.accept(ctx); err != nil {
		return loadFailure(err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	go herd.KeepPorts(life, c)
	err = supervisor.Run(context.WithoutCancel(ctx), a.supervisorConfig(c, exe, p, mirror))
	var f *failure
	if err != nil && !errors.As(err, &f) {
		// The signal that ended it was obeyed; what went wrong meanwhile counts.
		return fail(exitFailed, "", "%w", err)
	}
	return err
}

// program is the path of this program, which the account must be able to run:
// PostgreSQL calls it to archive.
func program(account config.Account) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if err := account.CanExecute(exe); err != nil {
		return "", fail(exitUsage, "install it where everybody can run it:  install -m 755 "+exe+" /usr/local/bin/", "%w", err)
	}
	return exe, nil
}

// become gives up root's rights for good.
func become(a config.Account) error {
	if os.Geteuid() != 0 || a.UID == 0 {
		return nil
	}
	groups := a.Groups
	if !slices.Contains(groups, a.GID) {
		groups = append(groups, a.GID)
	}
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(a.GID), syscall.Setuid(a.UID)); err != nil {
		return fmt.Errorf("become user %s: %w", a.Name, err)
	}
	return nil
}

func (a *app) supervisorConfig(c *config.Config, exe string, p *accepter, mirror bool) supervisor.Config {
	log := newLogger(a.err, c.Log)
	s := supervisor.Config{
		Children: children(c, exe), LockFile: c.LockFile(), Socket: c.ControlSocket(), LogDir: c.LogDir(),
		MaxSize: int64(c.Log.MaxSize), Keep: c.Log.Keep, Env: childEnv(a.environ, p.account), Log: log, Signals: signals(),
		Before:     func(ctx context.Context) error { return joinFirst(ctx, c, p.account, log) },
		Accept:     p.reload,
		AwaitReady: func(ctx context.Context) { awaitReady(ctx, c) },
	}
	if mirror {
		s.Mirror = a.err
	}
	if c.Has(config.Database) {
		s.AfterStop = func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // detached: the command's own context has ended
			defer cancel()
			return herd.EndDatabase(ctx, c)
		}
	}
	return s
}

// children are the processes of the host in the order in which they start.
func children(c *config.Config, exe string) []supervisor.Child {
	var all []supervisor.Child
	add := func(on bool, name string, stop time.Duration) {
		if on {
			all = append(all, supervisor.Child{Name: name, Command: []string{exe, name, "-c", c.File, "--accepted", c.AcceptedFile()}, StopWithin: stop})
		}
	}
	add(c.Has(config.Store), "store", 20*time.Second)
	add(c.Has(config.Repository), "backupd", 15*time.Second)
	add(c.HasAgent(), "agent", time.Minute) // it stops PostgreSQL
	add(c.Has(config.ProxyRole), "proxy", 15*time.Second)
	if add(container.Pending(c), "first-run", 5*time.Second); container.Pending(c) {
		all[len(all)-1].Once = true
	}
	return all
}

// childEnv leaves out what is meant for the supervisor alone.
func childEnv(environ []string, a config.Account) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains([]string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "MANADA_CONFIG", process.RunVariable, "USER", "LOGNAME"}, name)
	})
	return append(env, process.RunVariable+"="+rand.Text(), "USER="+a.Name, "LOGNAME="+a.Name)
}

func signals() <-chan syscall.Signal {
	in := make(chan os.Signal, 4)
	out := make(chan syscall.Signal, 4)
	signal.Notify(in, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		for s := range in {
			out <- s.(syscall.Signal)
		}
	}()
	return out
}

// joinFirst makes sure that the host belongs to a herd: it joins with what the
// section join says, and waits for a member to answer.
func joinFirst(ctx context.Context, c *config.Config, account config.Account, log *slog.Logger) error {
	if herd.Member(c) {
		_, err := herd.CheckIdentity(c)
		return err
	}
	if len(c.Join.Addresses) == 0 {
		return fail(exitFailed, "manada init -c "+c.File+"  on the first host of a new herd, else  manada join ADDRESS -c "+c.File,
			"host %s belongs to no herd: %s holds no identity", c.Node, c.IdentityDir())
	}
	secret, err := joinSecret(c)
	if err != nil {
		return err
	}
	said := ""
	for {
		via, err := herd.Join(ctx, c, account, c.Join.Addresses, secret, Version())
		if err == nil {
			log.Info("joined the herd", "cluster", c.Cluster, "via", via)
			return nil
		}
		if final(err) || ctx.Err() != nil {
			return err
		}
		if s := err.Error(); s != said {
			said = s
			log.Warn("cannot join the herd yet; trying again", "error", s)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// final says whether trying again to join is pointless: a member refused us.
func final(err error) bool {
	var j *pki.JoinError
	return errors.As(err, &j) && !errors.Is(err, pki.ErrBusy) && !errors.Is(err, pki.ErrNotNow)
}

func joinSecret(c *config.Config) (string, error) {
	file := c.Join.TokenFile
	if file == "" {
		file = c.Join.SecretFile
	}
	if file == "" {
		return "", fail(exitUsage, "manada node token  on a member makes one; set join.token_file", "join.addresses is set, but neither join.token_file nor join.secret_file")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read join secret: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// newLogger writes as the configuration says.
func newLogger(w io.Writer, l config.Log) *slog.Logger {
	o := &slog.HandlerOptions{}
	var level slog.Level
	if level.UnmarshalText([]byte(l.Level)) == nil {
		o.Level = level
	}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
