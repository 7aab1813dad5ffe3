package netns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unit is what a unit file says, by section and key.
type unit map[string][]string

// obeyed are the keys that the stand-in for systemd does what they say; trusted
// are those that need systemd itself: `systemd-analyze verify` knows them.
var (
	obeyed = []string{
		"Service.Type", "Service.NotifyAccess", "Service.User", "Service.Group", "Service.ExecStartPre", "Service.ExecStart", "Service.ExecReload",
		"Service.KillMode", "Service.KillSignal", "Service.TimeoutStopSec", "Service.TimeoutStartSec", "Service.Restart", "Service.RestartSec",
		"Service.RestartPreventExitStatus", "Service.StateDirectory", "Service.StateDirectoryMode", "Service.RuntimeDirectory",
		"Service.RuntimeDirectoryMode", "Service.ConfigurationDirectory", "Service.LimitNOFILE", "Service.LimitCORE", "Service.Environment",
		"Service.NoNewPrivileges", "Service.ProtectSystem", "Service.ReadWritePaths", "Service.ProtectHome", "Service.PrivateTmp", "Service.UMask",
		"Install.WantedBy",
	}
	trusted = []string{
		"Unit.Description", "Unit.Wants", "Unit.After", "Service.TasksMax", "Service.OOMScoreAdjust", "Service.OOMPolicy",
		"Service.CapabilityBoundingSet", "Service.AmbientCapabilities", "Service.PrivateDevices", "Service.ProtectClock",
		"Service.ProtectControlGroups", "Service.ProtectHostname", "Service.ProtectKernelLogs", "Service.ProtectKernelModules",
		"Service.ProtectKernelTunables", "Service.RestrictAddressFamilies", "Service.RestrictNamespaces", "Service.RestrictRealtime",
		"Service.RestrictSUIDSGID", "Service.LockPersonality", "Service.SystemCallArchitectures", "Service.SystemCallFilter",
	}
)

func readUnit(path string) (unit, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	u, section := unit{}, ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			name := section + "." + strings.TrimSpace(key)
			if !ok || !slices.Contains(obeyed, name) && !slices.Contains(trusted, name) {
				return nil, fmt.Errorf("%s: %q is not known", path, line)
			}
			u[name] = append(u[name], strings.TrimSpace(value))
		}
	}
	return u, nil
}

