package cli

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"manada/internal/config"
	"manada/internal/container"
	"manada/internal/process"
)

// procCommands are the processes that `manada run` starts. They are hidden:
// nobody types them.
func (a *app) procCommands() []*cobra.Command {
	return []*cobra.Command{
		a.procCmd("store", "the voter of the store", func(ctx context.Context, c *config.Config, log *slog.Logger, _ *ending) error {
			return process.Store(ctx, c, log)
		}),
		a.procCmd("agent", "the agent", func(ctx context.Context, c *config.Config, log *slog.Logger, e *ending) error {
			return process.Agent(ctx, c, Version(), log, e.hostStops)
		}),
		a.procCmd("backupd", "the repository", func(ctx context.Context, c *config.Config, log *slog.Logger, _ *ending) error {
			return runBackupd(ctx, c, log)
		}),
		a.procCmd("first-run", "what a new database gets", func(ctx context.Context, c *config.Config, log *slog.Logger, _ *ending) error {
			return container.FirstRun(ctx, c, log)
		}),
		a.guardianCmd(), a.archivePushCmd(), a.archiveGetCmd(), a.recoveryEndCmd(), a.backupWorkerCmd(),
	}
}

// proxyProcess is the proxy, which `manada run` starts as `manada proxy --accepted FILE`.
// Without that flag this is the command for people.
func (a *app) proxyProcess() *cobra.Command {
	return a.procCmd("proxy", "the proxy", func(ctx context.Context, c *config.Config, log *slog.Logger, e *ending) error {
		return process.Proxy(ctx, c, Version(), log, e.changed)
	})
}

type procFunc func(ctx context.Context, c *config.Config, log *slog.Logger, e *ending) error

// ending is what signals tell a process.
type ending struct {
	term    atomic.Bool         // it ends because the whole host stops
	changed chan *config.Config // what was accepted meanwhile; nil: the process takes nothing while it runs
}

// hostStops says whether the whole host stops (SIGTERM), not this process alone.
func (e *ending) hostStops() bool { return e.term.Load() }

func (a *app) procCmd(name, what string, run procFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: "Process: " + what, Hidden: true, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.oneHost()
			if err != nil {
				return err
			}
			log := newLogger(a.err, cfg.Log).With("node", cfg.Node)
			e := &ending{}
			if name == "proxy" {
				e.changed = make(chan *config.Config)
			}
			ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context()))
			defer cancel()
			go e.follow(ctx, cancel, name == "agent", a.oneHost, log)
			if err := run(ctx, cfg, log, e); err != nil {
				return err
			}
			return nil
		},
	}
	a.acceptedFlag(cmd)
	return cmd
}

// acceptedFlag takes the copy of the configuration with which the host runs.
func (a *app) acceptedFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.accepted, "accepted", "", "`FILE` that holds the contents of the configuration")
}

// follow ends the process at SIGTERM and SIGINT. At SIGHUP, which comes when a changed
// configuration was accepted, an agent ends too, alone: PostgreSQL goes on, and the agent that
// is started in its place renders what changed. A proxy is given it while it runs. The
// other processes keep what they have until they are restarted.
func (e *ending) follow(ctx context.Context, cancel context.CancelFunc, ends bool, load func() (*config.Config, error), log *slog.Logger) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	again := make(chan struct{}, 1)
	go func() { // one at a time, so that the newest counts
		for range again {
			e.reload(ctx, load, log)
		}
	}()
	for s := range ch {
		switch {
		case s == syscall.SIGHUP && e.changed != nil:
			select {
			case again <- struct{}{}:
			default: // what is to be read is not read yet
			}
			continue
		case s == syscall.SIGHUP && !ends:
			log.Info("configuration changed: restart this process to use it")
			continue
		case s == syscall.SIGHUP:
			log.Info("restarting to use the changed configuration")
		}
		e.term.Store(s == syscall.SIGTERM)
		cancel()
	}
}

// reload gives the process the configuration as it was accepted.
func (e *ending) reload(ctx context.Context, load func() (*config.Config, error), log *slog.Logger) {
	c, err := load()
	if err != nil {
		log.Error("the accepted configuration cannot be read", "error", err.Error())
		return
	}
	select {
	case e.changed <- c:
	case <-ctx.Done():
	}
}

func (a *app) guardianCmd() *cobra.Command {
	return &cobra.Command{
		Use: "guardian", Short: "Process: the parent of the postmaster", Hidden: true, DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			// Until the end: a second signal must not kill it before PostgreSQL is gone.
			ctx, stop := signal.NotifyContext(context.WithoutCancel(c.Context()), syscall.SIGTERM)
			defer stop()
			return process.Guardian(ctx, args, Version(), newLogger(a.err, config.Log{Level: "info"}))
		},
	}
}

// backupWorkerCmd makes one backup for the agent of the primary, which reads
// its progress.
func (a *app) backupWorkerCmd() *cobra.Command {
	var request, socket string
	c := &cobra.Command{
		Use: "backup-worker", Short: "Process: one backup", Hidden: true, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.oneHost()
			if err != nil {
				return err
			}
			var q process.BackupRequest
			if err := json.Unmarshal([]byte(request), &q); err != nil {
				return usage("", "--request: %w", err)
			}
			log := newLogger(a.err, cfg.Log).With("node", cfg.Node)
			return process.BackupWorker(c.Context(), cfg, q, socket, a.out, log)
		},
	}
	a.acceptedFlag(c)
	c.Flags().StringVar(&request, "request", `{"type":"incr"}`, "what is asked for, `JSON`")
	c.Flags().StringVar(&socket, "socket", "", "`DIR` of PostgreSQL's socket")
	return c
}
