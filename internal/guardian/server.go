package guardian

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Run is the guardian process: it serves its socket until it is told to quit,
// or until ctx ends (the command line ends it on SIGTERM); then it stops
// PostgreSQL fast, then immediately, then by force, and returns when nothing
// of it lives. It must be alone in its process: it reaps every child.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	unlock, err := lockDir(cfg.LockDir)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := listen(cfg)
	if err != nil {
		return err
	}
	defer l.Close()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	k := newKeeper(cfg)
	s := &server{k: k, beats: newBeats(cfg, k), quit: make(chan struct{})}
	defer s.beats.stop()
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	go func() {
		for range chld {
			k.reap()
		}
	}()
	defer close(chld)
	defer signal.Stop(chld)
	k.adopt()
	go s.accept(ctx, l)
	cfg.Logger.Info("guardian ready", "pid", os.Getpid(), "data_dir", cfg.DataDir)
	select {
	case <-s.quit:
		return nil
	case <-ctx.Done():
		return s.shutdown(context.WithoutCancel(ctx))
	}
}

func lockDir(path string) (func(), error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// listen makes the socket. A socket file that nobody serves is replaced; the
// lock file decides between two guardians that start at once.
func listen(cfg Config) (net.Listener, error) {
	path, err := SocketPath(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	guard, err := os.OpenFile(filepath.Join(cfg.RunDir, "guardian.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	if err := flock(guard); err != nil {
		guard.Close()
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &lockedListener{l, guard}, nil
}

// lockedListener keeps the lock file open as long as the socket.
type lockedListener struct {
	net.Listener
	guard *os.File
}

func (l *lockedListener) Close() error {
	return errors.Join(l.Listener.Close(), l.guard.Close())
}

type server struct {
	k     *keeper
	beats *beats
	quit  chan struct{}
	once  sync.Once
}

func (s *server) accept(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.k.log.Warn("accept failed", "error", err)
			time.Sleep(20 * time.Millisecond)
			continue
		}
		go s.serve(ctx, c)
	}
}

func (s *server) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 64<<10)
	out := json.NewEncoder(c)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var q request
		if err := json.Unmarshal(line, &q); err != nil {
			_ = out.Encode(response{Error: "parse request: " + err.Error()})
			return
		}
		if q.Op == "watch" {
			s.watch(ctx, c, out)
			return
		}
		err = s.handle(q)
		r := response{Status: s.k.status()}
		if err != nil {
			r.Error = err.Error()
		}
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if out.Encode(r) != nil {
			return
		}
		if q.Op == "quit" && err == nil {
			s.once.Do(func() { close(s.quit) })
			return
		}
	}
}

func (s *server) handle(q request) error {
	switch q.Op {
	case "status":
		return nil
	case "start":
		if q.Start == nil {
			return errors.New("start postgres: nothing to start")
		}
		return s.k.start(*q.Start)
	case "stop":
		return s.k.stop(q.Mode)
	case "kill_tree":
		return s.k.killTree()
	case "beats":
		if q.Beats == nil {
			return errors.New("set beats: no configuration")
		}
		return s.beats.set(*q.Beats)
	case "quit":
		if st := s.k.status(); st.Running || !st.TreeEmpty {
			return fmt.Errorf("quit: postgres still runs (postmaster %d); stop it first", st.PID)
		}
		return nil
	}
	return fmt.Errorf("unknown request %q", q.Op)
}

// watch sends the status now and at every change; every second, too, so that a
// dead reader is noticed.
func (s *server) watch(ctx context.Context, c net.Conn, out *json.Encoder) {
	changes, done := s.k.subscribe()
	defer done()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		s.k.mu.Lock()
		st := s.k.st
		s.k.mu.Unlock()
		if out.Encode(response{Status: st}) != nil {
			return
		}
		select {
		case <-changes:
		case <-t.C:
			s.k.status()
		case <-s.quit:
			return
		case <-ctx.Done():
			// Go on telling while PostgreSQL is being stopped.
			<-changes
		}
	}
}

// shutdown stops PostgreSQL: fast, immediate, by force. It returns with an
// error, and says so in the log, should anything survive.
func (s *server) shutdown(ctx context.Context) error {
	for _, step := range []struct {
		ask   func() error
		limit time.Duration
	}{
		{func() error { return s.k.stop(Fast) }, s.k.cfg.StopTimeout},
		{func() error { return s.k.stop(Immediate) }, 5 * time.Second},
		{s.k.killTree, 10 * time.Second},
	} {
		if err := step.ask(); err != nil {
			s.k.log.Error("stop of postgres failed", "error", err)
		}
		if s.waitEmpty(ctx, step.limit) {
			s.k.log.Info("guardian ends, postgres is stopped")
			return nil
		}
	}
	st := s.k.status()
	s.k.log.Error("guardian ends and leaves postgres behind", "pid", st.PID, "running", st.Running)
	return fmt.Errorf("stop postgres: processes of it survive (postmaster %d)", st.PID)
}

func (s *server) waitEmpty(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	changes, done := s.k.subscribe()
	defer done()
	for {
		if st := s.k.status(); !st.Running && st.TreeEmpty {
			return true
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return false
		}
	}
}