// one is a key of [Service] that stands once.
func (u unit) one(key, otherwise string) string {
	if v := u["Service."+key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return otherwise
}

func (u unit) seconds(key string, otherwise time.Duration) time.Duration {
	v := u.one(key, "")
	if v == "infinity" {
		return time.Hour
	}
	if n, err := strconv.Atoi(v); err == nil {
		return time.Duration(n) * time.Second
	}
	return otherwise
}

const unitFiles = "/etc/systemd/system/"

// systemctl does what is typed in the walk-through, and stop and kill for the test.
func systemctl(args []string) error {
	args = slices.DeleteFunc(args, func(a string) bool { return a == "--now" })
	if len(args) == 0 {
		return errors.New("systemctl: what?")
	}
	if args[0] == "daemon-reload" {
		return os.MkdirAll("/run/units", 0o755) // files are read at each start
	}
	if len(args) != 2 {
		return fmt.Errorf("systemctl %v: not known here", args)
	}
	name := strings.TrimSuffix(args[1], ".service")
	u, err := readUnit(unitFiles + name + ".service")
	if err != nil {
		return fmt.Errorf("Failed to %s unit: %w", args[0], err)
	}
	switch args[0] {
	case "enable", "start":
		if args[0] == "enable" && len(u["Install.WantedBy"]) == 0 {
			return errors.New("the unit cannot be enabled: it has no WantedBy")
		}
		return startUnit(name)
	case "stop":
		return stopUnit(name)
	}
	return fmt.Errorf("systemctl %s: not known here", args[0])
}

func pidFile(name string) string { return "/run/units/" + name + ".pid" }

// startUnit starts the unit's manager and returns when it says that the service
// is ready, as `systemctl start` does for Type=notify.
func startUnit(name string) error {
	if _, err := os.Stat("/run/units"); err != nil {
		return errors.New("Failed to start: the manager has not read its files (daemon-reload)")
	}
	if b, err := os.ReadFile(pidFile(name)); err == nil {
		if pid, _ := strconv.Atoi(string(b)); pid > 0 && syscall.Kill(pid, 0) == nil {
			return nil
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	log, err := os.OpenFile("/run/units/"+name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", name)
	cmd.Env = append(cleanEnv(), roleEnv+"=unit", rootEnv+"="+os.Getenv(rootEnv))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.Close()
	line, _ := bufio.NewReader(r).ReadString('\n')
	if line != "ready\n" {
		b, _ := os.ReadFile(log.Name())
		return fmt.Errorf("Job for %s.service failed: %s\n%s", name, line, b)
	}
	return nil
}

func stopUnit(name string) error {
	b, err := os.ReadFile(pidFile(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	pid, _ := strconv.Atoi(string(b))
	if pid <= 0 {
		return fmt.Errorf("no pid in %s", pidFile(name))
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return nil
	}
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// runUnit is the manager of one unit: it starts the service as the unit says,
// again when it ends, and stops it at SIGTERM.
func runUnit(args []string) error {
	name := args[0]
	ready := os.NewFile(3, "ready")
	fail := func(err error) error {
		fmt.Fprintln(ready, err)
		return err
	}
	u, err := readUnit(unitFiles + name + ".service")
	if err != nil {
		return fail(err)
	}
	// A control group that nobody leaves: whatever is orphaned comes to us.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fail(err)
	}
	if err := os.WriteFile(pidFile(name), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return fail(err)
	}
	defer os.Remove(pidFile(name))
	s := &service{name: name, unit: u, ready: ready}
	if err := s.listen(); err != nil {
		return fail(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	return s.loop(stop)
}

type service struct {
	name   string
	unit   unit
	ready  *os.File
	notify string // NOTIFY_SOCKET
}

// listen waits for READY=1 of the service.
func (s *service) listen() error {
	s.notify = "/run/units/" + s.name + ".notify"
	os.Remove(s.notify)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: s.notify}); err != nil {
		return err
	}
	if err := os.Chmod(s.notify, 0o777); err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return
			}
			for line := range strings.SplitSeq(string(buf[:n]), "\n") {
				if line == "READY=1" {
					fmt.Fprintln(s.ready, "ready")
					s.ready.Close()
				}
			}
		}
	}()
	return nil
}

func (s *service) loop(stop <-chan os.Signal) error {
	for {
		if err := s.directories(); err != nil {
			return s.failed(err)
		}
		for _, pre := range s.unit["Service.ExecStartPre"] {
			if code, err := s.exec(pre, nil); code != 0 || err != nil {
				return s.failed(fmt.Errorf("%s: exit code %d %v", pre, code, err))
			}
		}
		code, err := s.exec(s.unit.one("ExecStart", ""), stop)
		if err != nil {
			return s.failed(err)
		}
		if code == stopped {
			os.RemoveAll("/run/" + s.unit.one("RuntimeDirectory", "none"))
			return nil
		}
		fmt.Fprintf(os.Stderr, "%s ended with %d\n", s.name, code)
		if s.unit.one("Restart", "no") != "always" || slices.Contains(strings.Fields(s.unit.one("RestartPreventExitStatus", "")), strconv.Itoa(code)) {
			return s.failed(fmt.Errorf("exit code %d", code))
		}
		select {
		case <-stop:
			return nil
		case <-time.After(s.unit.seconds("RestartSec", 100*time.Millisecond)):
		}
	}
}

func (s *service) failed(err error) error {
	fmt.Fprintln(s.ready, err) // nobody reads any more once it was ready
	return err
}

const stopped = -1000

// exec runs one line of the unit in a process that becomes it (execUnit), waits
// for its end, and reaps whatever else comes. At stop it does what KillMode=mixed
// says: the signal to the main process alone, SIGKILL to all that is left.
func (s *service) exec(line string, stop <-chan os.Signal) (code int, err error) {
	cmd := exec.Command("/proc/self/exe", append([]string{s.name}, strings.Fields(line)...)...)
	cmd.Env = append(cleanEnv(), roleEnv+"=unitexec", "NOTIFY_SOCKET="+s.notify)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan int, 1)
	go func() { ended <- reap(cmd.Process.Pid) }()
	select {
	case code := <-ended:
		s.killRest()
		return code, nil
	case <-stop:
	}
	sig := unix.SignalNum(s.unit.one("KillSignal", "SIGTERM"))
	if s.unit.one("KillMode", "") != "mixed" {
		return 0, errors.New("only KillMode=mixed is known here")
	}
	if err := cmd.Process.Signal(sig); err != nil {
		return 0, err
	}
	select {
	case code := <-ended:
		if code != 0 {
			fmt.Fprintf(os.Stderr, "%s ended with %d when stopped\n", s.name, code)
		}
	case <-time.After(s.unit.seconds("TimeoutStopSec", 90*time.Second)):
		fmt.Fprintf(os.Stderr, "%s did not stop in time\n", s.name)
	}
	s.killRest()
	return stopped, nil
}

// killRest ends what is left of the control group and says what it was.
func (s *service) killRest() {
	for range 100 {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		pids := strings.Fields(string(children))
		if len(pids) == 0 {
			return
		}
		for _, p := range pids {
			pid, _ := strconv.Atoi(p)
			if got, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); got == pid {
				continue // it had ended; nobody had asked for its exit code
			}
			if stat, _ := os.ReadFile("/proc/" + p + "/stat"); !bytes.Contains(stat, []byte(") Z ")) { // a dead one may have threads on their way out
				fmt.Fprintf(os.Stderr, "killing what is left: %s", stat)
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}
}

// directories makes what StateDirectory and its like promise.
func (s *service) directories() error {
	uid, gid, _, err := s.unit.account()
	if err != nil {
		return err
	}
	for _, d := range []struct{ key, base string }{{"StateDirectory", "/var/lib/"}, {"RuntimeDirectory", "/run/"}} {
		name := s.unit.one(d.key, "")
		if name == "" {
			continue
		}
		mode, err := strconv.ParseUint(s.unit.one(d.key+"Mode", "0755"), 8, 32)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(d.base+name, os.FileMode(mode)); err != nil {
			return err
		}
		if err := errors.Join(os.Chmod(d.base+name, os.FileMode(mode)), os.Chown(d.base+name, uid, gid)); err != nil {
			return err
		}
	}
	return os.MkdirAll("/etc/"+s.unit.one("ConfigurationDirectory", ""), 0o755)
}

func (u unit) account() (uid, gid int, groups []int, err error) {
	who, err := user.Lookup(u.one("User", "root"))
	if err != nil {
		return 0, 0, nil, err
	}
	g, err := user.LookupGroup(u.one("Group", u.one("User", "root")))
	if err != nil {
		return 0, 0, nil, err
	}
	uid, _ = strconv.Atoi(who.Uid)
	gid, _ = strconv.Atoi(g.Gid)
	ids, err := who.GroupIds()
	for _, id := range ids {
		n, _ := strconv.Atoi(id)
		groups = append(groups, n)
	}
	return uid, gid, groups, err
}

// execUnit sets up what the unit promises and becomes the program.
func execUnit(args []string) error {
	runtime.LockOSThread() // some of it is a thread's, and a thread becomes the program
	u, err := readUnit(unitFiles + args[0] + ".service")
	if err != nil {
		return err
	}
	uid, gid, groups, err := u.account()
	if err != nil {
		return err
	}
	if err := u.protect(); err != nil {
		return fmt.Errorf("protect the system: %w", err)
	}
	mask, err := strconv.ParseUint(u.one("UMask", "0022"), 8, 32)
	if err != nil {
		return err
	}
	syscall.Umask(int(mask))
	for key, what := range map[string]int{"LimitNOFILE": unix.RLIMIT_NOFILE, "LimitCORE": unix.RLIMIT_CORE} {
		if n, err := strconv.ParseUint(u.one(key, ""), 10, 64); err == nil {
			var now unix.Rlimit
			if err := unix.Getrlimit(what, &now); err != nil {
				return err
			}
			n = min(n, now.Max) // a container's root may not raise it
			if err := unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	if err := errors.Join(os.Chdir("/"), syscall.Setgroups(groups), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return err
	}
	if u.one("NoNewPrivileges", "no") == "yes" {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	name := u.one("User", "root")
	env := []string{"LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "NOTIFY_SOCKET=" + os.Getenv("NOTIFY_SOCKET"),
		"USER=" + name, "LOGNAME=" + name, "HOME=/var/lib/postgresql",
		"STATE_DIRECTORY=/var/lib/" + u.one("StateDirectory", ""), "RUNTIME_DIRECTORY=/run/" + u.one("RuntimeDirectory", "")}
	for _, e := range u["Service.Environment"] {
		env = append(env, strings.Fields(e)...)
	}
	return syscall.Exec(args[1], args[1:], env)
}

// protect does ProtectSystem=strict, ProtectHome and PrivateTmp in the mount
// namespace of this process: whatever the unit does not name is read-only.
func (u unit) protect() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	writable := []string{"/dev", "/proc", "/run/" + u.one("RuntimeDirectory", ""), "/var/lib/" + u.one("StateDirectory", "")}
	writable = append(writable, strings.Fields(u.one("ReadWritePaths", ""))...)
	for _, w := range writable {
		if err := unix.Mount(w, w, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	empty := map[string]bool{"/tmp": u.one("PrivateTmp", "no") == "yes", "/root": u.one("ProtectHome", "no") == "yes"}
	if u.one("ProtectSystem", "") == "strict" {
		if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("/: %w", err)
		}
		for _, w := range writable {
			if err := unix.MountSetattr(unix.AT_FDCWD, w, unix.AT_RECURSIVE, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
		}
	}
	for at, hide := range empty {
		if !hide {
			continue
		}
		mode, flags := "mode=1777", uintptr(0)
		if at == "/root" {
			mode, flags = "mode=000", unix.MS_RDONLY
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", flags, mode); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// TestUnitFile: the stand-in knows every word of the unit file.
func TestUnitFile(t *testing.T) {
	u, err := readUnit("../../deploy/systemd/manada.service")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(u.one("ExecStart", ""), "/usr/local/bin/manada run -c /etc/manada/manada.yaml") || u.one("Type", "") != "notify" {
		t.Errorf("%v", u)
	}
	bad := filepath.Join(t.TempDir(), "x.service")
	check(t, os.WriteFile(bad, []byte("[Service]\nExecStrat=x\n"), 0o644))
	if _, err := readUnit(bad); err == nil {
		t.Error("a misspelt key was accepted")
	}
}
