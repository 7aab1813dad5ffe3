package guardian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"manada/internal/cluster"
)

// Beater sends beats to the peers until the context ends; it never blocks on
// the channel for longer than it takes to drop what it cannot send. Package
// peer has one; the command line wires it in.
type Beater func(ctx context.Context, to BeatConfig, beats <-chan cluster.Beat)

// Config is what a guardian needs to know.
type Config struct {
	DataDir string // PGDATA; need not exist yet
	RunDir  string // 0700; the socket and the log are made in it
	// LockDir is flocked for the guardian's life, besides PGDATA while that
	// exists; meant for the state directory beside PGDATA. "" for none.
	LockDir string
	// Command starts a guardian, before Args; default: this executable and "guardian".
	Command []string
	// StopTimeout bounds the fast stop on SIGTERM before it becomes an
	// immediate one; default 30 s.
	StopTimeout time.Duration
	Version     string // of the binary, told in Status
	Beater      Beater
	Logger      *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.DataDir == "" || c.RunDir == "" {
		return c, errors.New("guardian: data and run directory are needed")
	}
	var err error
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return c, err
	}
	if c.RunDir, err = filepath.Abs(c.RunDir); err != nil {
		return c, err
	}
	if c.StopTimeout <= 0 {
		c.StopTimeout = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Args are the arguments behind `manada guardian` for this configuration.
func (c Config) Args() []string {
	a := []string{"--data-dir", c.DataDir, "--run-dir", c.RunDir}
	if c.LockDir != "" {
		a = append(a, "--lock-dir", c.LockDir)
	}
	if c.StopTimeout > 0 {
		a = append(a, "--stop-timeout", c.StopTimeout.String())
	}
	return a
}

// ParseArgs reads what Args writes.
func ParseArgs(args []string) (Config, error) {
	var c Config
	f := flag.NewFlagSet("guardian", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&c.DataDir, "data-dir", "", "PGDATA")
	f.StringVar(&c.RunDir, "run-dir", "", "directory of the socket")
	f.StringVar(&c.LockDir, "lock-dir", "", "directory to lock besides PGDATA")
	f.DurationVar(&c.StopTimeout, "stop-timeout", 0, "limit of the fast stop on SIGTERM")
	if err := f.Parse(args); err != nil {
		return c, fmt.Errorf("parse guardian's arguments: %w", err)
	}
	return c.withDefaults()
}

// SocketPath is where the guardian of this run directory listens.
func SocketPath(runDir string) (string, error) {
	dir, _, err := SocketDir(runDir, len("guardian.sock"))
	return filepath.Join(dir, "guardian.sock"), err
}

// maxSocketPath is the longest path of a unix socket (sun_path less its NUL).
const maxSocketPath = 107

// SocketDir is the directory for unix sockets with names of up to nameLen
// bytes: runDir where the path fits, else a private short directory under /tmp
// named after runDir (short is true), made when missing.
func SocketDir(runDir string, nameLen int) (dir string, short bool, err error) {
	if len(runDir)+1+nameLen <= maxSocketPath {
		return runDir, false, nil
	}
	h := sha256.Sum256([]byte(runDir))
	dir = fmt.Sprintf("/tmp/manada-%d-%s", os.Geteuid(), hex.EncodeToString(h[:6]))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", true, fmt.Errorf("make socket directory: %w", err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil {
		return "", true, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return "", true, fmt.Errorf("socket directory %s is not a private directory of ours: remove it, or choose a run directory with a path below %d bytes", dir, maxSocketPath-nameLen)
	}
	return dir, true, nil
}
