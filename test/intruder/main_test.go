package intruder

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"manada/internal/config"
	"manada/internal/rotate"
	"manada/test/herdtest"
)

// bin is the program under test; set by TestMain.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run()) // every test skips
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "intruder:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "manada-intruder-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	bin = filepath.Join(dir, "manada")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/manada")
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the program: %w\n%s", err, out)
	}
	if err := os.Chmod(bin, 0o755); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// site is the herd under attack.
type site struct {
	*testing.T
	*herdtest.Herd
	ctx  context.Context
	cfgs map[string]*config.Config // by host
}

// victims is the one herd of all tests of this package, with a backup, so that
// its state is OK.
func victims(t *testing.T) *site {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a herd")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	ports, err := herdtest.OwnPorts()
	must(t, err)
	h, err := herdtest.Start(ctx, bin, "", ports...)
	must(t, err)
	t.Cleanup(h.Remove)
	s := &site{t, h, ctx, map[string]*config.Config{}}
	for _, host := range []string{"master", "slave", "backup", "proxy"} {
		c, err := config.Load(filepath.Join(h.Data, host, config.FileName), nil)
		must(t, err)
		s.cfgs[host] = c
	}
	out, err := h.Manada(ctx, "backup")
	if err != nil {
		t.Fatalf("manada backup: %v\n%s", err, out)
	}
	s.wantOK("before anything")
	return s
}

// at is the address of a port of a host.
func (s *site) at(host string, port func(*config.Ports) int) string {
	return fmt.Sprintf("127.0.0.1:%d", port(&s.cfgs[host].Ports))
}

// programs are the herd's own processes that stay, and its postmasters.
func (s *site) programs() []int {
	first := s.programsNow()
	time.Sleep(time.Second) // a call of archive_command is over by then
	now := s.programsNow()
	return slices.DeleteFunc(first, func(pid int) bool { return !slices.Contains(now, pid) })
}

func (s *site) programsNow() []int {
	pids := []int{s.Postmaster("master"), s.Postmaster("slave")}
	for _, pid := range s.Processes("") {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(exe) == "manada" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// wantOK waits until the herd is OK again.
func (s *site) wantOK(when string) {
	s.Helper()
	var last string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		st, err := s.Status(s.ctx)
		if last = fmt.Sprintf("%s, %v, %v", st.Health, st.Conditions, err); err == nil && st.Health == "ok" {
			return
		}
	}
	s.Fatalf("%s: the herd is not OK: %s", when, last)
}

// settled waits until every host has what a removal has made new, and every voter
// is up again with it.
func (s *site) settled() {
	s.Helper()
	s.rotated()
	s.wantOK("when everything is new")
}

// rotated waits until every host has taken up what a removal has made new.
func (s *site) rotated() {
	s.Helper()
	var out string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var err error
		var st rotate.State
		out, err = s.Manada(s.ctx, "secrets", "status", "-o", "json")
		if err == nil && json.Unmarshal([]byte(out), &st) == nil && len(st.Behind)+len(st.Voters) == 0 && st.Pending == nil && !st.Spreading {
			return
		}
	}
	s.Fatalf("not everything is new: %s", out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
