package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// procs forks children and waits for them and for orphans.
type procs struct {
	forks chan func()
	mu    sync.Mutex // held over fork and registration, so that no death comes before its name
	live  map[int]chan syscall.WaitStatus
	stop  chan struct{}
}

func newProcs() *procs {
	p := &procs{forks: make(chan func()), live: map[int]chan syscall.WaitStatus{}, stop: make(chan struct{})}
	go p.forker()
	go p.reaper()
	return p
}

func (p *procs) close() { close(p.stop) }

// forker runs every fork on one thread that lives as long as the process.
func (p *procs) forker() {
	runtime.LockOSThread() // never unlocked: PDEATHSIG follows the thread
	for {
		select {
		case f := <-p.forks:
			f()
		case <-p.stop:
			return
		}
	}
}

// start forks a process whose output goes to out. Its end arrives on the
// channel.
func (p *procs) start(argv, env []string, out *os.File) (pid int, ended <-chan syscall.WaitStatus, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{Env: env, Dir: "/", Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		// A process group of its own: Ctrl-C at a terminal reaches the
		// supervisor only, which then stops in order.
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}}
	ch := make(chan syscall.WaitStatus, 1)
	done := make(chan struct{})
	fork := func() {
		defer close(done)
		p.mu.Lock()
		defer p.mu.Unlock()
		if pid, err = syscall.ForkExec(argv[0], argv, attr); err == nil {
			p.live[pid] = ch
		}
	}
	select {
	case p.forks <- fork:
		<-done
	case <-p.stop:
		err = errors.New("the supervisor is ending")
	}
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return pid, ch, nil
}

// reaper waits for everyone: children by name, orphans (PID 1's duty) by the
// way.
func (p *procs) reaper() {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGCHLD)
	defer signal.Stop(sig)
	tick := time.NewTicker(time.Second) // a signal may have been merged with another
	defer tick.Stop()
	for {
		p.reap()
		select {
		case <-sig:
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

func (p *procs) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		p.mu.Lock()
		ch := p.live[pid]
		delete(p.live, pid)
		p.mu.Unlock()
		if ch != nil {
			ch <- ws
		}
	}
}

// signal sends a signal to a child that still lives: under the lock its pid
// cannot have been given to another process.
func (p *procs) signal(pid int, s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.live[pid]; ok {
		_ = syscall.Kill(pid, s)
	}
}

func exitText(ws syscall.WaitStatus) string {
	switch {
	case ws.Signaled():
		return fmt.Sprintf("killed by %s", ws.Signal())
	default:
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
}
