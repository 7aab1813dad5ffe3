package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrKilled says that a process did not stop in time and was killed.
var ErrKilled = errors.New("did not stop in time and was killed")

// Run starts the children and keeps them running until a signal or the end of
// ctx asks it to stop; then it stops them in the reverse order and returns. It
// must be called once in a process, which may start nothing else (see the
// package comment).
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	lockFile, err := lock(cfg.LockFile)
	if err != nil {
		return err
	}
	defer lockFile.Close()
	s := &supervisor{cfg: cfg, since: time.Now(), procs: newProcs(), stop: make(chan string, 1), reloads: make(chan chan error)}
	defer s.procs.close()
	for _, c := range cfg.Children {
		ch, err := newChild(c, cfg, s.procs)
		if err != nil {
			return err
		}
		s.children = append(s.children, ch)
	}
	if cfg.Socket != "" {
		close, err := s.serve(cfg.Socket)
		if err != nil {
			return err
		}
		defer close()
	}
	return s.run(ctx)
}

type supervisor struct {
	cfg      Config
	since    time.Time
	procs    *procs
	children []*child
	stop     chan string // asked to stop, and why
	reloads  chan chan error
	ending   stopFlag
	refused  bool // the configuration, when it last changed; only wait knows
}

func (s *supervisor) run(ctx context.Context) error {
	if why, err := s.before(ctx); why != "" || err != nil {
		s.ending.set()
		if err == nil {
			s.cfg.Log.Info("stopping before anything was started", "why", why)
		}
		return err
	}
	for _, c := range s.children {
		go c.loop()
	}
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.ready(alive)
	why := s.wait(ctx)
	s.ending.set()
	cancel()
	notify("STOPPING=1")
	s.cfg.Log.Info("stopping", "why", why)
	return s.stopAll()
}

// before runs the caller's preparation; why is not empty when a signal came
// first.
func (s *supervisor) before(ctx context.Context) (why string, err error) {
	if s.cfg.Before == nil {
		return "", nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.cfg.Before(ctx) }()
	for {
		select {
		case err := <-done:
			return "", err
		case why := <-s.stop:
			cancel()
			<-done
			return why, nil
		case sig := <-s.cfg.Signals:
			if sig != syscall.SIGHUP {
				cancel()
				<-done
				return sig.String(), nil
			}
		}
	}
}

// ready tells systemd when every child was started once and the host serves.
func (s *supervisor) ready(ctx context.Context) {
	for _, c := range s.children {
		if c.Once {
			continue
		}
		select {
		case <-c.started:
		case <-c.done:
			return
		case <-ctx.Done():
			return
		}
	}
	if s.cfg.AwaitReady != nil {
		s.cfg.AwaitReady(ctx)
	}
	if !s.ending.isSet() {
		notify("READY=1\nSTATUS=runs " + strings.Join(s.names(), ", "))
	}
}

func (s *supervisor) names() []string {
	var n []string
	for _, c := range s.children {
		n = append(n, c.Name)
	}
	return n
}

// wait returns why it is time to stop; it passes reloads on.
func (s *supervisor) wait(ctx context.Context) string {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx).Error()
		case why := <-s.stop:
			return why
		case sig := <-s.cfg.Signals:
			if sig != syscall.SIGHUP {
				return sig.String()
			}
			_ = s.reload(true) // it is in the log
		case done := <-s.reloads:
			done <- s.reload(true)
		case <-tick.C:
			if s.refused {
				_ = s.reload(false)
			}
		}
	}
}

// reload passes a reload on, unless the changed configuration is refused.
func (s *supervisor) reload(asked bool) error {
	if s.cfg.Accept != nil {
		changed, err := s.cfg.Accept(asked)
		if err != nil {
			s.refused = true
			s.cfg.Log.Error("the changed configuration has mistakes: the old one stays in use, and the file is looked at again when it changes", "error", err.Error())
			return err
		}
		if !changed && !asked {
			return nil
		}
		s.refused = false
	}
	s.cfg.Log.Info("reload passed on")
	notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonicUsec()))
	for _, c := range s.children {
		s.procs.signal(c.pid(), syscall.SIGHUP)
	}
	notify("READY=1")
	return nil
}

// stopAll ends the children one after the other, the last started first. Each
// has its own deadline, after which it is killed; so this ends.
func (s *supervisor) stopAll() error {
	var errs []error
	for _, c := range slices.Backward(s.children) {
		c.end()
		if c.killed {
			errs = append(errs, fmt.Errorf("%s %w", c.Name, ErrKilled))
		}
		s.cfg.Log.Info("process stopped", "process", c.Name)
	}
	if s.cfg.AfterStop != nil {
		if err := s.cfg.AfterStop(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *supervisor) status() Status {
	st := Status{Schema: 1, PID: os.Getpid(), Since: s.since.UTC(), Stopping: s.ending.isSet()}
	for _, c := range s.children {
		cs := c.snapshot()
		cs.Since = cs.Since.UTC()
		st.Children = append(st.Children, cs)
	}
	return st
}
