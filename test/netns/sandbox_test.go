package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes this test binary something else than the test: the init of the
// sandbox or of a host, or one of the programs that stand in PATH.
const (
	roleEnv = "NETNS_TEST_ROLE"
	rootEnv = "NETNS_TEST_ROOT" // folder of everything
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "sandbox":
		err = sandboxInit()
	case "inside":
		os.Exit(m.Run())
	case "host":
		err = hostInit(os.Args[1:])
	case "systemctl":
		err = systemctl(os.Args[1:])
	case "unit":
		err = runUnit(os.Args[1:])
	case "unitexec":
		err = execUnit(os.Args[1:])
	case "writer":
		err = localWriter(os.Args[1:])
	default:
		err = fmt.Errorf("no role %q", os.Getenv(roleEnv))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// inSandbox runs the calling test once more, inside namespaces of its own, and
// says whether this is that second run. Nothing made inside can outlive it: the
// kernel kills the processes of a pid namespace with its init, and takes
// interfaces, mounts and namespaces with them.
func inSandbox(t *testing.T, limit time.Duration) bool {
	t.Helper()
	if os.Getenv(roleEnv) == "inside" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces: run this test as root")
	}
	root, err := os.MkdirTemp("", "manada-netns-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
		nothingLeft(t, root)
	})
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+limit.String())
	cmd.Env = append(os.Environ(), roleEnv+"=sandbox", rootEnv+"="+root)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	t.Logf("inside:\n%s", out.String())
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Fatalf("root may not make namespaces here (a container without CAP_SYS_ADMIN?): %v", err)
	case err != nil:
		t.Fatalf("inside the sandbox: %v", err)
	}
	return false
}

// nothingLeft looks for what the sandbox should have taken with it.
func nothingLeft(t *testing.T, root string) {
	t.Helper()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if bytes.Contains(mounts, []byte(root)) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if bytes.Contains(line, []byte(root)) || bytes.Contains(env, []byte(rootEnv+"="+root)) {
			t.Errorf("process %s is left: %s", e.Name(), strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
}

// sandboxInit is pid 1: it mounts its own /proc, starts the test and reaps.
func sandboxInit() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"=inside")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	code := reap(cmd.Process.Pid)
	os.Exit(code)
	return nil
}

// reap waits for every child that there is, as an init must, until that one has
// ended, and returns its exit code.
func reap(pid int) int {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil && pid != 0:
			return 1
		case err != nil: // no children now
			ch := make(chan os.Signal, 1)
			signal.Notify(ch, syscall.SIGCHLD)
			select {
			case <-ch:
			case <-time.After(100 * time.Millisecond):
			}
			signal.Stop(ch)
		case got == pid && ws.Exited():
			return ws.ExitStatus()
		case got == pid:
			return 128 + int(ws.Signal())
		}
	}
}
