package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Folders that each host has for itself, under its folder here.
var private = map[string]string{
	"etc": "/etc", "varlib": "/var/lib", "run": "/run", "root": "/root", "bin": "/usr/local/bin",
}

// network is the bridge that the hosts hang on; this test's own namespace, the
// application's host, has its address.
const (
	bridge  = "herd0"
	appAddr = "10.0.0.1/24"
)

// network and hosts of the walk-through.
type lab struct {
	t     *testing.T
	root  string
	hosts map[string]*machine
}

// machine is one host.
type machine struct {
	lab  *lab
	name string
	addr string
	dir  string // its private folders, as seen from here
	init *exec.Cmd
}

// newLab makes the bridge and the application's own /etc/hosts and /root.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, root: os.Getenv(rootEnv), hosts: map[string]*machine{}}
	l.ip("link", "set", "lo", "up")
	l.ip("link", "add", bridge, "type", "bridge", "forward_delay", "0")
	l.ip("addr", "add", appAddr, "dev", bridge)
	l.ip("link", "set", bridge, "up")
	return l
}

func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.CommandContext(l.t.Context(), "ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// link plugs a host's cable in or pulls it out.
func (m *machine) link(state string) { m.lab.ip("link", "set", "v-"+m.name, state) }

// boot starts a host with nothing on it and connects it to the bridge.
func (l *lab) boot(name, addr string) *machine {
	l.t.Helper()
	m := &machine{lab: l, name: name, addr: addr, dir: filepath.Join(l.root, name)}
	for d := range private {
		check(l.t, os.MkdirAll(filepath.Join(m.dir, d), 0o755))
	}
	check(l.t, os.MkdirAll(filepath.Join(m.dir, "varlib", "dpkg"), 0o755))
	if out, err := exec.CommandContext(l.t.Context(), "cp", "-a", "/etc/.", filepath.Join(m.dir, "etc")).CombinedOutput(); err != nil {
		l.t.Fatalf("copy /etc: %v: %s", err, out)
	}
	check(l.t, os.WriteFile(filepath.Join(m.dir, "etc", "hosts"), []byte("127.0.0.1 localhost\n"), 0o644))
	_ = os.RemoveAll(filepath.Join(m.dir, "etc", "manada"))
	ready, w, err := os.Pipe()
	check(l.t, err)
	m.init = exec.Command("/proc/self/exe", name, m.dir)
	m.init.Env = append(cleanEnv(), roleEnv+"=host", rootEnv+"="+l.root)
	m.init.Stderr = os.Stderr
	m.init.ExtraFiles = []*os.File{w}
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	check(l.t, m.init.Start())
	w.Close()
	if b, err := io.ReadAll(ready); err != nil || string(b) != "ready" {
		l.t.Fatalf("host %s did not come up: %q %v", name, b, err)
	}
	pid := strconv.Itoa(m.init.Process.Pid)
	l.ip("link", "add", "v-"+name, "type", "veth", "peer", "name", "eth0", "netns", pid)
	l.ip("link", "set", "v-"+name, "master", bridge, "up")
	m.must("ip link set lo up; ip addr add " + addr + "/24 dev eth0; ip link set eth0 up")
	l.hosts[name] = m
	return m
}

// cleanEnv is an environment that says nothing of this test's.
func cleanEnv() []string {
	return []string{"HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// hostInit is pid 1 of a host: private folders, then nothing but reaping.
func hostInit(args []string) error {
	name, dir := args[0], args[1]
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	bind := func(from, to string) error {
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", from, to, err)
		}
		return nil
	}
	if err := bind("/var/lib/dpkg", filepath.Join(dir, "varlib", "dpkg")); err != nil {
		return err
	}
	for d, at := range private {
		if err := unix.Mount(filepath.Join(dir, d), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	ready := os.NewFile(3, "ready")
	if _, err := ready.WriteString("ready"); err != nil {
		return err
	}
	ready.Close()
	reap(0)
	return nil
}

// command is a program on the host, started there by its shell.
func (m *machine) command(ctx context.Context, script string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(m.init.Process.Pid),
		"--net", "--mount", "--pid", "--uts", "--ipc", "/bin/bash", "-euo", "pipefail", "-c", "cd\n"+script)
	cmd.Env = append(m.lab.env(m.name), env...)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// env puts the stand-ins first in PATH.
func (l *lab) env(host string) []string {
	env := cleanEnv()
	return append(env, rootEnv+"="+l.root, "NETNS_TEST_HOST="+host, "PATH="+filepath.Join(l.root, "standins")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

// run types commands on the host and returns what they print.
func (m *machine) run(script string) (string, error) {
	ctx, cancel := context.WithTimeout(m.lab.t.Context(), 90*time.Second)
	defer cancel()
	return output(m.command(ctx, script))
}

// output runs a command whose children may live on: the service that a
// systemctl starts must not be waited for, so it writes to a file.
func output(cmd *exec.Cmd) (string, error) {
	f, err := os.CreateTemp(os.Getenv(rootEnv), "out-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	b, readErr := os.ReadFile(f.Name())
	return string(b), errors.Join(err, readErr)
}

func (m *machine) must(script string) string {
	m.lab.t.Helper()
	out, err := m.run(script)
	if err != nil {
		m.lab.t.Fatalf("on %s: %s\n%v\n%s", m.name, script, err, out)
	}
	return out
}

// file is a file of the host as seen from here.
func (m *machine) file(path string) string {
	for d, at := range private {
		if rest, ok := strings.CutPrefix(path, at+"/"); ok {
			return filepath.Join(m.dir, d, rest)
		}
	}
	m.lab.t.Fatalf("%s of %s is not its own", path, m.name)
	return ""
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
