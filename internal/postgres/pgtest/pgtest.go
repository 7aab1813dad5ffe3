// Package pgtest helps tests that run real PostgreSQL, which refuses to run as
// root: Main runs the tests again as the user postgres, and as a guardian when
// the test binary is started as one. It starts no PostgreSQL itself.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/guardian"
	"manada/internal/porttest"
)

// Main is for TestMain: os.Exit(pgtest.Main(m)).
func Main(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == "guardian" {
		return runGuardian(os.Args[2:])
	}
	if os.Geteuid() != 0 {
		return m.Run()
	}
	code, err := rerun()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests as user postgres:", err)
		return 1
	}
	return code
}

func runGuardian(args []string) int {
	cfg, err := guardian.ParseArgs(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := guardian.Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// rerun copies the test binary to where postgres may read it and runs it there.
func rerun() (int, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	base := "/dev/shm" // initdb and clones are mostly fsync
	if st, err := os.Stat(base); err != nil || !st.IsDir() || st.Mode().Perm()&0o002 == 0 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "manada-test-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, uid, gid)); err != nil {
		return 0, err
	}
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	bin := filepath.Join(dir, filepath.Base(exe))
	if err := copyFile(exe, bin); err != nil {
		return 0, err
	}
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool {
		return strings.HasPrefix(a, "-test.testlogfile=") // lies in a folder of root's
	})
	cmd := exec.Command(bin, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "USER=postgres")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(1, exit.ExitCode()), nil
	}
	return 0, err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Dir makes a short temporary folder that PostgreSQL accepts, removed at the end.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Port finds a free port on the loopback.
func Port(t testing.TB) int {
	t.Helper()
	port, err := porttest.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Guardian starts one for the node and ends it, and PostgreSQL, with the test.
func Guardian(t testing.TB, dataDir, runDir string) *guardian.Client {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	cfg := guardian.Config{DataDir: dataDir, RunDir: runDir}
	ctx := t.Context()
	c, err := guardian.Ensure(ctx, cfg, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		// A new client: the test may have killed that guardian.
		c, err := guardian.Ensure(ctx, cfg, logger)
		if err != nil {
			t.Error("end guardian:", err)
			return
		}
		// An immediate stop removes PostgreSQL's shared memory, a kill leaves it.
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = c.Stop(ctx, guardian.Immediate)
		_ = c.WaitEmpty(short)
		if err := errors.Join(c.KillTree(ctx), c.WaitEmpty(ctx), c.Quit(ctx)); err != nil {
			t.Error("end postgres:", err)
		}
	})
	return c
}
