package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Instance is one PostgreSQL instance on this host. Its methods are safe for
// concurrent use. Operations that change the instance (Found, Start*, Stop,
// Promote, Rewind, Clone, ArchiveEnd, the steps of a restore) run one at a time:
// one that is called while another runs does nothing and returns ErrBusy.
type Instance struct {
	exclusive
	cfg       Config
	sup       Supervisor
	log       *slog.Logger
	socketDir string

	marksMu sync.Mutex
	confMu  sync.Mutex // the rendered files, cfg.Params, cfg.HBA and access
	access  access
	admits  atomic.Bool // see AdmitsOverSocket
	main    session     // the one persistent session
	drain   session     // open during a switchover
	probe   prober
	inForce inForceProbe
	waits   waitTracker
	major   func() int // of PostgreSQL's programs

	receiverWords receiverWords
	senderLog     senderLog

	furnisher furnisher
}

// New makes an instance; it touches nothing but the state and run directories.
func New(cfg Config, sup Supervisor) (*Instance, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	for _, d := range []string{cfg.StateDir, cfg.RunDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	i := &Instance{cfg: cfg, sup: sup, log: cfg.Logger, access: access{members: cfg.Members}}
	if i.socketDir, err = socketDirFor(cfg); err != nil {
		return nil, err
	}
	i.major = sync.OnceValue(func() int { m, _ := Major(cfg.BinDir); return m })
	i.main.name, i.drain.name, i.furnisher.session.name = "manada:agent", "manada:drain", furnishSession
	i.furnisher.times, i.furnisher.known = map[string][]time.Time{}, map[string]verified{}
	return i, nil
}

// Config is the configuration in use, defaults filled in.
func (i *Instance) Config() Config {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	return i.cfg
}

// SocketDir is where the unix socket lives.
func (i *Instance) SocketDir() string { return i.socketDir }

// Close ends the instance's sessions; PostgreSQL goes on.
func (i *Instance) Close() {
	i.main.close()
	i.drain.close()
	i.furnisher.session.close()
	i.inForce.close()
}

// Reconfigure takes new user parameters and HBA lines, renders them and reloads. What needs a restart shows in Observation.PendingRestart.
func (i *Instance) Reconfigure(ctx context.Context, params map[string]string, hba []string) error {
	if err := CheckParams(params); err != nil {
		return err
	}
	i.confMu.Lock()
	i.cfg.Params, i.cfg.HBA = params, hba
	changed, err := i.render()
	i.confMu.Unlock()
	if err != nil || !changed {
		return err
	}
	return i.reloadIfRunning(ctx)
}

// ReloadCertificate makes a running PostgreSQL read its certificate again.
func (i *Instance) ReloadCertificate(ctx context.Context) error { return i.reloadIfRunning(ctx) }

// reloadIfRunning sends SIGHUP to the postmaster.
func (i *Instance) reloadIfRunning(ctx context.Context) error {
	st, err := i.sup.Status(ctx)
	if err != nil {
		return fmt.Errorf("reload postgres: %w", err)
	}
	if !st.Running {
		return nil
	}
	// A signal before the postmaster has its handlers would kill it; from
	// "ready" or "standby" on, postmaster.pid says so.
	if err := i.waitHandlers(ctx, st.PID); err != nil {
		return fmt.Errorf("reload postgres: %w", err)
	}
	if err := syscall.Kill(st.PID, syscall.SIGHUP); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("reload postgres: %w", err)
	}
	return nil
}

// poll calls f every few milliseconds until it says true, fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, f func() (bool, error)) error {
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(every):
		}
	}
}
