package e2e

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	long   = flag.Bool("long", false, "repeat the failures many times, in random order")
	rounds = flag.Int("rounds", 100, "how many failures with -long")
)

// janitorEnv makes this program the janitor of the folder that it names.
const janitorEnv = "MANADA_E2E_JANITOR"

// Of the whole run; set by TestMain.
var (
	base string // folder for everything, 0755: PostgreSQL refuses root
	bin  string // the program under test
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(janitorEnv); dir != "" {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the tests are gone
		sweep(dir)
		return
	}
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run()) // every test skips
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if base, err = os.MkdirTemp("", "manada-e2e-"); err != nil {
		return 1, err
	}
	if err := os.Chmod(base, 0o755); err != nil {
		return 1, err
	}
	end, err := hireJanitor(base)
	if err != nil {
		return 1, err
	}
	defer end()
	if bin, err = build(base); err != nil {
		return 1, err
	}
	code = m.Run()
	herds.dropAll()
	if left := below(base); len(left) > 0 && code == 0 {
		return 1, fmt.Errorf("processes are left: %v", left)
	}
	return code, nil
}

// build makes the program once, where everybody can run it.
func build(dir string) (string, error) {
	if b := os.Getenv("MANADA_E2E_BIN"); b != "" {
		return filepath.Abs(b)
	}
	to := filepath.Join(dir, "manada")
	cmd := exec.Command("go", "build", "-trimpath", "-o", to, "./cmd/manada")
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return to, os.Chmod(to, 0o755)
}

// hireJanitor starts the janitor and returns what sends it to work.
func hireJanitor(dir string) (end func(), err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), janitorEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() { in.Close(); _ = cmd.Wait() }, nil
}

// sweep ends every process of a folder and removes it.
func sweep(dir string) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left := below(dir)
		if len(left) == 0 {
			break
		}
		for _, p := range left {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	_ = os.RemoveAll(dir)
}

// proc is a process as /proc shows it.
type proc struct {
	pid  int
	args []string
	cwd  string
}

func (p proc) String() string { return fmt.Sprintf("%d %q", p.pid, strings.Join(p.args, " ")) }

// below lists the processes that stand in a folder, or name it or run from it.
func below(dir string) []proc {
	var out []proc
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue // gone, or a zombie
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		p := proc{pid, strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), cwd}
		named := slices.ContainsFunc(p.args, func(a string) bool { return strings.Contains(a, dir+"/") })
		if named || strings.HasPrefix(cwd+"/", dir+"/") {
			out = append(out, p)
		}
	}
	return out
}
