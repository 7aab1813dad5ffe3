package guardian

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manada/internal/guardian/procfs"
)

// keeper owns the postmaster. Its mutex is held over fork and wait, so that a
// postmaster that dies before its pid is noted is not missed.
type keeper struct {
	cfg Config
	log *slog.Logger

	mu       sync.Mutex
	st       Status
	dir      procfs.DirID // of the PGDATA that was started, survives a rename
	lock     *os.File     // flock on PGDATA
	sweeping bool
	watchers map[chan struct{}]struct{}
}

func newKeeper(cfg Config) *keeper {
	k := &keeper{cfg: cfg, log: cfg.Logger, watchers: make(map[chan struct{}]struct{})}
	k.st = Status{Guardian: os.Getpid(), Boot: rand.Text(), DataDir: cfg.DataDir, Version: cfg.Version}
	return k
}

// changed tells the watchers; the mutex is held.
func (k *keeper) changed() {
	k.st.Seq++
	for w := range k.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (k *keeper) subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watchers[c] = struct{}{}
	return c, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.watchers, c)
	}
}

// status looks anew whether the tree is empty when no postmaster runs.
func (k *keeper) status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	return k.st
}

func (k *keeper) refresh() {
	if k.st.Running {
		p, err := procfs.Read(k.st.PID)
		k.st.Stopped = err == nil && (p.State == 'T' || p.State == 't')
		return
	}
	k.st.Stopped = false
	if k.sweeping {
		return
	}
	empty := k.emptyNow()
	if empty != k.st.TreeEmpty {
		k.st.TreeEmpty = empty
		k.changed()
	}
}

// emptyNow is the proof: a fresh look at the whole process table.
func (k *keeper) emptyNow() bool {
	empty, err := procfs.Empty(k.where())
	return err == nil && empty
}

func (k *keeper) tree() ([]procfs.Proc, error) { return procfs.Tree(k.where(), os.Getpid()) }

// where is the directory whose processes count.
func (k *keeper) where() procfs.DirID {
	if k.dir == (procfs.DirID{}) {
		d, _ := procfs.Dir(k.cfg.DataDir)
		return d
	}
	return k.dir
}

// start forks the postmaster.
func (k *keeper) start(s StartSpec) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st.Running {
		return fmt.Errorf("start postgres: postmaster %d already runs", k.st.PID)
	}
	if len(s.Argv) == 0 {
		return errors.New("start postgres: no command")
	}
	if k.sweeping {
		return errors.New("start postgres: processes of an earlier one still live")
	}
	k.dir = procfs.DirID{} // PGDATA may be another directory since
	if !k.emptyNow() {
		return errors.New("start postgres: processes of an earlier one still live")
	}
	if err := k.lockData(); err != nil {
		return err
	}
	if err := k.removeStalePid(); err != nil {
		return err
	}
	pid, err := fork(s)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	k.dir, _ = procfs.Dir(k.cfg.DataDir)
	k.st.Running, k.st.PID, k.st.StartedAt, k.st.Exit, k.st.Asked = true, pid, time.Now().UTC(), "", ""
	k.st.TreeEmpty, k.st.Adopted, k.st.Stopped = false, false, false
	k.changed()
	k.log.Info("postmaster started", "pid", pid)
	return nil
}

func fork(s StartSpec) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	// Not os/exec: one reaper waits for every child, see reap.
	return syscall.ForkExec(s.Argv[0], s.Argv, &syscall.ProcAttr{
		Dir: s.Dir, Env: s.Env,
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// lockData takes (or keeps) the flock on the PGDATA of this moment.
func (k *keeper) lockData() error {
	f, err := os.Open(k.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	if k.lock != nil {
		a, _ := k.lock.Stat()
		b, _ := f.Stat()
		if os.SameFile(a, b) {
			return f.Close()
		}
		k.lock.Close() // the directory was replaced by a clone
		k.lock = nil
	}
	if err := flock(f); err != nil {
		f.Close()
		return err
	}
	k.lock = f
	return nil
}

func flock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: another guardian holds it, perhaps in another container on the same volume; stop that one first", f.Name())
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// removeStalePid removes postmaster.pid after the tree was proved empty: in a
// container its pid is soon somebody else's, and PostgreSQL would refuse to start.
func (k *keeper) removeStalePid() error {
	err := os.Remove(filepath.Join(k.cfg.DataDir, "postmaster.pid"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale postmaster.pid: %w", err)
	}
	return nil
}

// reap collects every ended child. Orphans of the postmaster become ours
// (subreaper), so there are many.
func (k *keeper) reap() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if k.st.Running && pid == k.st.PID && !k.st.Adopted {
			k.gone(describe(ws))
		}
	}
}

func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "signal: " + ws.Signal().String()
	}
	return "exit status " + strconv.Itoa(ws.ExitStatus())
}

