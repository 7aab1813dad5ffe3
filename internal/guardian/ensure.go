package guardian

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Ensure connects to the guardian of this data directory, or starts one in a
// session of its own, so that it outlives the caller. The new one adopts a
// postmaster that runs.
func Ensure(ctx context.Context, cfg Config, logger *slog.Logger) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	path, err := SocketPath(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	c := NewClient(path)
	st, err := c.Status(ctx)
	if err == nil {
		if st.DataDir != cfg.DataDir {
			return nil, fmt.Errorf("guardian on %s keeps %s, not %s: give every node a run directory of its own", path, st.DataDir, cfg.DataDir)
		}
		return c, nil
	}
	ended, logFile, err := spawn(cfg)
	if err != nil {
		return nil, err
	}
	var failed error
	for {
		if _, err := c.Status(ctx); err == nil {
			logger.Info("guardian started", "socket", path)
			return c, nil
		}
		select {
		case err := <-ended:
			// Perhaps another caller's was a moment earlier and has the lock.
			early, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			ctx, ended = early, nil
			failed = fmt.Errorf("it ended at once (%w)", err)
		case <-ctx.Done():
			return nil, fmt.Errorf("start guardian: %w: %s", cmp.Or(failed, ctx.Err()), lastLine(logFile))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func spawn(cfg Config) (<-chan error, string, error) {
	argv := cfg.Command
	if len(argv) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return nil, "", fmt.Errorf("start guardian: %w", err)
		}
		argv = []string{exe, "guardian"}
	}
	argv = append(append([]string(nil), argv...), cfg.Args()...)
	logFile := filepath.Join(cfg.RunDir, "guardian.log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("start guardian: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...) // without a context: it outlives us
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start guardian: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, logFile, nil
}

// lastLine is the end of a log, for an error message.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "nothing in " + path
	}
	return string(b[max(0, len(b)-300):])
}