// gone notes the end of the postmaster, tells it at once and starts to sweep;
// the mutex is held.
func (k *keeper) gone(exit string) {
	k.st.Running, k.st.Stopped, k.st.Exit, k.st.TreeEmpty = false, false, exit, false
	k.changed()
	k.log.Info("postmaster ended", "pid", k.st.PID, "exit", exit)
	k.startSweep()
}

func (k *keeper) startSweep() {
	if !k.sweeping {
		k.sweeping = true
		go k.sweep()
	}
}

// sweep kills what is left and says "empty" only once it has seen it.
func (k *keeper) sweep() {
	killed := 0
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if k.emptyNow() {
			break
		}
		t, _ := k.tree()
		for _, p := range t {
			if strings.Contains(procfs.Title(p.PID), " --single") {
				continue // somebody's recovery run, not our postmaster's
			}
			if syscall.Kill(p.PID, syscall.SIGKILL) == nil {
				killed++
			}
		}
		k.reap()
		time.Sleep(wait)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweeping = false
	if !k.st.Running {
		if err := k.removeStalePid(); err != nil {
			k.log.Warn("stale pid file stays", "error", err)
		}
		k.st.TreeEmpty = true
		k.changed()
	}
	if killed > 0 {
		k.log.Info("orphans of the postmaster killed", "signals", killed)
	}
}

func (k *keeper) stop(m StopMode) error {
	sig, ok := map[StopMode]syscall.Signal{Smart: syscall.SIGTERM, Fast: syscall.SIGINT, Immediate: syscall.SIGQUIT}[m]
	if !ok {
		return fmt.Errorf("stop postgres: unknown mode %q: want smart, fast or immediate", m)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.st.Running {
		return nil
	}
	k.st.Asked = m
	k.changed()
	// A halted postmaster could not act on the signal.
	if err := syscall.Kill(k.st.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal postmaster %d: %w", k.st.PID, err)
	}
	return nil
}

// killTree kills the postmaster first, so that nothing is forked behind our back.
func (k *keeper) killTree() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st.Running {
		if err := syscall.Kill(k.st.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill postmaster %d: %w", k.st.PID, err)
		}
		return nil // its end starts the sweep
	}
	k.startSweep()
	return nil
}

// adopt takes over a postmaster whose guardian died, or kills what such a
// postmaster left.
func (k *keeper) adopt() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dir, _ = procfs.Dir(k.cfg.DataDir)
	pid, started := k.runningPostmaster()
	if pid == 0 {
		if k.emptyNow() {
			k.st.TreeEmpty = true
		} else {
			k.startSweep()
		}
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		k.log.Error("running postmaster cannot be watched", "pid", pid, "error", err)
		return
	}
	if again, _ := k.runningPostmaster(); again != pid {
		unix.Close(fd)
		k.startSweep()
		return
	}
	if err := k.lockData(); err != nil {
		k.log.Error("running postmaster adopted without a lock", "error", err)
	}
	k.st.Running, k.st.PID, k.st.StartedAt, k.st.Adopted = true, pid, started, true
	k.changed()
	k.log.Info("postmaster adopted", "pid", pid)
	go k.watchAdopted(pid, fd)
}

func (k *keeper) watchAdopted(pid, fd int) {
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			k.log.Error("watch of the postmaster failed", "pid", pid, "error", err)
			time.Sleep(50 * time.Millisecond)
			if p, err := procfs.Read(pid); err == nil && !p.Dead() {
				continue
			}
		}
		if n > 0 || err != nil {
			break
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st.Running && k.st.PID == pid {
		k.gone("unknown")
	}
}

// runningPostmaster believes postmaster.pid only when that process lives, runs
// postgres, stands in PGDATA and started when the file says (a pid is reused soon).
func (k *keeper) runningPostmaster() (int, time.Time) {
	b, err := os.ReadFile(filepath.Join(k.cfg.DataDir, "postmaster.pid"))
	if err != nil {
		return 0, time.Time{}
	}
	l := strings.Split(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(l[0]))
	if err != nil || pid <= 1 || len(l) < 3 {
		return 0, time.Time{}
	}
	p, err := procfs.Read(pid)
	if err != nil || p.Dead() {
		return 0, time.Time{}
	}
	if exe := procfs.Exe(pid); exe != "postgres" && exe != "postmaster" {
		return 0, time.Time{}
	}
	if id, err := procfs.Cwd(pid); err != nil || id != k.dir {
		return 0, time.Time{}
	}
	if parent, err := procfs.Read(p.PPID); err == nil && procfs.Exe(parent.PID) == "postgres" {
		return 0, time.Time{} // a backend that got the number of a dead postmaster
	}
	sec, _ := strconv.ParseInt(strings.TrimSpace(l[2]), 10, 64)
	return pid, time.Unix(sec, 0).UTC()
}
